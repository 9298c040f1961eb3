"""Shards in a bucket, which tells their sizes and checksums, or less than that, or nothing."""

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from google.api_core.exceptions import RetryError
from google.auth.exceptions import DefaultCredentialsError
from google.cloud import storage

from canopy.cli import UserError
from tests.beam_jobs.gcs_server import serving
from trainer import data_info, integrity
from trainer.integrity import Verification
from trainer.shard import Shard

NAME = "gs://here/data/shard"


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture(params=["data/", ""], ids=["folder", "root"])
def objects(request, records, tmp_path, monkeypatch):
    """The training shards as objects of a bucket, in a folder of it or in its root."""
    with serving(tmp_path / "store", "here") as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        bucket = storage.Client().bucket("here")
        shards = []
        for shard in data_info.read(str(records)).shards("train"):
            name = f"{request.param}{Path(shard.path).name}"
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


def test_a_bucket_that_may_not_be_listed_is_no_mistake_of_the_data(objects, caplog):
    server, _, shards = objects
    server.denied = "/o?"
    with caplog.at_level(logging.WARNING, "canopy"):
        verification = Verification(shards, 1, 0)
        for _ in range(3):
            verification.finish()
    assert caplog.text.count("cannot be asked for") == 1


@pytest.fixture
def listed(monkeypatch):
    """What the bucket lists; what is asked of it."""
    blobs: list[SimpleNamespace] = []
    asked: list[tuple[str, str, str]] = []

    def list_blobs(bucket, *, prefix, delimiter, fields):
        asked.append((bucket, prefix, fields))
        return blobs

    monkeypatch.setattr(storage, "Client", lambda: SimpleNamespace(list_blobs=list_blobs))
    return blobs, asked


def verify(*shards, index=0):
    Verification(shards, 2, index).finish()


def test_what_neither_data_nor_bucket_tell_is_not_compared(listed):
    blobs, asked = listed
    blobs.append(SimpleNamespace(name="data/shard", size=7, crc32c=None))
    verify(Shard(NAME, 1, 7, "01234567"))
    blobs[0].crc32c = "ASNFZw=="
    verify(Shard(NAME, 1, -1, "01234567"))
    with pytest.raises(UserError, match=r"has CRC-32C 01234567, and canopy\.json says 76543210"):
        verify(Shard(NAME, 1, 7, "76543210"))
    del asked[:]
    verify(Shard(NAME, 1, 8, ""))
    assert asked == []


def test_one_worker_asks_for_all_and_for_every_page(listed):
    blobs, asked = listed
    blobs.append(SimpleNamespace(name="data/shard", size=7, crc32c=None))
    for index in (0, 1):
        verify(Shard(NAME, 1, 7, "01234567"), index=index)
    assert {each[:2] for each in asked} == {("here", "data/")}
    assert all("nextPageToken" in fields for _, _, fields in asked)
    assert len(asked) == 2, "the first worker asks at the start and at an epoch's end"


def test_sizes_of_objects_are_left_to_the_bucket():
    integrity.check_sizes([Shard(NAME, 1, 7, "01234567")])


def test_shards_of_which_no_checksum_is_known_are_taken_as_they_are(tmp_path):
    (tmp_path / "shard").write_bytes(b"x")
    verify(Shard(str(tmp_path / "shard"), 1, 1, ""))


@pytest.mark.parametrize(
    "error",
    [
        RetryError("Timeout of 120.0s exceeded", None),
        DefaultCredentialsError("none were found"),
        ConnectionError("no way"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_bucket_that_does_not_answer_is_no_mistake_of_the_data(monkeypatch, caplog, error):
    def fails():
        raise error

    monkeypatch.setattr(storage, "Client", fails)
    with caplog.at_level(logging.WARNING, "canopy"):
        verify(Shard(NAME, 1, 7, "01234567"))
    assert "cannot be asked for" in caplog.text
