"""Records without TensorFlow that TensorFlow reads as its own."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import google_crc32c
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beam_jobs import records
from beam_jobs.images import Converted
from tests.beam_jobs.making import read_records

PICTURES = st.builds(
    Converted,
    encoded=st.binary(max_size=300),
    image_format=st.sampled_from(["jpeg", "png"]),
    height=st.integers(1, 70_000),
    width=st.integers(1, 70_000),
    histogram=st.none(),
    constant=st.booleans(),
    mended=st.booleans(),
)


@settings(max_examples=50)
@given(st.text(st.characters(codec="utf-8")), PICTURES, st.sets(st.integers(0, 16)))
def test_tensorflow_parses_what_is_written_and_would_write_the_same(
    name: str, picture: Converted, ids: set[int]
) -> None:
    import tensorflow as tf

    data = records.serialise(name, picture, sorted(ids), 17)
    example = tf.train.Example.FromString(data)
    assert example.SerializeToString(deterministic=True) == data
    feature = example.features.feature
    assert feature["image/encoded"].bytes_list.value == [picture.encoded]
    assert feature["image/format"].bytes_list.value == [picture.image_format.encode()]
    assert feature["image/filename"].bytes_list.value == [name.encode()]
    assert feature["image/height"].int64_list.value == [picture.height]
    assert feature["image/width"].int64_list.value == [picture.width]
    assert list(feature["image/class/label"].int64_list.value) == sorted(ids)
    assert list(feature["image/class/multi_hot"].int64_list.value) == [int(i in ids) for i in range(17)]


def test_tensorflow_reads_the_framing(tmp_path: Path) -> None:
    import tensorflow as tf

    bodies = [b"", b"x", bytes(range(256)) * 5]
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(map(records.frame, bodies)))
    assert [data.numpy() for data in tf.data.TFRecordDataset(str(path))] == bodies
    assert read_records(path) == bodies


@given(st.lists(st.binary(max_size=50)))
@example([])  # a checksum that begins with zeros
def test_the_writer_knows_the_files_checksum(parts: list[bytes]) -> None:
    file = io.BytesIO()
    writer = records.ChecksummedWriter(file)
    for part in parts:
        writer.write(part)
    assert writer.crc32c == f"{google_crc32c.value(file.getvalue()):08x}"


def test_neither_driver_nor_worker_imports_tensorflow() -> None:
    code = (
        "import sys; from beam_jobs import preprocess, convert; from beam_jobs.runners import choosing; "
        "choosing.parse_options([]); sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
