"""Which record stopped a run, and with what sentence."""

import dataclasses
import errno

import pytest
import tensorflow as tf

from beam_jobs.images import Converted
from beam_jobs.records import frame, serialise
from canopy import contract
from canopy.cli import TryAgainError, UserError
from canopy.tfrecord import CHECKSUM, LENGTH, masked_crc
from trainer import data_info, dataset, decoding, faults
from trainer.shard import Shard


def example(encoded=b"", classes=2, name="chip"):
    return serialise(name, Converted(encoded, "jpeg", 8, 12, None, False, False), [0], classes)


def jpeg(height, width):
    return tf.io.encode_jpeg(tf.zeros([height, width, 3], tf.uint8)).numpy()


@pytest.fixture
def picture():
    return jpeg(8, 12)


@pytest.fixture
def sound(picture):
    return example(picture)


def write(path, *records):
    path.write_bytes(b"".join(map(frame, records)))
    return Shard(str(path), 3)


def read(*shards):
    """Reads shards as training does."""
    settings = dataset.Reading(
        shards=shards, classes=2, image_size=32, replica_batch=3, workers=1, index=0, shuffle=False
    )
    return list(dataset.iterate(settings))


def test_a_record_that_breaks_the_contract_is_named(tmp_path, picture, sound):
    for bad, said in [
        (example(b"no picture", name="chip_7"), r"record 1 .*chip_7.*cannot be decoded"),
        (example(b"no picture", name="chip_7").replace(b"_7", b"\xff7"), "record 1 .*chip\ufffd7.*decoded"),
        (example(picture[:200]), "record 1 .*cannot be decoded"),
        (example(jpeg(16, 12)), "record 1 .*16 x 12 pixels"),
        (example(jpeg(8, 16)), "record 1 .*8 x 16 pixels"),
        (example(picture, classes=5), "record 1 .*has 5 numbers .*2 classes"),
        (example(picture, classes=1), "record 1 .*has 1 numbers .*2 classes"),
        (sound.replace(b"image/encoded", b"image/ENCODED"), "record 1 .*lacks image/encoded"),
        (b"\xff\xff", "record 1 .*no tf.train.Example"),
    ]:
        with pytest.raises(UserError, match=said):
            read(write(tmp_path / "shard", sound, bad, sound))


def test_a_record_that_has_not_one_name_or_not_one_picture_is_named(tmp_path, picture, sound):
    two = tf.train.Example.FromString(sound)
    two.features.feature[contract.KEY_ENCODED].bytes_list.value.append(picture)
    nameless = sound.replace(b"image/filename", b"image/FILENAME")
    for bad, lacking in [(two.SerializeToString(), "encoded"), (nameless, "filename")]:
        shards = [write(tmp_path / "shard", sound, bad, sound)]
        with pytest.raises(UserError, match=f"record 1 .*lacks image/{lacking}"):
            list(faults.naming(dataset.encoded(shards, 2), shards, 2))


@pytest.mark.parametrize("address", ["", "file://"])  # TensorFlow's own file system, as of a store
@pytest.mark.parametrize("length", [1000, 2**40, 2**63, 2**64 - 1])
def test_a_record_that_gives_a_length_beyond_its_shard_is_cut_off(tmp_path, sound, address, length):
    head = LENGTH.pack(length)
    path = tmp_path / "shard"
    path.write_bytes(frame(sound) + head + CHECKSUM.pack(masked_crc(head)) + bytes(99))
    said = faults.first([Shard(f"{address}{path}", 2)], 2)
    assert said == f"{address}{path}: record 1 of 2, counted from 0, is cut off"


@pytest.mark.parametrize("address", ["", "file://"])  # TensorFlow's own file system, as of a store
def test_what_tensorflow_cannot_read_is_named_in_whatever_shard_it_is(tmp_path, sound, address):
    whole, path = write(tmp_path / "whole", sound, sound, sound), tmp_path / "bad"
    bad = dataclasses.replace(write(path, sound, sound, sound), path=f"{address}{path}")
    data, begins = path.read_bytes(), 2 * len(frame(sound))
    for content, said in [
        (data[:-1] + b"?", "bad: record 2 of 3, .* is corrupt: its checksum differs"),
        (data[:begins] + b"?" + data[begins + 1 :], "bad: record 2 .*: the checksum of its length differs"),
        (data[: begins + 5], "bad: record 2 of 3, .* is cut off"),
        (data[:-20], "bad: record 2 of 3, .* is cut off"),
        (data[:begins], "bad ends before record 2,"),
        (None, "bad is missing: canopy.json promises 3 records"),
    ]:
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(UserError, match=said):
            read(whole, bad)


def test_more_records_than_promised_are_named(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(frame(b"one") + frame(b"two"))
    assert "holds more than the 1 records" in str(faults.first([Shard(str(path), 1)], 0))


def test_an_error_with_sound_records_stays_what_it_was(records):
    def fails():
        yield "a batch"
        raise tf.errors.DataLossError(None, None, "the network broke")

    info = data_info.read(str(records))
    with pytest.raises(tf.errors.DataLossError, match="the network broke"):
        list(faults.naming(fails(), info.shards("train"), len(info.vocabulary), decoding.decode))


@pytest.mark.parametrize(("number", "kind"), [(errno.ESTALE, TryAgainError), (errno.EACCES, UserError)])
def test_a_shard_that_the_disk_does_not_give_may_be_sound(records, monkeypatch, number, kind):
    def fails(*_):
        raise OSError(number, "it says no")

    shards = data_info.read(str(records)).shards("train")
    monkeypatch.setattr(faults, "_open", fails)
    with pytest.raises(kind, match=rf"{shards[0].path} cannot be read \(it says no\)"):
        faults.first(shards, 0)


def test_a_folder_in_a_shards_place_is_told(tmp_path):
    with pytest.raises(UserError, match=rf"^{tmp_path} cannot be read \(Is a directory\)$"):
        faults.first([Shard(str(tmp_path), 1)], 0)


def test_a_shard_that_tensorflow_may_not_read_or_not_now_is_one_sentence():
    def fails(kind):
        yield "a batch"
        raise kind(None, None, "{{function_node next}} /data/shard; it says no [Op:IteratorGetNext] name: ")

    for kind, told in [
        (tf.errors.UnknownError, TryAgainError),
        (tf.errors.UnavailableError, TryAgainError),
        (tf.errors.PermissionDeniedError, UserError),
    ]:
        with pytest.raises(told, match=r"a shard cannot be read \(/data/shard; it says no\)"):
            list(faults.naming(fails(kind), (), 2))
    with pytest.raises(tf.errors.ResourceExhaustedError):  # of memory the command itself tells
        list(faults.naming(fails(tf.errors.ResourceExhaustedError), (), 2))
