"""ImageNet weights: which file, whole or not at all, and one sentence where there is no network."""

import contextlib
import errno
import http.server
import os
import shutil
import socket
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from canopy import cli
from canopy.cli import TryAgainError, UserError
from trainer import weights
from trainer.network import hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The folder in which Keras keeps what it has fetched."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


def test_a_file_that_may_not_be_read_is_one_sentence(locked, cache, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"--weights .*w\.h5 cannot be read \(Permission denied\)"):
        weights.resolve(str(locked / "w.h5"), 1.0, 224)
    cached = hdf5(cache / weights.file_name(1.0, 224))
    monkeypatch.setenv("CANOPY_WEIGHTS", str(locked))
    monkeypatch.setattr(weights, "FOLDER", str(tmp_path / "volume"))
    assert weights.resolve("auto", 1.0, 224) == cached
    monkeypatch.setenv("KERAS_HOME", str(locked))
    with pytest.raises(UserError, match=r"cannot be fetched.*Permission denied"):
        weights.fetch(1.0, 224)
    with pytest.raises(UserError, match=r"--backbone hub:.* cannot be read \(Permission denied\)"):
        hub.check(f"hub:{locked}/model")


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A real HTTP server in the place of Keras' storage."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = folder / self.path.rpartition("/")[2]  # a proxy is asked by the whole address
            if not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            self.send_response(200)
            told = folder / "length"
            self.send_header("Content-Length", told.read_text() if told.exists() else str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if (folder / "cut").exists() else data)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setattr(weights, "BASE_URL", f"http://127.0.0.1:{server.server_port}/")
    yield folder
    server.shutdown()


def test_the_file_is_fetched_once(served, cache, tmp_path):
    name = weights.file_name(1.0, 224)
    (served / name).write_bytes(weights.HDF5)
    path = weights.fetch(1.0, 224)
    assert path.read_bytes() == weights.HDF5
    (tmp_path / "any").touch()
    assert path.stat().st_mode == (tmp_path / "any").stat().st_mode  # others may read it, too
    (served / name).unlink()
    assert weights.fetch(1.0, 224) == path


def test_keras_own_cache_is_in_the_home_folder(served, tmp_path, monkeypatch):
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (served / weights.file_name(1.0, 224)).write_bytes(weights.HDF5)
    assert weights.fetch(1.0, 224) == tmp_path / ".keras" / "models" / weights.file_name(1.0, 224)


def test_processes_that_ask_at_once_do_not_disturb_each_other(served, cache, monkeypatch):
    (served / weights.file_name(1.0, 224)).write_bytes(weights.HDF5)
    copy = shutil.copyfileobj
    others: list[Path] = []

    def copied_while_another_asks(source, target):
        copy(source, target)
        if not others:
            others.append(Path())
            others.append(weights.fetch(1.0, 224))

    monkeypatch.setattr(shutil, "copyfileobj", copied_while_another_asks)
    assert weights.fetch(1.0, 224) == others[1]
    assert list(cache.iterdir()) == [others[1]]


def test_the_command_prints_where_the_file_that_was_asked_for_lies(served, cache, capsys):
    for width, size in ((1.0, 224), (0.5, 96)):
        (served / weights.file_name(width, size)).write_bytes(weights.HDF5)
    assert weights.main([]) == cli.EXIT_OK
    assert weights.main(["--alpha", "0.5", "--image_size", "96"]) == cli.EXIT_OK
    names = [weights.file_name(1.0, 224), weights.file_name(0.5, 96)]
    assert capsys.readouterr().out.splitlines() == [str(cache / name) for name in names]
    assert weights.main(["--alpha", "0.6"]) == cli.EXIT_USER


def test_a_download_that_ends_early_leaves_nothing(served, cache):
    (served / weights.file_name(1.0, 224)).write_bytes(weights.HDF5 * 1000)
    (served / "cut").touch()
    with pytest.raises(UserError, match="cannot be fetched"):
        weights.fetch(1.0, 224)
    assert list(cache.iterdir()) == []


def test_a_page_in_the_place_of_the_weights_is_not_kept(served, cache):
    name = weights.file_name(1.0, 224)
    (served / name).write_text("<html>please log in</html>")
    with pytest.raises(UserError, match=r"cannot be fetched .what came is no HDF5 file"):
        weights.fetch(1.0, 224)
    assert list(cache.iterdir()) == []
    (cache / name).write_text("<html>of an earlier time</html>")
    (served / name).write_bytes(weights.HDF5)
    assert weights.fetch(1.0, 224).read_bytes() == weights.HDF5


