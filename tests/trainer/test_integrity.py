"""Shards that are not what preprocessing wrote end a run, which names the shard and the record."""

import dataclasses
import errno
import json
import logging
import os
import shutil
from pathlib import Path

import pytest

from canopy import cli
from canopy.cli import TryAgainError, UserError
from tests.beam_jobs.gcs_server import serving
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


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ESTALE, TryAgainError), (errno.EIO, TryAgainError), (errno.EACCES, UserError)]
)
def test_a_disk_that_fails_for_a_while_is_no_fault_of_the_shards(folder, monkeypatch, number, kind):
    def fails(*_, **__):
        raise OSError(number, "it says no")

    path = shard_path(folder)
    monkeypatch.setattr(integrity, "checksum", fails)
    with pytest.raises(kind, match=rf"{path} cannot be read \(it says no\)"):
        verify(folder)


@pytest.fixture
def objects(folder, tmp_path, monkeypatch):
    """The training shards as objects of a bucket."""
    from google.cloud import storage

    with serving(tmp_path / "store", "here") as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        bucket = storage.Client().bucket("here")
        shards = []
        for shard in data_info.read(str(folder)).shards("train"):
            name = f"data/{Path(shard.path).name}"
            bucket.blob(name).upload_from_filename(shard.path)
            shards.append(dataclasses.replace(shard, path=f"gs://here/{name}"))
        yield server, bucket, tuple(shards)


def test_a_bucket_is_asked_for_its_objects_sizes_and_checksums(objects):
    _, bucket, shards = objects
    verification = Verification(shards, 2, 0)
    verification.finish()
    blob = bucket.blob(shards[1].path.removeprefix("gs://here/"))
    blob.upload_from_string(b"x" * shards[1].bytes)
    with pytest.raises(UserError, match=rf"{shards[1].path} has CRC-32C"):
        verification.finish()
    with pytest.raises(UserError, match=rf"{shards[1].path} has CRC-32C"):
        Verification(shards, 2, 0).finish()
    blob.upload_from_string(b"x")
    with pytest.raises(UserError, match=rf"{shards[1].path} has 1 bytes"):
        Verification(shards, 2, 0).finish()
    blob.delete()
    with pytest.raises(UserError, match=rf"{shards[1].path} is missing"):
        Verification(shards, 2, 0).finish()


def test_a_bucket_that_does_not_answer_for_long_is_no_mistake_of_the_data(objects, monkeypatch, caplog):
    from google.api_core.exceptions import RetryError
    from google.cloud import storage

    def fails(*_, **__):
        raise RetryError("Timeout of 120.0s exceeded", None)

    _, _, shards = objects
    monkeypatch.setattr(storage.Client, "list_blobs", fails)
    with caplog.at_level(logging.WARNING, "canopy"):
        Verification(shards, 1, 0).finish()
    assert "cannot be asked for" in caplog.text


def test_a_bucket_that_may_not_be_listed_is_no_mistake_of_the_data(objects, caplog):
    server, _, shards = objects
    server.denied = "/o?"
    with caplog.at_level(logging.WARNING, "canopy"):
        verification = Verification(shards, 1, 0)
        for _ in range(3):
            verification.finish()
    assert caplog.text.count("cannot be asked for") == 1


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
