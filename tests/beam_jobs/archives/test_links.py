"""Links and sparse files in archives: the images that they lead to, or rejects."""

from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from beam_jobs.images import RejectedImage
from beam_jobs.listing import list_images
from beam_jobs.sources import Reader
from tests.beam_jobs.making import Run, noise, planet, tar_of, writes_gnu_tars

# What `zip -y` makes: a link's content is its target.
ZIP_WITH_LINKS = """
import pathlib, zipfile
with zipfile.ZipFile("a.zip", "w") as archive:
    for path in sorted(pathlib.Path("t").rglob("*.jpg")):
        info = zipfile.ZipInfo(f"./{path}")
        info.external_attr = path.lstat().st_mode << 16
        archive.writestr(info, str(path.readlink()) if path.is_symlink() else path.read_bytes())
"""


def with_links_and_holes(folder: Path, pack: list[str]) -> Path:
    """A tar, by tar itself, of five chips, hard links to two of them and a sparse file."""
    inside = folder / "t"
    (inside / "more").mkdir(parents=True)
    for i in range(5):
        (inside / f"chip_{i}.jpg").write_bytes(planet(noise(i)))
    os.link(inside / "chip_1.jpg", inside / "linked.jpg")
    os.link(inside / "chip_1.jpg", inside / "more" / "again.jpg")
    os.link(inside / "chip_3.jpg", inside / "more" / "other.jpg")
    with (inside / "sparse.jpg").open("wb") as file:
        file.write(planet(noise(8)))
        file.truncate(4 << 20)
    subprocess.run(["tar", "--sort=name", "-S", *pack, "-cf", "a.tar", "./t"], cwd=folder, check=True)
    return folder / "a.tar"


@pytest.mark.skipif(not writes_gnu_tars(), reason="the system's tar is not GNU's")
@pytest.mark.parametrize("how", ["gnu", "posix", "oldgnu"])
def test_hard_links_are_written_and_sparse_files_rejected(run: Run, tmp_path: Path, how: str) -> None:
    path = with_links_and_holes(tmp_path / "in", [f"--format={how}"])
    names = sorted([*(f"chip_{i}" for i in range(5)), "linked", "again", "other", "sparse"])
    table = tmp_path / "labels.csv"
    table.write_text("image_name,tags\n" + "".join(f"{name},clear\n" for name in names))
    flags = ["--images", str(path), "--labels", str(table), "--image_format", "keep"]
    done = run(None, *flags, "--max_bad_fraction", "0.5")
    assert done.code == 0, done.err
    assert [(row["name"], row["reason"]) for row in done.rejects] == [("sparse", "unreadable")]
    assert sorted(done.names) == [name for name in names if name != "sparse"]
    kept = {row["image/filename"][0].decode(): row["image/encoded"][0] for row in done.examples}
    assert kept["linked"] == kept["again"] == kept["chip_1"] != kept["chip_0"]
    assert kept["other"] == kept["chip_3"]
    told = done.canopy["images"]
    assert (told["found"], told["written"], told["rejected"], told["files_ignored"]) == (9, 8, 1, 0)


@pytest.mark.parametrize("kind", ["tar", "zip", "folder"])
def test_symbolic_links_are_the_images_that_they_lead_to_or_rejects(
    run: Run, tmp_path: Path, kind: str
) -> None:
    inside = tmp_path / "in" / "t"
    (inside / "real").mkdir(parents=True)
    (inside / "view").mkdir()
    (inside / "real" / "a.jpg").write_bytes(planet(noise(1)))
    for name, target in {
        "b": "../real/a.jpg",
        "c": "b.jpg",
        "gone": "nowhere.jpg",
        "loop": "loop.jpg",
    }.items():
        (inside / "view" / f"{name}.jpg").symlink_to(target)
    (inside / "view" / "out.jpg").symlink_to("../../../outside.jpg")
    if kind != "folder":
        (tmp_path / "outside.jpg").write_bytes(planet(noise(2)))
    packed = {"tar": ["tar", "-cf", "a.tar", "./t"], "zip": [sys.executable, "-c", ZIP_WITH_LINKS]}
    if kind in packed:
        subprocess.run(packed[kind], cwd=tmp_path / "in", check=True)
    path = tmp_path / "in" / ("t" if kind == "folder" else f"a.{kind}")
    table = tmp_path / "labels.csv"
    table.write_text(
        "image_name,tags\n" + "".join(f"{name},clear\n" for name in ["a", "b", "c", "gone", "loop", "out"])
    )
    flags = ["--images", str(path), "--labels", str(table), "--max_bad_fraction", "0.5"]
    done = run(None, *flags, "--image_format", "keep")
    assert done.code == 0, done.err
    assert sorted(done.names) == ["a", "b", "c"]
    assert [(row["name"], row["reason"]) for row in done.rejects] == [
        (name, "unreadable") for name in ("gone", "loop", "out")
    ]
    kept = {row["image/encoded"][0] for row in done.examples}
    assert len(kept) == 1


@pytest.mark.parametrize("last", ["link", "file"])
def test_of_a_link_and_a_file_of_one_path_in_a_tar_the_later_one_counts(tmp_path: Path, last: str) -> None:
    link, file = tarfile.TarInfo("a.jpg"), tarfile.TarInfo("a.jpg")
    link.type, link.linkname, file.size = tarfile.SYMTYPE, "b.jpg", 4
    path, _ = tar_of(tmp_path / "a.tar", {"b.jpg": b"b"})
    with tarfile.open(path, "a") as archive:
        for info in (file, link) if last == "link" else (link, file):
            archive.addfile(info, io.BytesIO(b"file"))
    listing = list_images([str(path)])
    with Reader() as reader:
        found = [(source.name, reader.read(source)) for source in listing]
    assert found[0] == ("a", b"b" if last == "link" else b"file")
    assert found[-1] == ("b", b"b")


