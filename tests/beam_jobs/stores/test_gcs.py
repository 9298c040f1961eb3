"""Objects in Google Cloud Storage, with a server that misbehaves."""

from __future__ import annotations

import io
import json
import os
import zipfile
from functools import partialmethod
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any
from unittest.mock import MagicMock
from urllib.parse import parse_qs, urlsplit

import google.cloud.storage
import pytest
from google.api_core import exceptions
from google.auth import compute_engine
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption

from beam_jobs import storage
from beam_jobs.listing import list_images
from beam_jobs.runners import choosing
from beam_jobs.stores import gcs
from beam_jobs.stores.objects import UnavailableError
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty, Proxy
from tests.beam_jobs.making import Archive, Done, Run, noise, planet
from tests.beam_jobs.stores import each_store


def test_objects_are_written_whole_and_read_in_parts(server: Faulty) -> None:
    server.share = 0.2
    each_store.writes_whole_and_reads_in_parts("gs://here")
    assert sum(server.faults.values()) > 0


def test_a_failed_writer_leaves_no_object(server: Faulty) -> None:
    each_store.leaves_no_object_of_a_failed_writer("gs://here")


def test_patterns_match_as_they_do_in_folders(server: Faulty) -> None:
    for name in ("t/a.jpg", "t/b.jpg", "t/s/c.jpg", "t/[x].jpg", "t/a.jpg.old"):
        storage.write_bytes(f"gs://here/{name}", b"x")
    assert storage.match("gs://here/t/*.jpg") == [f"gs://here/t/{x}.jpg" for x in ("[x]", "a", "b")]
    assert storage.match("gs://here/t/?.jpg") == ["gs://here/t/a.jpg", "gs://here/t/b.jpg"]
    assert storage.match("gs://here/t/[!a].jpg") == ["gs://here/t/b.jpg"]
    assert len(storage.match("gs://here/**")) == 5
    assert storage.list_files("gs://here/t") == ["[x].jpg", "a.jpg", "a.jpg.old", "b.jpg"]
    assert [source.name for source in list_images(["gs://here/t"])] == ["[x]", "a", "b", "c"]
    assert len(list_images(["gs://here"])) == 4


def test_what_is_missing_or_denied_is_one_clear_sentence(server: Faulty) -> None:
    storage.write_bytes("gs://here/t/a.jpg", b"x")
    for doing in (
        lambda: storage.read_bytes("gs://here/gone.csv"),
        lambda: storage.read_bytes("gs://gone"),
        lambda: list_images(["gs://gone/t"]),
        lambda: list_images(["gs://here/gone"]),
        lambda: storage.write_bytes("gs://gone/a", b"x"),
        lambda: storage.list_files("gs://gone/a"),
    ):
        with pytest.raises(UserError, match=r"gone.*does not exist") as caught:
            doing()
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        gcs.find_bucket("gs://gone/a")
    server.denied = "here"
    with pytest.raises(PermissionError):
        gcs.find_bucket("gs://here/a")
    for doing in (
        lambda: storage.read_bytes("gs://here/t/a.jpg"),
        lambda: list_images(["gs://here/t"]),
        lambda: storage.write_bytes("gs://here/a", b"x"),
    ):
        with pytest.raises(UserError, match=r"here.*access is denied"):
            doing()


