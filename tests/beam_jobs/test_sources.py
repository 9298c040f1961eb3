"""Where images are, their names, and reading them; what becomes of those that cannot be read."""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from beam_jobs import sources, storage
from beam_jobs.archives.members import MAX_BYTES
from beam_jobs.archives.methods import BZIP2, DEFLATED, LZMA, ZSTANDARD
from beam_jobs.images import NOT_JPEG, UNREADABLE, RejectedImage
from beam_jobs.listing import list_images
from beam_jobs.sources import Reader, Source, content, name_of, sizes
from beam_jobs.stores import gcs
from beam_jobs.stores.objects import UnavailableError
from canopy.cli import TryAgainError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import pack, zip_of


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/b/train_1.jpg", "train_1"), ("train.v2.JPEG", "train.v2"), ("a\\b.jpg", "b"), ("plain", "plain"),
        ("../up.jpg", "up"), ("x.png", "x.png"), (".jpg", ""), ("a/.jpg/b.jpe", "b"),
        ("c.JFIF", "c"), ("gro\u0308\u00dfe.jpg", "gr\u00f6\u00dfe"), ("n\u0303", "\u00f1"),
    ],
)  # fmt: skip
def test_a_name_is_the_file_name_without_folder_and_ending(path: str, name: str) -> None:
    assert name_of(path) == name


def test_of_an_address_no_slash_is_lost() -> None:
    assert Source("gs://b/in/", "a.jpg").path == "gs://b/in//a.jpg"
    assert Source("gs://b/in", "a.jpg").path == "gs://b/in/a.jpg"
    assert Source("", "a.jpg").path == "a.jpg"