def test_a_hard_link_is_the_member_that_comes_before_it_or_a_reject(tmp_path: Path) -> None:
    links = {
        "first.jpg": "blob",
        "chain.jpg": "first.jpg",
        "early.jpg": "late.jpg",
        "gone.jpg": "/etc/passwd",
    }
    path, _ = tar_of(tmp_path / "a.tar", {"a.jpg": b"a", "blob": b"blob"}, links=links)
    with tarfile.open(path, "a") as archive:
        for name in ("blob", "late.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"later"))
    found, rejected = {}, {}
    listing = list_images([str(path)])
    with Reader() as reader:
        for source in listing:
            try:
                found[source.name] = reader.read(source)
            except RejectedImage as reject:
                rejected[source.name] = reject.reason
    assert found == {"a": b"a", "first": b"blob", "chain": b"blob", "late": b"later"}
    assert rejected == {"early": "unreadable", "gone": "unreadable"}
    assert listing.ignored == 2


def zip_with_link(path: Path, target: bytes, method: int, **index: int) -> Path:
    """A zip of a chip and a symbolic link, of which the index says something that is not so."""
    places = {"stored": 20, "size": 24}  # in the index, from the member's signature on
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"chip")
        link = zipfile.ZipInfo("link.jpg")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, target, method)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    for field, value in index.items():
        data[at + places[field] : at + places[field] + 4] = value.to_bytes(4, "little")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("method", "damage"),
    [
        (zipfile.ZIP_STORED, "another byte"), (zipfile.ZIP_DEFLATED, "another byte"),
        (zipfile.ZIP_BZIP2, "another byte"), (zipfile.ZIP_LZMA, "another byte"),
        (zipfile.ZIP_STORED, "beyond the end"), (zipfile.ZIP_STORED, "no text"),
        (zipfile.ZIP_STORED, "a patch"),
    ],
)  # fmt: skip
def test_a_damaged_link_is_a_reject_and_the_rest_of_its_zip_is_read(
    tmp_path: Path, method: int, damage: str
) -> None:
    target = b"\xff.jpg" if damage == "no text" else b"a.jpg"
    path = zip_with_link(tmp_path / "a.zip", target, method)
    if damage == "another byte":
        data = bytearray(path.read_bytes())
        data[data.index(b"link.jpg") + 8 + 4] ^= 0x5A
        path.write_bytes(data)
    elif damage == "beyond the end":
        zip_with_link(path, target, method, stored=4_000, size=4_000)
    elif damage == "a patch":  # says a flag, and zipfile knows none
        data = bytearray(path.read_bytes())
        data[data.rindex(b"PK\x01\x02") + 8] |= 0x20
        path.write_bytes(data)
    with Reader() as reader:
        chip, link = list_images([str(path)])
        assert reader.read(chip) == b"chip"
        with pytest.raises(RejectedImage, match="as a link to what is not there"):
            reader.read(link)


def test_what_wants_a_password_is_a_reject_be_it_an_image_or_a_link(tmp_path: Path) -> None:
    path = zip_with_link(tmp_path / "a.zip", b"a.jpg", zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for found in re.finditer(signature, data):
            data[found.start() + flags] |= 1
    path.write_bytes(data)
    with zipfile.ZipFile(path, "a") as archive:
        for name in "cd":
            archive.writestr(f"z/{name}.jpg", b"chip")
    with Reader() as reader:
        for source in list_images([str(path)])[:2]:
            with pytest.raises(RejectedImage, match="the archive holds it encrypted"):
                reader.read(source)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_link_is_read_however_it_is_packed(tmp_path: Path, method: int) -> None:
    with Reader() as reader:
        found = list_images([str(zip_with_link(tmp_path / "a.zip", b"a.jpg", method))])
        assert [reader.read(source) for source in found] == [b"chip", b"chip"]


@pytest.mark.parametrize(
    ("method", "size"),
    [
        (zipfile.ZIP_STORED, 5), (zipfile.ZIP_DEFLATED, 5), (zipfile.ZIP_BZIP2, 5), (zipfile.ZIP_LZMA, 5),
        (zipfile.ZIP_BZIP2, 20_000_000),
    ],
)  # fmt: skip
def test_of_a_link_no_more_is_held_than_its_zips_index_says_or_a_path_takes(
    tmp_path: Path, method: int, size: int
) -> None:
    path = zip_with_link(tmp_path / "a.zip", bytes(20_000_000), method, size=size)
    tracemalloc.start()
    try:
        assert len(list_images([str(path)])) == 2
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_of_a_zip_without_a_link_no_table_of_paths_is_made(tmp_path: Path) -> None:
    members, peaks = 5_000, []
    paths = tmp_path / "plain.zip", zip_with_link(tmp_path / "linked.zip", b"a.jpg", zipfile.ZIP_STORED)
    for path in paths:
        with zipfile.ZipFile(path, "a") as archive:
            for number in range(members):
                archive.writestr(f"{'chips' * 40}/{number}.jpg", b"chip")
        tracemalloc.start()
        try:
            assert len(list_images([str(path)])) >= members
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] > 200 * members  # bytes