def test_a_length_that_is_no_number_is_one_sentence(served, cache):
    (served / weights.file_name(1.0, 224)).write_bytes(weights.HDF5)
    (served / "length").write_text("unknown")
    with pytest.raises(UserError, match=r"cannot be fetched \(8 of unknown bytes came\)"):
        weights.fetch(1.0, 224)
    assert list(cache.iterdir()) == []


def test_without_the_file_there_is_one_sentence(served, cache):
    with pytest.raises(UserError, match="404"):
        weights.fetch(1.0, 224)


def test_who_has_no_home_needs_none(served, cache, monkeypatch):
    def nowhere(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", classmethod(nowhere))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert weights.resolve("auto", 1.0, 224) is None
    with pytest.raises(UserError, match=r"cannot be fetched \(Could not determine home directory"):
        weights.resolve("imagenet", 1.0, 224)
    name = weights.file_name(1.0, 224)
    (served / name).write_bytes(weights.HDF5)
    monkeypatch.setenv("KERAS_HOME", str(cache.parent))
    assert weights.resolve("auto", 1.0, 224) == str(cache / name)


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
    with pytest.raises(UserError, match="--weights nowhere: there is no such file"):
        weights.resolve("nowhere", 1.0, 224)
    (tmp_path / "w.h5").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="no HDF5 file"):
        weights.resolve(str(tmp_path / "w.h5"), 1.0, 224)


@pytest.mark.parametrize(("number", "kind"), [(errno.ESTALE, TryAgainError), (errno.EACCES, UserError)])
def test_a_disk_that_fails_for_a_while_is_worth_another_try(number, kind, tmp_path, monkeypatch):
    def failing(self, *args, **kwargs):
        raise OSError(number, os.strerror(number))

    path = hdf5(tmp_path / "w.h5")
    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(kind, match=rf"--weights .*w\.h5 cannot be read \({os.strerror(number)}\)"):
        weights.resolve(path, 1.0, 224)


@pytest.fixture
def no_network(cache, tmp_path, monkeypatch):
    """A machine that has no weights and cannot fetch any."""
    monkeypatch.setattr(weights, "BASE_URL", "http://127.0.0.1:1/")
    monkeypatch.setattr(weights, "FOLDER", str(tmp_path / "volume"))
    monkeypatch.delenv("CANOPY_WEIGHTS", raising=False)


@pytest.fixture
def black_hole():
    """The port of an address at which packets are lost without a word: its queue of connections is full."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_where_nobody_ever_answers_it_is_known_in_seconds(no_network, black_hole, monkeypatch):
    monkeypatch.setattr(weights, "BASE_URL", f"http://127.0.0.1:{black_hole}/")
    monkeypatch.setattr(weights, "CONNECT_SECONDS", 60.0)
    monkeypatch.setattr(weights, "REACH_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"127\.0\.0\.1 does not answer"):
        weights.resolve("imagenet", 1.0, 224)
    assert time.monotonic() - began < 5


def test_where_there_is_no_way_nobody_tries_another(cache, monkeypatch):
    tried: list[tuple[str, int]] = []

    def refuse(address, *_):
        tried.append(address)
        raise ConnectionRefusedError("no way")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with pytest.raises(UserError, match=r"cannot be fetched \(no way\)"):
        weights.fetch(1.0, 224)
    assert tried == [("storage.googleapis.com", 443)]


@pytest.fixture
def behind_a_proxy(served, monkeypatch):
    """Only the server in the place of Keras' knows the way, as a proxy."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it has read the environment before
    monkeypatch.setenv("http_proxy", weights.BASE_URL)
    monkeypatch.setattr(weights, "BASE_URL", "http://no-such-host.invalid/")


