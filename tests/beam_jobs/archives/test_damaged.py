"""Archives that are damaged, cut short or not to be read: one sentence that names them."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import IO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_jobs import predict, preprocess, storage
from beam_jobs.images import NOT_JPEG, UNREADABLE, RejectedImage
from beam_jobs.listing import list_images
from beam_jobs.sources import Reader
from canopy.cli import TryAgainError, UserError
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import Archive, pack, read_all, tar_of, within, zip_of

FOUR = {f"t/{name}.jpg": name.encode() * 700 for name in "abcd"}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    "damage",
    ["header byte", "zeroed header", "cut at a header", "cut within a header", "cut within the data"],
)
def test_a_damaged_or_cut_tar_is_refused_by_name(tmp_path: Path, format: int, damage: str) -> None:
    path, (_, second, third, last, _) = tar_of(tmp_path / "train.tar", FOUR, format)
    data = bytearray(path.read_bytes())
    if damage == "header byte":
        data[second + 100] ^= 1
    elif damage == "zeroed header":
        data[second : second + 512] = bytes(512)
    else:
        ends = {"cut at a header": third, "cut within a header": third + 100}
        del data[ends.get(damage, last + 512 + 300) :]
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train\.tar is no readable tar archive: .*(damaged|unexpected end)"):
        list_images([str(path)])


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_SPARSE], ids=["plain", "sparse"])
@pytest.mark.parametrize("size", [-1, -512, -1024, -(2**62), 2**63, 2**80])
@pytest.mark.parametrize("member", [0, 2])
def test_a_tar_whose_sizes_lead_back_or_out_of_it_is_refused(
    tmp_path: Path, size: int, member: int, kind: bytes
) -> None:
    path, places = tar_of(tmp_path / "a.tar", FOUR)
    data = bytearray(path.read_bytes())
    at = places[member]
    data[at + 124 : at + 136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    data[at + 156 : at + 157] = kind
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(data)
    with within(20), pytest.raises(UserError, match=r"a\.tar is no readable tar archive: ") as refused:
        list_images([str(path)])
    if size < 0:
        # A sparse file's own size is told elsewhere, and what comes next is no header.
        place = at + 512 if size == -1 and kind == tarfile.GNUTYPE_SPARSE else at
        said = str(refused.value)
        # Of the first member's, newer releases of Python have a word of their own.
        assert re.search(rf"it is damaged.* at byte {place:,}$", said) or (
            at == 0 and "invalid offset" in said
        )


def test_a_tar_with_a_name_of_a_terabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**40
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    words = r"a\.tar is no readable tar archive: over 16,777,216 bytes of headers at byte 0$"
    with within(20), pytest.raises(UserError, match=words):
        list_images([str(path)])


@pytest.mark.parametrize("field", ["size", "place"])
def test_a_zip_whose_numbers_no_file_can_have_is_refused(tmp_path: Path, field: str) -> None:
    path = tmp_path / "a.zip"
    extra = zipfile.ZipInfo("a.jpg")
    extra.extra = b"\x01\0\x08\0" + (2**63).to_bytes(8, "little")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(extra, b"a")
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + {"size": 24, "place": 42}[field]
    data[at : at + 4] = b"\xff" * 4
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.zip is no readable zip archive: .* 2\*\*63 or more$"):
        list_images([str(path)])


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (OSError(errno.EIO, "Input/output error"), TryAgainError, "^cannot read {}: Input/output error$"),
        (MemoryError(), MemoryError, "^$"),
    ],
    ids=["a bad block", "a lack of memory"],
)
def test_what_keeps_a_sound_archive_from_being_read_through_is_told_and_not_taken_for_damage(
    error: Exception,
    raised: type[Exception],
    said: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Failing(io.BytesIO):
        def read(self, *_: object) -> bytes:
            raise error

    def opened(_: str) -> IO[bytes]:
        return Failing(bytes(1024))

    path = tmp_path / f"a.{kind}"
    path.touch()
    monkeypatch.setattr(storage, "open_read", opened)
    with pytest.raises(raised, match=said.format(path)):
        list_images([str(path)])


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_a_store_lists_and_does_not_give_is_told_so(server: Faulty, kind: str) -> None:
    address = f"gs://here/a.{kind}"
    storage.write_bytes(address, bytes(1024))
    server.denied = "alt=media"
    with pytest.raises(UserError, match=rf"^cannot read {address}: access is denied$"):
        list_images([address])


def test_what_is_cut_to_no_zip_is_still_no_zip(tmp_path: Path) -> None:
    whole = tmp_path / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("a.jpg", b"a")
    end = whole.read_bytes()[-22:]
    for data in (b"", b"PK", end[:-1], b"PK\x06\x07" + bytes(12) + b"\1\0\0\0" + end):
        (tmp_path / "a.zip").write_bytes(data)
        with pytest.raises(UserError, match=r"a\.zip is no readable zip archive: (File is not|Corrupt)"):
            list_images([str(tmp_path / "a.zip")])


@pytest.mark.skipif(not shutil.which("zip"), reason="no zip")
def test_the_last_part_of_a_split_zip_is_refused_with_the_command_that_joins_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(4):
        (tmp_path / "in" / f"{i}.jpg").write_bytes(random.Random(i).randbytes(50_000))
    subprocess.run(["zip", "-q", "-r", "-s", "64k", "../split.zip", "."], cwd=tmp_path / "in", check=True)
    with pytest.raises(
        UserError, match=r"split\.zip is no readable zip archive: it is the last of"
    ) as refused:
        list_images([str(tmp_path / "split.zip")])
    _, command, _ = str(refused.value).split("`")
    subprocess.run(
        command.replace("NAME", "split.zip").split(), cwd=tmp_path, check=True, stdout=subprocess.DEVNULL
    )
    assert [source.name for source in list_images([str(tmp_path / "whole.zip")])] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("part", [0, 1, 0xFFFF])
def test_a_zip_says_of_a_member_that_it_is_in_another_part_or_that_zip64_knows(
    tmp_path: Path, part: int
) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.jpg": b"a"})
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 34
    data[at : at + 2] = part.to_bytes(2, "little")
    path.write_bytes(data)
    if part == 1:
        with pytest.raises(UserError, match="it is the last of several parts"):
            list_images([str(path)])
    else:
        assert read_all(path) == {"a": b"a"}


def test_a_header_wiped_out_is_none_of_the_zeros_between_two_tars(tmp_path: Path) -> None:
    path, (_, second, *_) = tar_of(tmp_path / "a.tar", {"a.jpg": b"a", "b.jpg": b"", "c.jpg": b"c"})
    data = bytearray(path.read_bytes())
    data[second : second + 512] = bytes(512)
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"it is damaged at byte {second:,}$"):
        list_images([str(path)])


@pytest.mark.parametrize("zeros", [0, 1536, 1 << 20])
def test_of_tars_put_one_behind_the_other_all_are_read_however_they_are_filled_up(
    tmp_path: Path, zeros: int
) -> None:
    first, second = (tar_of(tmp_path / f"{name}.tar", {f"{name}.jpg": name.encode()})[0] for name in "ab")
    second.write_bytes(first.read_bytes() + bytes(zeros) + second.read_bytes())
    assert read_all(second) == {"a": b"a", "b": b"b"}


def test_a_hole_of_zeros_in_a_tar_is_refused(tmp_path: Path) -> None:
    members = {f"{name}.jpg": name.encode() * 200_000 for name in "abc"}
    path, (_, second, third, _) = tar_of(tmp_path / "a.tar", members)
    data = bytearray(path.read_bytes())
    data[second - 3_000 : third - 20_000] = bytes(third - 20_000 - (second - 3_000))
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tar is no readable tar archive"):
        list_images([str(path)])


@pytest.mark.parametrize("command", ["preprocess", "predict"])
def test_a_command_ends_with_a_cut_tar_in_one_sentence(
    archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    archive.fill(4)
    files = {path.name: path.read_bytes() for path in sorted(archive.folder.iterdir())}
    path, places = tar_of(tmp_path / "train.tar", files)
    path.write_bytes(path.read_bytes()[: places[2]])
    output = tmp_path / "out"
    if command == "preprocess":
        main, flags = preprocess.main, ["--labels", archive.labels, "--output", output]
    else:
        model = {"format_version": 1, "classes": ["clear"], "thresholds": [0.5], "image_size": 16}
        model["metrics"] = {"constant_tags": ["clear"]}
        (tmp_path / "model.json").write_text(json.dumps(model))
        main, flags = predict.main, ["--model", tmp_path, "--output", output / "submission.csv"]
    assert main(["--images", str(path), *map(str, flags)]) == 2
    said = capsys.readouterr()
    assert said.err == (
        f"error: --images: {path} is no readable tar archive: "
        f"it is damaged or cut short at byte {places[2]:,}\n"
    )
    assert not output.exists()


@pytest.mark.parametrize("name", ["pipe.zip", "pipe.tar"])
def test_a_pipe_in_an_archives_place_is_refused_unread(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} is no regular file"):
        list_images([str(tmp_path / name)])


@pytest.mark.parametrize("name", ["link.zip", "link.tar"])
def test_a_link_to_no_archive_is_told_so(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(UserError, match=f"cannot read {tmp_path}/{name}: it does not exist"):
        list_images([str(tmp_path)])


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
@pytest.mark.parametrize("content", [b"", b"not an archive at all", b"PK\x03\x04 cut"])
def test_what_is_no_archive_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        list_images([str(tmp_path / name)])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_archive_is_refused_or_its_members_are_right_or_rejected(
    tmp_path: Path, data: st.DataObject
) -> None:
    members = {f"t/{i}.jpg": bytes([i]) * (40 + i) for i in range(4)}
    kind = data.draw(st.sampled_from(["zip", "tar"]))
    path = tmp_path / f"d.{kind}"
    pack(path, members)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    path.write_bytes(content)
    try:
        listing = list_images([str(path)])
    except UserError:
        return
    with Reader() as reader:
        for source in listing:
            try:
                found = reader.read(source)
            except RejectedImage as rejected:
                # Of one whose size is said to be huge the start alone is looked at, and these are no JPEGs.
                assert rejected.reason in (UNREADABLE, NOT_JPEG)  # noqa: PT017
                continue
            if kind == "zip":
                assert found in members.values()