def test_a_listing_goes_on_behind_its_first_page(server: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("in/a", "in/b", "in/c", "other/d", "other/e"):
        storage.write_bytes(f"gs://here/{name}.jpg", b"x")
    in_pages = partialmethod(google.cloud.storage.Client.list_blobs, page_size=2)
    monkeypatch.setattr(google.cloud.storage.Client, "list_blobs", in_pages)
    answer = Proxy._answer

    def with_what_was_asked_for(
        proxy: Proxy, status: int, headers: Any, data: bytes, cut: bool = False
    ) -> None:
        fields = parse_qs(urlsplit(proxy.path).query).get("fields", [""])[0]
        if "nextPageToken" not in fields and data.startswith(b"{"):
            data = json.dumps({**json.loads(data), "nextPageToken": ""}).encode()
        answer(proxy, status, headers, data, cut)

    monkeypatch.setattr(Proxy, "_answer", with_what_was_asked_for)
    before = server.requests
    assert storage.match("gs://here/in/*") == [f"gs://here/in/{name}.jpg" for name in "abc"]
    assert server.requests == before + 2  # and none for what lies elsewhere


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (exceptions.NotFound(""), FileNotFoundError), (exceptions.Forbidden(""), PermissionError),
        (exceptions.Unauthorized(""), PermissionError), (auth.RefreshError(), PermissionError),
        (auth.RefreshError("busy", retryable=True), UnavailableError),
        (exceptions.ServiceUnavailable(""), UnavailableError), (auth.TransportError(), UnavailableError),
        (exceptions.RetryError("", None), UnavailableError), (ConnectionResetError(), UnavailableError),
        (FileNotFoundError("gs://here/a"), FileNotFoundError), (exceptions.BadRequest("no name"), UserError),
    ],
)  # fmt: skip
def test_what_the_store_refuses_is_what_a_disk_would_raise(raised: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="gs://here/a"), gcs._errors("gs://here/a"):
        raise raised


@pytest.mark.parametrize(("status", "kind"), [(503, UnavailableError), (404, PermissionError)])
def test_a_server_of_credentials_that_is_busy_refuses_nobody(
    monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception]
) -> None:
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    answer = SimpleNamespace(status=status, data=b"", headers={})
    with pytest.raises(kind, match="gs://here/a"), gcs._errors("gs://here/a"):
        compute_engine.Credentials().refresh(lambda **_: answer)


def test_a_server_of_credentials_out_of_reach_refuses_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("google.auth._exponential_backoff.time.sleep", lambda _: None)
    no_route = MagicMock(side_effect=auth.TransportError("no route to host"))
    with pytest.raises(UnavailableError, match="no credentials for gs://here/a for now"):  # noqa: SIM117
        with gcs._errors("gs://here/a"):
            compute_engine.Credentials().refresh(no_route)


def next_goes_wrong(server: Faulty, kind: str) -> None:
    """The next request goes wrong, and none after it."""
    rolls = iter([0.0])
    server.random = SimpleNamespace(random=lambda: next(rolls, 1.0), choice=lambda _: kind)  # type: ignore[assignment]
    server.share = 0.5


def test_whatever_is_asked_of_a_busy_store_is_asked_again(server: Faulty) -> None:
    storage.write_bytes("gs://here/a.jpg", b"x")
    for doing in (
        lambda: storage.read_bytes("gs://here/a.jpg"),
        lambda: storage.open_read("gs://here/a.jpg"),
        lambda: storage.exists("gs://here/a.jpg"),
        lambda: storage.match("gs://here/*"),
        lambda: gcs.find_bucket("gs://here/a"),
        lambda: storage.write_bytes("gs://here/b.jpg", b"x"),
        lambda: storage.delete(["gs://here/b.jpg"]),
    ):
        next_goes_wrong(server, "503")
        before = server.requests
        doing()
        assert server.requests > before + 1


def test_an_object_that_is_damaged_on_its_way_is_fetched_again(server: Faulty) -> None:
    storage.write_bytes("gs://here/a.jpg", b"chip")
    next_goes_wrong(server, "damaged")
    assert storage.read_bytes("gs://here/a.jpg") == b"chip"
    assert server.faults["damaged"] == 1


def test_an_upload_that_is_damaged_on_its_way_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []

    def upload(file: IO[bytes], checksum: str, **_: Any) -> None:
        assert checksum == "crc32c"
        sent.append(file.read())
        if len(sent) < 3:
            raise DataCorruption(None, "another checksum")

    monkeypatch.setattr(gcs, "_blob", lambda _: SimpleNamespace(upload_from_file=upload))
    storage.write_bytes("gs://here/a", b"whole")
    assert sent == [b"whole"] * 3


def test_each_process_has_a_client_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def client(process: int) -> Any:
        asked.append(process)
        return MagicMock()

    monkeypatch.setattr(gcs, "_client", client)
    gcs.delete("gs://here/a")
    gcs.find_bucket("gs://here")
    assert list(gcs.match("gs://here/*")) == []
    assert asked == [os.getpid()] * 3