def test_a_listing_is_a_sequence_and_its_images_can_be_sent_to_another_process(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", {f"{i}.jpg": b"x" * i for i in range(3)})
    pack(tmp_path / "b.tar", {f"{i}.jpg": b"y" * i for i in range(3, 5)})
    listing = list_images([str(tmp_path)])
    images = list(listing)
    assert [source.name for source in images] == list("01234")
    assert [listing[i] for i in range(-5, 0)] == images
    assert listing[1::2] == images[1::2]
    with pytest.raises(IndexError):
        listing[5]
    with Reader() as reader:
        sent = pickle.loads(pickle.dumps(images))
        assert [len(reader.read(source)) for source in sent] == [0, 1, 2, 3, 4]


def test_an_image_knows_how_large_its_file_is(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 100)
    zip_of(tmp_path / "b.zip", {"b.jpg": b"y" * 1000})
    found = list(list_images([str(tmp_path)]))
    assert {source.name: source.size for source in found} == {"a": 100, "b": 1000}
    assert Source(str(tmp_path), "gone.jpg").size == 0


def test_a_store_is_asked_how_large_a_few_objects_are_and_the_others_are_taken_for_their_mean(
    server: Faulty, tmp_path: Path
) -> None:
    for i in range(40):
        storage.write_bytes(f"gs://here/in/{i:02}.jpg", b"x" * (100 + 2 * i))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.jpg").write_bytes(b"x" * 7)
    objects = list_images(["gs://here/in"])
    before = server.requests
    assert set(sizes(objects)) == {100 + 39}
    assert 0 < server.requests - before <= 16
    assert list(sizes([Source("gs://here/in", "gone.jpg"), *list_images([str(tmp_path / "mine")])])) == [0, 7]
    mine = Source(str(tmp_path / "mine"), "a.jpg")
    assert list(sizes([mine, objects[0], *[mine] * 40])) == [7, 100, *[7] * 40]
    storage.write_bytes(
        "gs://here/b.zip", zip_of(tmp_path / "b.zip", {"b.jpg": b"yy", "c.jpg": b"y"}).read_bytes()
    )
    members = list_images(["gs://here/b.zip"])
    before = server.requests
    assert list(sizes(members)) == [2, 1]
    assert server.requests == before
    server.denied = "here"
    assert set(sizes(objects)) == {0}


def test_a_store_that_does_not_answer_is_asked_for_sizes_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    def size(path: str) -> int:
        raise UnavailableError(f"Google Cloud Storage fails at {path}")

    monkeypatch.setattr(gcs, "size", size)
    with pytest.raises(TryAgainError, match=r"fails at gs://here/in/a\.jpg"):
        next(sizes([Source("gs://here/in", "a.jpg")]))


def test_no_file_stays_open(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.jpg")
    pack(tmp_path / "b.zip", {"b.jpg": b"y"})
    before = os.listdir("/dev/fd")  # noqa: PTH208
    with Reader() as reader:
        for source in list_images([str(tmp_path)]):
            with contextlib.suppress(RejectedImage):
                reader.read(source)
    assert os.listdir("/dev/fd") == before  # noqa: PTH208


def test_of_images_that_are_read_together_one_that_cannot_be_is_told_in_its_place(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.jpg").write_bytes(name.encode())
    listing = list_images([str(tmp_path)])
    (tmp_path / "b.jpg").unlink()
    with Reader() as reader:
        first, second, third = reader.begin(listing).result()
    assert (content(first), content(third)) == (b"a", b"c")
    with pytest.raises(RejectedImage, match="No such file"):
        content(second)


@pytest.mark.parametrize(("slow_seconds", "most"), [(0.001, 8), (60, 1)], ids=["a network's", "its own"])
def test_files_of_a_slow_disk_are_read_side_by_side(
    slow_seconds: float, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(40):
        (tmp_path / f"{i:02}.jpg").write_bytes(bytes([i]))
    read_at, lock, at_once = storage.read_at, threading.Lock(), [0, 0]

    def slowly(*given: int) -> bytes:
        with lock:
            at_once[0] += 1
            at_once[1] = max(at_once)
        time.sleep(0.02)
        with lock:
            at_once[0] -= 1
        return read_at(*given)

    monkeypatch.setattr(storage, "read_at", slowly)
    monkeypatch.setattr(sources, "SLOW_SECONDS", slow_seconds)
    listing = list_images([str(tmp_path)])
    with Reader() as reader:
        first = reader.begin(listing[:4]).result()
        assert at_once == [0, 1]  # it is not known yet how long they take
        found = first + reader.begin(listing[4:]).result()
    assert found == [bytes([i]) for i in range(40)]
    assert at_once[1] >= most
    assert most > 1 or at_once[1] == 1


@pytest.mark.parametrize("method", [DEFLATED, BZIP2, LZMA, ZSTANDARD])
def test_of_members_read_together_those_beyond_some_megabytes_are_read_in_their_turn(
    tmp_path: Path, method: int
) -> None:
    large = b"\xff\xd8\xff" + bytes(40 << 20)
    members = {"a.jpg": large, "b.jpg": large, "c.jpg": b"c", "d.jpg": bytes(1 << 26)}
    listing = list_images([str(zip_of(tmp_path / "a.zip", members, method))])
    with Reader() as reader:
        tracemalloc.start()
        try:
            first, second, third, bomb = reader.begin(listing).result()
            held = tracemalloc.get_traced_memory()[0]
            assert len(large) < held < len(large) + 1_000_000
            tracemalloc.reset_peak()
            with pytest.raises(RejectedImage, match="it starts with 00 00 00 00") as caught:
                content(bomb)
            assert tracemalloc.get_traced_memory()[1] < held + 5_000_000
        finally:
            tracemalloc.stop()
        assert content(first) == content(second) == large
        assert content(third) == b"c"
    assert caught.value.reason == NOT_JPEG


def test_an_image_that_vanishes_is_rejected_at_once_not_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waits to read it once more"))
    (tmp_path / "a.jpg").write_bytes(b"x")
    source = list_images([str(tmp_path)])[0]
    (tmp_path / "a.jpg").unlink()
    with Reader() as reader, pytest.raises(RejectedImage) as caught:
        reader.read(source)
    assert caught.value.reason == UNREADABLE


def test_what_no_memory_holds_or_may_never_end_is_rejected_unread(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "sparse.jpg").touch()
    os.truncate(tmp_path / "sparse.jpg", MAX_BYTES + 1)
    said = {}
    with Reader() as reader:
        for source in list_images([str(tmp_path)]):
            with pytest.raises(RejectedImage) as caught:
                reader.read(source)
            assert caught.value.reason == UNREADABLE
            said[source.name] = caught.value.detail
    assert said == {
        "pipe": "it is no regular file",
        "sparse": "1,073,741,825 bytes, over the limit of 1,073,741,824",
    }
