"""A picture's bytes to the network's pixels: Pillow's, resized in one way, and reduced where it is large."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from beam_jobs.images import to_rgb
from beam_jobs.scoring.resize import Resizer
from canopy import contract
from canopy.sample.encode import Kind, encode
from tests.trainer.test_dataset import noise
from trainer import decoding
from trainer.mend import mend


def test_decoding_gives_pillows_pixels_to_the_bit():
    out = io.BytesIO()
    Image.fromarray(noise(40, 48)).save(out, "JPEG", quality=90, subsampling=0)
    np.testing.assert_array_equal(decoding.decode(out.getvalue()), np.asarray(Image.open(out)))


SIZES = [(32, 96), (32, 64), (64, 100), (40, 33), (256, 224), (96, 64), (97, 64), (256, 96), (7, 7)]


@pytest.mark.parametrize(
    ("height", "width", "size"), [*((side, side, size) for side, size in SIZES), (32, 40, 32), (40, 56, 32)]
)
def test_resizing_is_bilinear_and_antialiased_where_it_shrinks_to_less_than_two_thirds(height, width, size):
    picture = noise(height, width)
    exact = tf.image.resize(picture, [size, size], antialias=max(height, width) > 1.5 * size).numpy()
    expected = np.floor(exact + np.float32(contract.ROUNDING))
    found = decoding.resize(tf.constant(picture), size).numpy()
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= (0 if height != 64 else 1), "a tie may round either way"
    if height == width == size:
        np.testing.assert_array_equal(found, picture)


def batched(files, size):
    """What a batch of files comes to, their sides read from their headers."""
    sides = np.array([tf.io.extract_jpeg_shape(data)[:2] for data in files])
    mended = tf.stack([mend(tf.constant(data)) for data in files])
    return decoding.batch(mended, tf.constant(sides), len(files), size).numpy()


@pytest.mark.parametrize("kind", [Kind.PLANET, Kind.JFIF, Kind.PROGRESSIVE, Kind.GREY])
@pytest.mark.parametrize(
    ("height", "width", "ratio"), [(63, 64, 1), (64, 64, 2), (130, 127, 2), (128, 300, 4), (257, 256, 8)]
)
def test_a_large_jpeg_is_reduced_as_it_is_decoded_as_far_as_no_side_gets_too_short(
    kind, height, width, ratio
):
    data, size = encode(noise(height, width), kind), 32
    drafted = Image.open(io.BytesIO(data))
    drafted.draft(None, (size, size))
    reduced = np.asarray(drafted.convert("RGB"))
    assert reduced.shape == (-(-height // ratio), -(-width // ratio), 3)
    expected = decoding.resize(tf.constant(reduced), size).numpy()
    np.testing.assert_array_equal(decoding.from_file(tf.constant(data), size), expected)
    np.testing.assert_array_equal(batched([data, data], size), [expected, expected])
    np.testing.assert_array_equal(to_rgb(data, least_side=size), reduced)


def test_pictures_of_a_batch_are_reduced_each_by_itself():
    files = [encode(noise(*sides), Kind.JFIF) for sides in [(300, 40), (40, 40), (64, 64), (256, 300)]]
    alone = [batched([data], 32)[0] for data in files]
    np.testing.assert_array_equal(batched(files, 32), alone)


@pytest.mark.parametrize("side", [300, 320, 500])
def test_pictures_of_a_batch_come_out_as_each_does_alone_in_however_many_groups_they_are_resized(side):
    files = [encode(noise(side, side - 20 * each), Kind.JFIF) for each in (0, 0, 0, 0, 0, 1)]
    for together in (files[:-1], files[:-2], files):  # five groups, four, and of two sizes
        alone = [decoding.from_file(tf.constant(data), 300).numpy() for data in together]
        np.testing.assert_array_equal(batched(together, 300), alone)


def test_a_reduced_picture_is_nearly_what_antialiasing_makes_of_the_whole(real_data):
    for path in sorted((real_data / "planet" / "chips256" / "train-jpg").glob("*.jpg"))[:8]:
        data = path.read_bytes()
        whole = np.empty((1, 96, 96, 3), np.uint8)
        Resizer(96)([to_rgb(data)], whole)
        apart = decoding.from_file(tf.constant(data), 96).numpy().astype(float) - whole[0]
        assert 0 < np.abs(apart).mean() < 1, "levels of 256"
        assert abs(apart.mean()) < 0.05, "neither lighter nor darker"


def test_a_png_is_decoded_whole():
    picture = noise(128, 128)
    data = tf.io.encode_png(picture)
    expected = decoding.resize(tf.constant(picture), 32).numpy()
    np.testing.assert_array_equal(decoding.from_file(data, 32), expected)
    sides = tf.constant([[128, 128]])
    np.testing.assert_array_equal(decoding.batch(data[None], sides, 1, 32), expected[None])
