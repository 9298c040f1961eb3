"""Packed tars are read as plain ones are; what is damaged is told, never passed over."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_jobs import sources, storage
from beam_jobs.images import Encoding
from beam_jobs.listing import list_images
from beam_jobs.sources import Listing, Reader
from beam_jobs.work import Item, Work
from canopy import progress
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import tar_of, zstd

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tbz2": bz2.compress,
    ".tbz": bz2.compress,
    ".tar.xz": lzma.compress,
    ".txz": lzma.compress,
    ".tar.zst": zstd,
    ".tzst": zstd,
}
THREE = {"t/c.jpg": b"3" * 1500, "t/a.jpg": b"1" * 700, "notes.txt": b"no image", "t/b/b.JPG": b""}


def plain(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def held(listing: Listing) -> dict[str, bytes]:
    """What is read of each image, once packed tars are unpacked."""
    sources.unpack(listing)
    with Reader() as reader:
        return {source.path: reader.read(source) for source in listing}


@pytest.mark.parametrize("ending", PACKERS)
def test_a_packed_tar_is_read_as_the_plain_one_is(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"In{ending.upper()}"
    path.write_bytes(PACKERS[ending](plain(THREE)))
    listing = list_images([str(path)], own=str(tmp_path / "own"))
    images = {f"{path}/{name}": data for name, data in THREE.items() if name != "notes.txt"}
    assert [source.path for source in listing] == sorted(images)
    assert listing.ignored == 1
    assert not (tmp_path / "own").exists()  # listing writes nothing
    assert held(listing) == images


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_the_first_bytes_tell_how_a_tar_is_packed_whatever_its_name(
    tmp_path: Path, packer: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "a.tar").write_bytes(packer(plain(THREE)))
    (tmp_path / "b.tar.gz").write_bytes(plain({"b.jpg": b"2"}))  # as some browsers leave it
    listing = list_images([str(tmp_path)], own=str(tmp_path / "own"))
    assert list(listing.copies) == [f"{tmp_path}/a.tar"]
    assert len(held(listing)) == 4
    assert listing[3].place == f"{tmp_path}/b.tar.gz"  # read in place


def test_several_packed_tars_have_a_copy_each(tmp_path: Path) -> None:
    for name in ("b.tgz", "a.tar.xz", "c.tar.bz2"):
        ending = name[1:]
        (tmp_path / name).write_bytes(PACKERS[ending](plain({f"{name[0]}.jpg": name.encode()})))
    listing = list_images([str(tmp_path)], own=str(tmp_path / "own"))
    assert held(listing) == {
        f"{tmp_path}/{name}/{name[0]}.jpg": name.encode() for name in ("b.tgz", "a.tar.xz", "c.tar.bz2")
    }
    assert len({source.place for source in listing}) == 3


def test_unpacking_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "ab":
        (tmp_path / f"{name}.tgz").write_bytes(gzip.compress(plain({f"{name}.jpg": bytes(1_500_000)})))
    listing = list_images([str(tmp_path)], own=str(tmp_path / "own"))
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    sources.unpack(listing)
    shown = [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == [f"unpacking: {number} MB" for number in (1, 1, 2, 3)]


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_streams_one_behind_the_other_are_one_tar(tmp_path: Path, packer: Callable[[bytes], bytes]) -> None:
    """As pigz and pbzip2 write them, and as `cat` joins two archives."""
    whole = plain(THREE)
    path = tmp_path / "a.tgz"
    path.write_bytes(packer(whole[:1000]) + packer(whole[1000:]) + packer(plain({"d.jpg": b"4"})))
    assert len(held(list_images([str(path)], own=str(tmp_path / "own")))) == 4


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress, lzma.compress, zstd])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_told_wherever_it_is_or_changes_nothing(
    tmp_path: Path, packer: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    packed = bytearray(packer(plain(THREE)))
    at = data.draw(st.integers(0, len(packed) - 1), label="place")
    if data.draw(st.booleans(), label="cut off there"):
        del packed[at:]
    else:
        packed[at] ^= data.draw(st.integers(1, 255), label="bits")
    path = tmp_path / "a.tgz"
    path.write_bytes(packed)
    found, told = {}, ""
    try:
        found = held(list_images([str(path)], own=str(tmp_path / "own")))
    except UserError as error:
        told = str(error)
    whole = {f"{path}/{name}": each for name, each in THREE.items() if name != "notes.txt"}
    assert found == ({} if told else whole)
    assert not told or (str(path) in told and "\n" not in told)


def test_a_tar_that_is_damaged_after_it_was_listed_leaves_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(plain(THREE)))
    listing = list_images([str(path)], own=str(tmp_path / "own"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"a\.tgz is no readable tar archive: .*ended before"):
        sources.unpack(listing)
    assert list((tmp_path / "own" / ".unpacked").iterdir()) == []


def test_a_work_list_and_what_beam_sends_keep_where_the_copy_is(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(gzip.compress(plain(THREE)))
    tar_of(tmp_path / "b.tar", {"d.jpg": b"4"})
    (tmp_path / "e.jpg").write_bytes(b"5")
    listing = list_images([str(tmp_path)], own=str(tmp_path / "own"))
    items = [Item(source, (1,), statistics=False) for source in listing]
    work = Work("train", 0, "s", "p", "r", "n", 2, Encoding(), items)
    work.save(str(tmp_path / "work.json"))
    assert Work.load(str(tmp_path / "work.json")).items == items


def test_a_packed_tar_in_a_store_is_unpacked_there(server: Faulty) -> None:
    storage.write_bytes("gs://here/a.tar.gz", gzip.compress(plain(THREE)))
    listing = list_images(["gs://here/a.tar.gz"], own="gs://here/out/own")
    assert sorted(held(listing).values()) == [b"", b"1" * 700, b"3" * 1500]
    assert storage.match("gs://here/out/**") == ["gs://here/out/own/.unpacked/0.tar"]


@pytest.mark.parametrize("pattern", ["in", "in/*"])
def test_a_copy_that_a_killed_job_left_among_its_images_is_none_of_the_next_jobs(
    tmp_path: Path, server: Faulty, pattern: str
) -> None:
    for place in (str(tmp_path), "gs://here"):
        storage.make_folder(f"{place}/in")
        storage.write_bytes(f"{place}/in/a.tar.gz", gzip.compress(plain(THREE)))
        names = []
        for job in range(2):
            listing = list_images([f"{place}/{pattern}"], own=f"{place}/in/submission.csv.partial/job-{job}")
            sources.unpack(listing)
            names.append([source.path for source in listing])
        assert names[0] == names[1]
        assert len(names[0]) == 3
