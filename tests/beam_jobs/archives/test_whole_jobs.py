"""Whole jobs from archives, with hostile names, and from the real ones."""

from __future__ import annotations

import csv
import io
import os
import re
import resource
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beam_jobs import storage
from beam_jobs.archives.methods import BZIP2, DEFLATED, LZMA, STORED, ZSTANDARD
from beam_jobs.images import to_rgb
from beam_jobs.listing import list_images
from canopy.cli import UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import (
    Archive,
    Run,
    names_of_any_bytes,
    noise,
    planet,
    read_all,
    tar_of,
    truth,
    writes_gnu_tars,
    zip_of,
    zstd,
)

METHODS = {"stored": STORED, "deflate": DEFLATED, "bzip2": BZIP2, "lzma": LZMA, "zstandard": ZSTANDARD}


@pytest.mark.parametrize("kind", [*METHODS, "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
def test_an_archive_gives_the_same_bytes_as_the_folder(
    archive: Archive, run: Run, tmp_path: Path, kind: str
) -> None:
    archive.fill(30)
    wanted = run(archive, output=tmp_path / "folder")
    paths = sorted(archive.folder.iterdir(), reverse=True)
    packed = tmp_path / f"train.{'zip' if kind in METHODS else kind}"
    if kind.startswith("tar"):
        by_tarfile = kind.removesuffix(".zst")
        with tarfile.open(packed, f"w:{by_tarfile[4:]}") as tar:  # type: ignore[call-overload]
            for path in paths:
                tar.add(path, f"train-jpg/{path.name}")
        if by_tarfile != kind:
            packed.write_bytes(zstd(packed.read_bytes()))
    else:
        members = {f"train-jpg/{path.name}": path.read_bytes() for path in paths}
        zip_of(packed, {**members, "tags.csv": archive.labels.read_bytes()}, METHODS[kind])
    labels = packed / "tags.csv" if kind in METHODS else archive.labels
    done = run(None, "--images", str(packed), "--labels", str(labels), output=tmp_path / "packed")
    assert done.code == 0, done.err
    assert done.shards == wanted.shards
    assert done.canopy["fingerprint"] == wanted.canopy["fingerprint"]
    assert not (tmp_path / "packed" / ".canopy-staging").exists()


def test_a_packed_tar_that_the_disk_has_no_room_for_costs_no_earlier_data_set(
    archive: Archive, run: Run, tmp_path: Path
) -> None:
    archive.fill(30)
    with tarfile.open(tmp_path / "train.tar.gz", "w:gz") as tar:
        tar.add(archive.folder, "train-jpg")
    inputs = ("--images", f"{tmp_path}/train.tar.gz", "--labels", str(archive.labels))
    whole = run(None, *inputs).shards
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        done = run(None, *inputs, "--overwrite")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.code == 2
    assert re.fullmatch(r"error: cannot write .*/\.unpacked/0\.tar: File too large\n", done.err)
    assert done.shards == whole
    assert list(done.folder.rglob("*.tar*")) == []
    assert run(None, *inputs, "--overwrite").shards == whole


def test_two_folders_and_a_zip_together_are_one_archive(archive: Archive, run: Run, tmp_path: Path) -> None:
    for i in range(30):
        archive.put(f"chip_{i}", planet(noise(i)), folder=["one", "two", "three"][i % 3])
    with zipfile.ZipFile(tmp_path / "three.zip", "w") as file:
        for path in (archive.root / "three").iterdir():
            file.write(path, path.name)
    roots = [f"{archive.root}/one", f"{archive.root}/two/*.jpg", f"{tmp_path}/three.zip"]
    flags = [part for root in roots for part in ("--images", root)]
    done = run(None, *flags, "--labels", str(archive.labels))
    assert done.code == 0, done.err
    assert sorted(done.names) == sorted(f"chip_{i}" for i in range(30))


def test_hostile_names_write_nothing_outside_and_break_no_file(
    archive: Archive, run: Run, tmp_path: Path
) -> None:
    names = [
        "../../evil",
        "/abs",
        "..",
        "a\nb",
        'q"uote',
        "tab\there",
        "🌳",
        "%s%n",
        "{DATASET}",
        "-rf",
        " space",
    ]
    members = {f"x/{name}.jpg" if name[0] not in "./" else f"{name}.jpg": name for name in names}
    packed = tmp_path / "in" / "hostile.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as file:
        for i, member in enumerate(members):
            file.writestr(member, planet(noise(i)))
    archive.root.mkdir()
    with archive.labels.open("w", newline="", encoding="utf-8") as table:
        rows = csv.writer(table)
        rows.writerow(["image_name", "tags"])
        rows.writerow(["../../evil", "water"])  # a path in the CSV is no image's name
        rows.writerows([name.rpartition("/")[2], "clear water"] for name in names)
    before = sorted(path for path in tmp_path.rglob("*"))
    output = tmp_path / "deep" / "out"
    inputs = ["--images", str(packed), "--labels", str(archive.labels)]
    done = run(None, *inputs, "--max_bad_fraction", "0.5", output=output)
    assert done.code == 0, done.err
    outside = sorted(path for path in tmp_path.rglob("*") if (tmp_path / "deep") not in (path, *path.parents))
    assert outside == before
    written, rejected = set(done.names), {row["name"] for row in done.rejects}
    assert {"evil", "abs", "a\nb", 'q"uote', "tab\there", "🌳", "%s%n", "{DATASET}", "-rf"} <= written
    assert len(written) + len(rejected) == done.canopy["images"]["found"]


@names_of_any_bytes
def test_names_that_are_no_text_are_rejected_and_break_no_file(archive: Archive, run: Run) -> None:
    archive.fill(5)
    raw = os.fsencode(archive.folder) + b"/caf\xe9.jpg"
    with open(raw, "wb") as file:  # noqa: PTH123 - a name that no Path spells
        file.write(planet(noise(1)))
    done = run(archive, "--max_bad_fraction", "0.5")
    assert done.code == 0, done.err
    assert [row["reason"] for row in done.rejects] == ["bad_name"]
    assert "\\udce9" in done.rejects[0]["name"]


def test_the_original_chips_pass(real_data: Path, run: Run, tmp_path: Path) -> None:
    chips = real_data / "planet" / "chips256"
    inputs = ["--images", str(chips / "train-jpg"), "--labels", str(chips / "train_v2.csv")]
    done = run(None, *inputs, "--image_format", "png", output=tmp_path / "png")
    assert done.code == 0, done.err
    assert done.canopy["images"] == {
        "found": 62, "written": 62, "rejected": 0, "suspicious": 0, "suspicious_names": [], "mended": 0,
        "files_ignored": 0,
    }  # fmt: skip
    kept = run(None, *inputs, "--image_format", "keep", output=tmp_path / "keep")
    assert kept.canopy["images"]["mended"] == 62
    for row in kept.examples:
        original = (chips / "train-jpg" / f"{row['image/filename'][0].decode()}.jpg").read_bytes()
        assert np.array_equal(to_rgb(row["image/encoded"][0]), truth(original))


@pytest.mark.slow
def test_the_archive_of_30000_small_chips_passes(real_data: Path, run: Run, tmp_path: Path) -> None:
    packed = real_data / "planet" / "train-jpg-32px.tar.gz"
    with tarfile.open(packed) as tar:
        tar.extractall(tmp_path / "in", filter="data")
    inputs = ["--images", str(packed), "--labels", str(real_data / "planet" / "train_v2.csv")]
    done = run(None, *inputs, "--image_format", "png", output=tmp_path / "one")
    assert done.code == 0, done.err
    told = done.canopy
    assert told["images"]["found"] == told["images"]["written"] == 30_000
    assert told["labels"] == {"rows": 30_000, "without_image": 0}
    assert len(told["vocabulary"]) == 17
    sizes = [shard["records"] for shard in told["splits"]["train"]["shards"]]
    assert max(sizes) - min(sizes) <= 1
    assert abs(told["splits"]["validation"]["records"] - 3000) < 200
    originals = {path.stem: path for path in (tmp_path / "in").rglob("*.jpg")}
    with (real_data / "planet" / "train_v2.csv").open() as file:
        tags = {row["image_name"]: set(row["tags"].split()) for row in csv.DictReader(file)}
    seen = set()
    for row in done.examples:
        name = row["image/filename"][0].decode()
        seen.add(name)
        assert {told["vocabulary"][i] for i in row["image/class/label"]} == tags[name]
        if len(seen) % 10 == 0:
            stored = np.asarray(Image.open(io.BytesIO(row["image/encoded"][0])))
            assert np.array_equal(stored, truth(originals[name].read_bytes()))
    assert seen == set(originals)
    again = run(
        None, *inputs, "--image_format", "png", "--direct_running_mode=multi_processing",
        "--direct_num_workers=2", output=tmp_path / "two",
    )  # fmt: skip
    assert again.shards == done.shards


FOUR = {f"t/{name}.jpg": name.encode() * 700 for name in "abcd"}
FOUND = {name: name.encode() * 700 for name in "abcd"}


def test_tars_one_behind_the_other_are_read_as_one(tmp_path: Path) -> None:
    first, _ = tar_of(tmp_path / "1.tar", {"a.jpg": b"a", "b.jpg": b"b"})
    second, _ = tar_of(tmp_path / "2.tar", {"c.jpg": b"c"}, tarfile.PAX_FORMAT)
    (tmp_path / "both.tar").write_bytes(first.read_bytes() + second.read_bytes())
    assert read_all(tmp_path / "both.tar") == {"a": b"a", "b": b"b", "c": b"c"}


@pytest.mark.parametrize("zeros", [512, 513, 1024, 10_240, 200_000])
def test_a_tars_end_may_be_marked_by_any_number_of_zeros(tmp_path: Path, zeros: int) -> None:
    path, places = tar_of(tmp_path / "a.tar", FOUR)
    path.write_bytes(path.read_bytes()[: places[-1]] + bytes(zeros))
    assert read_all(path) == FOUND


@pytest.mark.skipif(not writes_gnu_tars(), reason="the system's tar is not GNU's")
@pytest.mark.parametrize("how", ["ustar", "gnu", "pax", "posix", "v7", "oldgnu"])
def test_what_tar_itself_writes_is_read(tmp_path: Path, how: str) -> None:
    (tmp_path / "t").mkdir()
    long = "n" * (60 if how in ("v7", "ustar") else 200)
    for name in ("a", "b", long):
        (tmp_path / "t" / f"{name}.jpg").write_bytes(name.encode() * 300)
    label = ["--label=chips"] if how in ("gnu", "oldgnu", "pax", "posix") else []
    flags = ["-cf", "a.tar", f"--format={how}", *label, "t"]
    subprocess.run(["tar", *flags], cwd=tmp_path, check=True)
    assert read_all(tmp_path / "a.tar") == {name: name.encode() * 300 for name in ("a", "b", long)}


def test_a_tar_in_a_store_is_checked_with_no_more_requests(tmp_path: Path, server: Faulty) -> None:
    path, places = tar_of(tmp_path / "a.tar", FOUR)
    storage.write_bytes("gs://here/a.tar", path.read_bytes())
    before = server.requests
    assert len(list_images(["gs://here/a.tar"])) == 4
    assert server.requests - before <= 4  # a listing, the size, the tar, its end
    storage.write_bytes("gs://here/cut.tar", path.read_bytes()[: places[2]])
    with pytest.raises(UserError, match=r"gs://here/cut\.tar is no readable tar archive"):
        list_images(["gs://here/cut.tar"])


def test_a_zips_member_of_no_name_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jpg", b"a")
        archive.writestr("?.jpg", b"b")
    path.write_bytes(path.read_bytes().replace(b"?.jpg", b"\0.jpg"))
    assert read_all(path) == {"a": b"a"}
    assert list_images([str(path)]).ignored == 1


@pytest.mark.parametrize(
    ("written", "meant"), [("größe".encode(), "größe"), ("größe".encode("cp437"), "größe"), (b"a", "a")]
)
def test_a_zips_name_without_a_flag_is_utf_8_wherever_it_can_be(
    tmp_path: Path, written: bytes, meant: str
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{'?' * len(written)}.jpg", b"a")
    path.write_bytes(path.read_bytes().replace(b"?" * len(written), written))
    assert read_all(path) == {meant: b"a"}
