"""The framing of records, against TensorFlow's own writer."""

import pytest

from canopy.tfrecord import CHECKSUM, LENGTH, masked_crc


@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256)) * 5])
def test_a_record_is_framed_as_tensorflow_frames_it(data, tmp_path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "one.tfrecord")) as writer:
        writer.write(data)
    length = LENGTH.pack(len(data))
    framed = length + CHECKSUM.pack(masked_crc(length)) + data + CHECKSUM.pack(masked_crc(data))
    assert (tmp_path / "one.tfrecord").read_bytes() == framed
