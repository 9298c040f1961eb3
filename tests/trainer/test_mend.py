"""The Adobe marker put in by the graph: exactly where preprocessing would, and nowhere else."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from beam_jobs import images, markers
from canopy.contract import ADOBE_MARKER
from canopy.sample.encode import Kind, encode
from trainer.mend import mend

PICTURE = np.asarray(
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 6, 3), np.uint8)).resize((48, 40))
)


GRAPH = tf.function(mend, input_signature=[tf.TensorSpec([], tf.string)])


def in_graph(data):
    return GRAPH(tf.constant(data)).numpy()


def test_a_chip_like_the_originals_decodes_as_pillow_shows_it():
    data = encode(PICTURE, Kind.PLANET)
    assert in_graph(data) == data[:2] + ADOBE_MARKER + data[2:]
    decoded = tf.io.decode_jpeg(in_graph(data), channels=3, dct_method="INTEGER_ACCURATE").numpy()
    assert (decoded == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.PLANET])
def test_any_other_jpeg_stays_as_it_is(kind):
    data = encode(PICTURE, kind)
    assert in_graph(data) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"\xff\xd8\xff",
        b"<html>",
        b"\xff\xd8" + b"\xff" * 40,
        bytes(64),
        b"\x89P" + encode(PICTURE, Kind.PLANET)[2:],  # another format's bytes may look like any header
    ],
    ids=len,
)
def test_what_is_no_jpeg_stays_as_it_is(data):
    assert in_graph(data) == data


@pytest.mark.parametrize(
    "stray",
    [
        b"\0\1\2",  # between two markers
        b"\5\6\7",
        b"\xff\1\2\2",  # a marker without a length
        b"\xff\xd0\2\2",  # another
        b"\xff\0",  # a stuffed byte
        b"\xff\xd8",  # a second start
        b"\xff\xe2\0\0",  # a length that does not hold itself
        b"\xff\xee\0\x0dAdobe" + bytes(6),  # a marker too short to count
        b"\xff\xee\0\x0eAdobe" + bytes(7),  # one that counts, and stays alone
        b"\xff\xee\0\x0eOther" + bytes(7),  # somebody else's
        b"\xff\xfe\0\x11Adobe Photoshop",  # a comment
        b"\xff\xe1\2\2" + bytes(510) + b"\xff\xe2",  # a long header that ends like the start of one
        b"\xff\xcc\0\x0a" + b"\3" * 8,  # no frame, though its code lies among theirs
        bytes(200_000),
        b"\xff" * 200_000,  # fill bytes
        b"\xff\0" * 100_001,
        b"\xff\0\1" * 100_002,
    ],
    ids=len,
)
@pytest.mark.parametrize("behind", ["the start", "the first header", "the frame", "the scan"])
def test_headers_with_stray_bytes_are_mended_as_preprocessing_does(stray, behind):
    data = encode(PICTURE, Kind.PLANET)
    place = {"the start": 2, "the scan": len(data) - 2}.get(behind, 0)
    if not place:
        header = 2 if behind == "the first header" else data.index(b"\xff\xc0")
        place = header + 2 + int.from_bytes(data[header + 2 : header + 4], "big")
    odd = data[:place] + stray + data[place:]
    assert in_graph(odd) == markers.with_adobe_marker(odd, components=4)


def test_a_cut_file_ends_the_walk():
    data = encode(PICTURE, Kind.PLANET)
    for length in range(0, 400, 7):
        assert in_graph(data[:length])[-1:] == data[:length][-1:]


def test_it_mends_what_preprocessing_mends(real_data):
    paths = sorted((real_data / "odd_jpegs").iterdir()) + sorted(
        (real_data / "planet/chips256/train-jpg").iterdir()
    )
    for path in paths:
        data = path.read_bytes()
        try:
            kept = images.convert(data, images.Encoding(image_format="keep"))
        except images.RejectedImage:
            continue
        assert in_graph(data) == kept.encoded, path.name
