"""Shards that are not what preprocessing wrote end a run, which names the shard and the record."""

import errno
import json
import os
import shutil
import stat as stat_module
import threading
from pathlib import Path

import pytest

from canopy import cli
from canopy.cli import TryAgainError, UserError
from tests.conftest import SMALLEST
from trainer import data_info, integrity
from trainer.integrity import Verification


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    """What one test has verified is no other's."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def folder(records, tmp_path):
    return shutil.copytree(records, tmp_path / "records")


def shard_path(folder, number=0, split="train"):
    facts = json.loads((folder / "canopy.json").read_text())
    return folder / facts["splits"][split]["shards"][number]["name"]


def verify(folder, workers=1, index=0):
    verification = Verification(data_info.read(str(folder)).shards("train"), workers, index)
    verification.finish()


def frames(path):
    """The offset of each record of a shard, and its end."""
    data, offsets = path.read_bytes(), [0]
    while offsets[-1] < len(data):
        length = int.from_bytes(data[offsets[-1] : offsets[-1] + 8], "little")
        offsets.append(offsets[-1] + length + 16)
    return offsets


def test_what_preprocessing_wrote_is_sound(folder):
    verify(folder)


def test_a_missing_shard_is_named(folder):
    path = shard_path(folder, 1)
    path.unlink()
    with pytest.raises(UserError, match=rf"{path.name} is missing"):
        data_info.read(str(folder)).shards("train")


@pytest.mark.parametrize("remembered", [5, 5_000_000])
def test_a_size_that_is_remembered_of_an_earlier_shard_does_not_count(folder, monkeypatch, remembered):
    shards, looked = data_info.read(str(folder)).splits["train"], Path.stat

    def stat(path, **how):
        found = list(looked(path, **how))
        found[stat_module.ST_SIZE] = remembered
        return os.stat_result(found)

    monkeypatch.setattr(Path, "stat", stat)
    integrity.check_sizes(shards)
    shard_path(folder).write_bytes(b"")
    with pytest.raises(UserError, match=r"has 0 bytes|ends before record 0"):
        integrity.check_sizes(shards)


def test_a_shard_that_has_grown_is_named(folder):
    path = shard_path(folder, 1)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(UserError, match=rf"{path.name} holds more than the "):
        data_info.read(str(folder)).shards("train")


@pytest.mark.parametrize("cut", [1, 20])
def test_a_shard_that_is_cut_off_is_named_with_its_last_record(folder, cut):
    path = shard_path(folder)
    os.truncate(path, path.stat().st_size - cut)
    last = len(frames(path)) - 2
    with pytest.raises(UserError, match=rf"{path.name}: record {last} of .* is cut off"):
        data_info.read(str(folder)).shards("train")


def test_a_shard_that_ends_between_two_records_is_named_with_the_first_missing_one(folder):
    path = shard_path(folder)
    os.truncate(path, frames(path)[3])
    with pytest.raises(UserError, match=rf"{path.name} ends before record 3"):
        data_info.read(str(folder)).shards("train")


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("within", "what"), [(0, "of its length"), (30, "its checksum")])
def test_a_flipped_bit_is_found_and_its_record_named(folder, within, what):
    path = shard_path(folder)
    flip(path, frames(path)[2] + within)
    for _ in range(2):  # a later start, too
        with pytest.raises(UserError, match=rf"{path.name}: record 2 of .* corrupt: .*{what}"):
            verify(folder)


@pytest.mark.parametrize(("content", "expected"), [(b"", "00000000"), (b"x" * 3_000_000, "90cbdf17")])
def test_a_checksum_has_eight_digits_however_it_begins_and_is_of_the_whole_file(tmp_path, content, expected):
    (tmp_path / "shard").write_bytes(content)
    assert integrity.checksum(str(tmp_path / "shard")) == expected


def test_each_shard_is_verified_by_one_of_the_workers(folder):
    count = len(data_info.read(str(folder)).shards("train"))
    for number in range(count):
        path = shard_path(folder, number)
        whole = path.read_bytes()
        flip(path, 40)
        found = 0
        for index in range(2):
            try:
                verify(folder, 2, index)
            except UserError:
                found += 1
        assert found == 1
        path.write_bytes(whole)


def test_sound_records_that_are_not_those_promised_are_refused(folder):
    verify(folder)
    path, facts = shard_path(folder), json.loads((folder / "canopy.json").read_text())
    facts["splits"]["train"]["shards"][0]["crc32c"] = "01234567"
    (folder / "canopy.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=rf"{path.name} has CRC-32C .*01234567"):
        verify(folder)


def spied(monkeypatch):
    """The shards that are read from now on."""
    read = []
    whole = integrity.checksum

    def checksum(path):
        read.append(path)
        return whole(path)

    monkeypatch.setattr(integrity, "checksum", checksum)
    return read


def test_what_was_verified_is_not_read_again_until_it_changes(folder, monkeypatch):
    verify(folder)
    read = spied(monkeypatch)
    verify(folder)
    assert read == []
    path = shard_path(folder)
    os.utime(path, ns=(1, 1))
    verify(folder)
    assert read == [str(path)]


@pytest.mark.parametrize("notes", [True, False], ids=["noted", "no_temporary_folder"])
def test_a_shard_that_is_written_over_while_a_run_reads_it_is_found_at_the_next_epochs_end(
    folder, tmp_path, monkeypatch, notes
):
    if not notes:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    verification = Verification(data_info.read(str(folder)).shards("train"), 1, 0)
    verification.finish()
    path = shard_path(folder, 1)
    other = tmp_path / "other"
    shutil.copy(path, other)
    flip(other, frames(other)[2] + 30)
    shutil.copystat(path, other)
    other.replace(path)
    read = spied(monkeypatch)
    with pytest.raises(UserError, match=rf"{path.name}: record 2 of "):
        verification.finish()
    assert read == [str(path)]


def test_a_shard_that_is_written_over_while_it_is_checked_is_not_taken_for_checked(folder, monkeypatch):
    path = shard_path(folder)
    whole = integrity.checksum

    def checksum(name):
        found = whole(name)
        if name == str(path):
            flip(path, frames(path)[2] + 30)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(integrity, "checksum", checksum)
        verification = Verification(data_info.read(str(folder)).shards("train")[:1], 1, 0)
        verification._thread.join()
    with pytest.raises(UserError, match=rf"{path.name}: record 2 of "):
        verification.finish()


@pytest.mark.parametrize("notes", ["a link", "another's", "a folder", "no text"])
def test_notes_that_are_not_the_users_own_or_cannot_be_read_count_for_nothing(
    folder, tmp_path, monkeypatch, notes
):
    verify(folder)
    own, uid = tmp_path / "tmp" / f"canopy-{os.getuid()}", os.getuid()
    assert own.stat().st_mode & 0o077 == 0
    if notes == "a link":
        own.rename(tmp_path / "elsewhere")
        own.symlink_to(tmp_path / "elsewhere")
    elif notes == "another's":
        own.rename(own.with_name(f"canopy-{uid + 1}"))
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    elif notes == "a folder":
        (own / "verified.txt").unlink()
        (own / "verified.txt").mkdir()
    else:
        (own / "verified.txt").write_bytes(b"\xff")
    read = spied(monkeypatch)
    verify(folder)
    assert read == [shard.path for shard in data_info.read(str(folder)).shards("train")]


def test_a_check_waits_for_nothing_and_tells_what_was_found_meanwhile(folder, monkeypatch):
    going = threading.Event()

    def fails(_):
        going.wait(10)
        raise OSError(errno.ESTALE, "it says no")

    monkeypatch.setattr(integrity, "checksum", fails)
    verification = Verification(data_info.read(str(folder)).shards("train"), 1, 0)
    verification.check()
    assert verification._thread.daemon, "a run that ends would wait for the checksums"
    going.set()
    verification._thread.join()
    with pytest.raises(TryAgainError, match="it says no"):
        verification.check()


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ESTALE, TryAgainError), (errno.EIO, TryAgainError), (errno.EACCES, UserError)]
)
def test_a_disk_that_fails_for_a_while_is_no_fault_of_the_shards(folder, monkeypatch, number, kind):
    def fails(*_, **__):
        raise OSError(number, "it says no")

    path = shard_path(folder)
    with monkeypatch.context() as patch:
        patch.setattr(integrity, "checksum", fails)
        with pytest.raises(kind, match=rf"{path} cannot be read \(it says no\)"):
            verify(folder)
    info = data_info.read(str(folder))
    monkeypatch.setattr(Path, "stat", fails)
    with pytest.raises(kind, match=rf"{path} is missing \(it says no\)"):
        info.shards("train")


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_run_on_a_corrupt_shard_ends_with_the_users_exit_code(folder, tmp_path, command, split):
    path = shard_path(folder, 0, split)
    flip(path, frames(path)[2] + 30)
    flags = ("--data", folder, "--model_dir", tmp_path / "model", "--epochs", 2, *SMALLEST)
    done = command("trainer.launch", "--local_workers", 2, "--", *flags)
    assert done.returncode == cli.EXIT_USER, done.stderr
    assert f"{path.name}: record 2 of " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model" / "export").exists()