def test_a_store_that_never_answers_fails_the_job_and_rejects_no_image(
    server: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes("gs://here/a.jpg", b"x")
    source = list_images(["gs://here"])[0]
    server.share = 1.0
    monkeypatch.setattr(gcs, "TRY_SECONDS", 1.0)
    gcs._retry.cache_clear()
    try:
        from beam_jobs.sources import Reader

        with Reader() as reader, pytest.raises(UnavailableError, match="gs://here/a"):
            reader.read(source)
    finally:
        gcs._retry.cache_clear()


def whole(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tfrecord-*")}


@pytest.mark.parametrize("packed", ["folder", "zip"])
def test_a_job_from_and_to_a_store_that_misbehaves_gives_the_same_bytes(
    archive: Archive,
    run: Run,
    tmp_path: Path,
    server: Faulty,
    packed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive.fill(40)
    for i in range(4):
        archive.put(f"cut_{i}", planet(noise(i))[:400])
    flags = ["--num_shards", "3", "--max_bad_fraction", "0.5"]
    local = run(archive, *flags, output=tmp_path / "local")
    store = tmp_path / "store" / "here"
    if packed == "folder":
        images = "gs://here/in/train-jpg"
        for path in archive.folder.iterdir():
            storage.write_bytes(f"{images}/{path.name}", path.read_bytes())
    else:
        images = "gs://here/in/train.zip"
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as file:
            for path in archive.folder.iterdir():
                file.write(path, f"train-jpg/{path.name}")
        storage.write_bytes(images, content.getvalue())
    storage.write_bytes("gs://here/in/labels.csv", archive.labels.read_bytes())
    storage.write_bytes("gs://here/out/stranger.txt", b"not ours")

    def go(*more: str) -> Done:
        output = ["--images", images, "--labels", "gs://here/in/labels.csv", "--output", "gs://here/out"]
        return run(None, *output, *flags, *more)

    server.share = 0.1
    done = go()
    assert done.code == 0, done.err
    assert sum(server.faults.values()) > 5
    assert whole(store / "out") == local.shards
    assert (store / "out" / "rejects.jsonl").read_bytes() == (local.folder / "rejects.jsonl").read_bytes()
    assert storage.match("gs://here/out/.canopy-staging/**") == []
    again = go()
    assert again.code == 2
    assert "--overwrite" in again.err
    monkeypatch.setattr(choosing, "MANY_IMAGES", 1)
    files = ("--images", archive.folder, "--labels", archive.labels, "--output", "gs://here/apart")
    apart = run(None, *map(str, files), *flags, "--direct_num_workers=2")
    assert apart.code == 0, apart.err
    assert json.loads((store / "apart" / "canopy.json").read_text())["run"]["processes"] == 2
    assert whole(store / "apart") == local.shards
    (store / "out" / "dataset_info.json").unlink()  # as if the job had died before the marker
    strange = go()
    assert strange.code == 2
    assert "no whole or begun job" in strange.err
    storage.write_bytes("gs://here/out/dataset_info.json", b"{}")
    replaced = go("--overwrite")
    assert replaced.code == 0
    assert whole(store / "out") == local.shards
    assert (store / "out" / "stranger.txt").read_bytes() == b"not ours"


@pytest.mark.parametrize(("in_pod", "tries"), [(True, 3), (False, 1)])
def test_a_new_pod_waits_for_its_credentials_and_another_machine_does_not(
    monkeypatch: pytest.MonkeyPatch, in_pod: bool, tries: int
) -> None:
    asked: list[int] = []

    def client() -> object:
        asked.append(1)
        if len(asked) < 3:
            raise auth.DefaultCredentialsError("the server does not know this pod yet")
        return SimpleNamespace(_http=SimpleNamespace(mount=lambda *_: None))

    monkeypatch.setattr("google.cloud.storage.Client", client)
    monkeypatch.setattr(gcs, "NEW_POD_PAUSE_SECONDS", 0.0)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    if in_pod:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        gcs._client.__wrapped__(0)
    else:
        with pytest.raises(UserError, match="needs credentials"):
            gcs._client.__wrapped__(0)
    assert len(asked) == tries


def test_credentials_that_cannot_be_read_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("google.cloud.storage.Client", MagicMock(side_effect=PermissionError("key.json")))
    with pytest.raises(UserError, match="needs credentials: run"):
        gcs._client.__wrapped__(0)
