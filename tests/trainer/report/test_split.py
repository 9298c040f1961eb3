"""A split read for the report: what it takes of its records, and of large pictures."""

import io
import tracemalloc
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from beam_jobs.images import Encoding, convert
from beam_jobs.records import frame, serialise
from canopy import contract
from canopy.cli import UserError
from tests.trainer.report.making import looks
from tests.trainer.test_dataset import write_shards
from trainer import data_info, faults
from trainer.data_info import DataInfo
from trainer.report import split
from trainer.shard import Shard


def made(folder, counts):
    """A data set of pictures that are named after their place in it."""
    tags = tuple(f"tag_{number}" for number in range(40))
    return DataInfo(str(folder), "made", tags, "", {"validation": write_shards(folder, counts)}, {})


def test_of_the_rows_picked_no_other_record_passes_through_python(tmp_path, monkeypatch):
    info, read = made(tmp_path, [3, 0, 5, 4]), []
    naming = faults.naming

    def counted(*given):
        for element in naming(*given):
            read.append(element[0].numpy().decode())
            yield element

    monkeypatch.setattr(faults, "naming", counted)
    found = split.pick(info, "validation", {11, 2, 3, 7})
    assert read == ["chip_2", "chip_3", "chip_7", "chip_11"]
    values = {row: round(tf.io.decode_jpeg(image).numpy().mean()) for row, image in found.items()}
    assert values == {2: 2, 3: 3, 7: 7, 11: 11}
    assert split.pick(info, "validation", set()) == {}


def test_the_first_records_are_looked_at_as_they_are(records):
    info = data_info.read(str(records))
    found = split.look(info, "train", 20)
    images = split.pick(info, "train", set(range(20)))
    expected = looks([images[row] for row in range(20)])
    assert len(found.names) == len(set(found.names)) == len(set(found.digests)) == 20
    np.testing.assert_allclose(found.measures, expected.measures, rtol=1e-4, atol=1e-3)
    apart = found.thumbs.astype(float) - expected.thumbs  # Pillow takes whole pixels into each of its means
    assert abs(apart).mean() < 2
    assert abs(apart.mean()) < 0.2
    assert not found.flat.any()
    assert split.look(info, "train", 0).names == []


def test_of_each_record_looked_at_some_hundred_bytes_are_held(tmp_path):
    info, peaks = made(tmp_path, [3_000]), []
    for count in (1_000, 3_000):
        tracemalloc.start()
        try:
            assert len(split.look(info, "validation", count).names) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 2_000 < 1_000


def test_a_picture_of_which_one_channel_varies_is_not_of_one_value(tmp_path, monkeypatch):
    info = made(tmp_path, [3])
    assert split.look(info, "validation", 3).flat.all()
    reddened = tf.constant([[[0, 0, 0], [9, 0, 0]]], tf.uint8)
    monkeypatch.setattr(split, "reduced", lambda *_: reddened)
    assert not split.look(info, "validation", 3).flat.any()


def test_of_a_large_picture_the_middle_is_measured(monkeypatch):
    monkeypatch.setattr(split, "MEASURED_SIDE", 4)
    pixels = np.arange(7 * 3 * 3, dtype=np.uint8).reshape(7, 3, 3)
    np.testing.assert_array_equal(split._middle(tf.constant(pixels)), pixels[1:5])
    np.testing.assert_array_equal(split._middle(tf.constant(pixels[:3])), pixels[:3])


@pytest.mark.parametrize(("looked_at", "reduced"), [(9, False), (8, True)])
def test_a_large_picture_is_looked_at_as_the_decoder_reduces_it(tmp_path, monkeypatch, looked_at, reduced):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    path = tmp_path / "shard"
    path.write_bytes(frame(serialise("chip", convert(out.getvalue(), Encoding("keep")), [0], 2)))
    info = DataInfo(str(tmp_path), "made", ("a", "b"), "", {"train": (Shard(str(path), 1),)}, {})
    monkeypatch.setattr(split, "LOOKED_AT", looked_at)
    seen = Image.open(out)
    if reduced:
        seen.draft(None, (10, 8))
    pixels = np.asarray(seen, np.float64)
    assert pixels.shape == ((8, 10, 3) if reduced else (16, 20, 3))
    found = split.look(info, "train", 1).measures[0, :6]
    np.testing.assert_allclose(found, [*pixels.mean((0, 1)), *pixels.std((0, 1))], rtol=1e-4)


def test_a_gpu_without_room_for_the_pictures_is_one_sentence(tmp_path, monkeypatch):
    info, said = made(tmp_path, [3]), ["Dst tensor is not initialized."]

    class Failing:
        structured_outputs: ClassVar = {"scores": tf.TensorSpec([None, len(info.vocabulary)])}

        def __call__(self, image_bytes):
            raise tf.errors.InternalError(None, None, said[0])

    export = SimpleNamespace(signatures={contract.SIGNATURE_JPEG: Failing()})
    monkeypatch.setattr(tf.saved_model, "load", lambda _: export)
    with pytest.raises(
        UserError, match=r"^scoring does not fit into this machine's memory or its GPU's \(Dst"
    ):
        split.score(str(tmp_path), info, "validation")
    said[0] = "no kernel"
    with pytest.raises(tf.errors.InternalError):
        split.score(str(tmp_path), info, "validation")