@pytest.fixture
def speaking(no_network, monkeypatch):
    """A server that takes each connection, and answers what it is told to, or nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(weights, "BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}/")

        def say(words):
            for _ in range(2):  # first comes who looks whether there is a way
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(words)

        yield lambda words: threading.Thread(target=say, args=(words,), daemon=True).start()


@pytest.mark.timeout(30)
def test_a_server_that_says_nothing_is_given_up(speaking, monkeypatch):
    monkeypatch.setattr(weights, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"cannot be fetched .*timed out"):
        weights.fetch(1.0, 224)


def test_what_speaks_no_http_is_one_sentence(speaking):
    speaking(b"220 mail.example.com ESMTP\r\n")
    with pytest.raises(UserError, match=r"cannot be fetched \(220 mail"):
        weights.fetch(1.0, 224)


def test_what_a_proxy_can_reach_need_not_be_reachable_from_here(served, cache, behind_a_proxy):
    (served / weights.file_name(1.0, 224)).write_bytes(weights.HDF5)
    assert weights.fetch(1.0, 224).read_bytes() == weights.HDF5


def test_a_proxy_whose_name_no_host_can_have_is_one_sentence(cache, behind_a_proxy, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://a..proxy:3128")
    with pytest.raises(UserError, match=r"cannot be fetched .*label empty"):
        weights.resolve("imagenet", 1.0, 224)


@pytest.mark.parametrize(
    ("starts", "left"),
    [
        ([("auto", 1.0, 224)], "none"),
        ([("auto", 1.0, 224), ("auto", 0.5, 96)], "none"),
        ([("auto", 1.0, 224), ("none", 1.0, 224)], None),
        ([], None),
    ],
)
def test_that_there_are_none_is_found_once_for_all_that_is_started(starts, left, no_network, monkeypatch):
    weights.look_once(starts)
    found = os.environ.get(weights.PLACE)
    monkeypatch.setenv(weights.PLACE, "")  # what this process was told is undone at the end
    assert found == left


@pytest.mark.parametrize("widths", [[1.0], [1.0, 0.5]])
def test_what_is_found_is_found_again_whatever_else_is_not(widths, no_network, tmp_path):
    hdf5(tmp_path / "volume" / weights.file_name(1.0, 224))
    weights.look_once([("auto", width, 224) for width in widths])
    assert weights.PLACE not in os.environ


def test_auto_told_that_there_are_none_does_not_look(no_network, tmp_path, monkeypatch):
    hdf5(tmp_path / "volume" / weights.file_name(1.0, 224))
    monkeypatch.setenv(weights.PLACE, "none")
    assert weights.resolve("auto", 1.0, 224) is None
    named = hdf5(tmp_path / "mine.h5")
    assert weights.resolve(named, 1.0, 224) == named
    with pytest.raises(UserError, match="cannot be fetched"):
        weights.resolve("imagenet", 1.0, 224)


def hdf5(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(weights.HDF5 + b"...")
    return str(path)


def test_auto_starts_at_random_where_there_are_no_weights(no_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hdf5(tmp_path / weights.file_name(1.0, 224))  # nobody has named this folder
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / weights.file_name(1.0, 224)).write_text("<html>please log in</html>")
    assert weights.resolve("auto", 1.0, 224) is None
    assert weights.resolve("auto", 0.6, 224) is None
    with pytest.raises(UserError, match="name a file"):
        weights.resolve("imagenet", 1.0, 224)


@pytest.mark.parametrize("choice", ["auto", "imagenet"])
def test_the_file_that_the_environment_names_is_taken(choice, no_network, tmp_path, monkeypatch):
    path = hdf5(tmp_path / "mine.h5")
    hdf5(tmp_path / "volume" / weights.file_name(1.0, 224))
    monkeypatch.setenv("CANOPY_WEIGHTS", path)
    assert weights.resolve(choice, 1.0, 224) == path
    assert weights.resolve(choice, 0.6, 224) == path  # of a width that was never published


@pytest.mark.parametrize("choice", ["auto", "imagenet"])
@pytest.mark.parametrize("place", ["volume", "named"])
def test_a_folder_is_looked_into_for_this_width_and_the_nearest_size(
    place, choice, no_network, tmp_path, monkeypatch
):
    monkeypatch.setenv("CANOPY_WEIGHTS", str(tmp_path / "named"))
    hdf5(tmp_path / place / weights.file_name(0.5, 96))
    other_size = hdf5(tmp_path / place / weights.file_name(1.0, 224))
    assert weights.resolve(choice, 1.0, 96) == other_size
    right_size = hdf5(tmp_path / place / weights.file_name(1.0, 96))
    assert weights.resolve(choice, 1.0, 96) == right_size


def test_auto_takes_what_keras_has_fetched_before(no_network, cache):
    cached = hdf5(cache / weights.file_name(1.0, 224))
    assert weights.resolve("auto", 1.0, 224) == cached
