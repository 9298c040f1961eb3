"""ImageNet weights: which file, whole or not at all, and one sentence where there is no network."""

import http.server
import threading

import pytest

from canopy.cli import UserError
from trainer import weights


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A real HTTP server in the place of Keras' storage."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = folder / self.path.strip("/")
            if not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if (folder / "cut").exists() else data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(weights, "BASE_URL", f"http://127.0.0.1:{server.server_port}/")
    yield folder
    server.shutdown()


def test_the_file_is_fetched_once(served, tmp_path):
    name = weights.file_name(1.0, 224)
    (served / name).write_bytes(b"weights")
    path = weights.fetch(1.0, 224, tmp_path / "cache")
    assert path.read_bytes() == b"weights"
    (served / name).unlink()
    assert weights.fetch(1.0, 224, tmp_path / "cache") == path


def test_a_download_that_ends_early_leaves_nothing(served, tmp_path):
    (served / weights.file_name(1.0, 224)).write_bytes(b"weights" * 1000)
    (served / "cut").touch()
    with pytest.raises(UserError, match="cannot be fetched"):
        weights.fetch(1.0, 224, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_without_the_file_there_is_one_sentence(served, tmp_path):
    with pytest.raises(UserError, match="404"):
        weights.fetch(1.0, 224, tmp_path / "cache")


@pytest.mark.parametrize(("size", "published"), [(224, 224), (256, 224), (100, 96), (64, 96), (192, 192)])
def test_the_published_size_that_fits_is_taken(size, published):
    assert f"_1.0_{published}_no_top" in weights.file_name(1.0, size)


def test_a_width_without_weights_is_refused():
    with pytest.raises(UserError, match=r"0\.6"):
        weights.file_name(0.6, 224)


def test_a_choice_is_a_file_or_none(tmp_path):
    assert weights.resolve("none", 1.0, 224) is None
    (tmp_path / "w.h5").write_bytes(weights.HDF5 + b"whatever")
    assert weights.resolve(str(tmp_path / "w.h5"), 1.0, 224) == str(tmp_path / "w.h5")
    with pytest.raises(UserError, match="nowhere"):
        weights.resolve("nowhere", 1.0, 224)
    (tmp_path / "w.h5").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="no HDF5 file"):
        weights.resolve(str(tmp_path / "w.h5"), 1.0, 224)
