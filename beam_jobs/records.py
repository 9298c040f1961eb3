"""The record contract's writing side: tf.train.Example and TFRecord, without TensorFlow.

Promises: the same image gives the same bytes everywhere (maps are serialised in the order of their keys,
nothing knows the time); TensorFlow reads them as its own. Importing this costs milliseconds, TensorFlow
would cost each worker six seconds and 500 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO, Any

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from beam_jobs.images import Converted
from canopy import contract
from canopy.tfrecord import CHECKSUM, LENGTH, masked_crc


def _example_class() -> Any:
    """Builds the message class of tf.train.Example (tensorflow/core/example/{example,feature}.proto).

    In a pool of its own: TensorFlow may be imported beside it, and registers the same names.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="canopy/example.proto", package="tensorflow", syntax="proto3"
    )

    def message(name: str, *fields: tuple[str, int, int, str]) -> descriptor_pb2.DescriptorProto:
        added = file.message_type.add(name=name)
        for number, (field_name, kind, label, type_name) in enumerate(fields, start=1):
            new = added.field.add(name=field_name, number=number, type=kind, label=label)
            if type_name:
                new.type_name = f".tensorflow.{type_name}"
        return added

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("BytesList", ("value", field.TYPE_BYTES, many, ""))
    message("FloatList", ("value", field.TYPE_FLOAT, many, ""))
    message("Int64List", ("value", field.TYPE_INT64, many, ""))
    feature = message(
        "Feature",
        ("bytes_list", field.TYPE_MESSAGE, one, "BytesList"),
        ("float_list", field.TYPE_MESSAGE, one, "FloatList"),
        ("int64_list", field.TYPE_MESSAGE, one, "Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for kind in feature.field:
        kind.oneof_index = 0
    features = message("Features", ("feature", field.TYPE_MESSAGE, many, "Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=one)
    entry.field.add(
        name="value", number=2, type=field.TYPE_MESSAGE, label=one, type_name=".tensorflow.Feature"
    )
    entry.options.map_entry = True
    message("Example", ("features", field.TYPE_MESSAGE, one, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


Example = _example_class()


def serialise(name: str, picture: Converted, ids: Sequence[int], classes: int) -> bytes:
    """One record's Example.

    Args:
        name: the image's name, without folder and ending.
        picture: what to put under `image/encoded`, with its size in pixels.
        ids: class ids, ascending.
        classes: the size of the vocabulary.

    Returns:
        The serialised tf.train.Example, keys in order.
    """
    multi_hot = [0] * classes
    for i in ids:
        multi_hot[i] = 1
    example = Example()
    feature = example.features.feature
    feature[contract.KEY_ENCODED].bytes_list.value.append(picture.encoded)
    feature[contract.KEY_FORMAT].bytes_list.value.append(picture.image_format.encode())
    feature[contract.KEY_FILENAME].bytes_list.value.append(name.encode())
    feature[contract.KEY_HEIGHT].int64_list.value.append(picture.height)
    feature[contract.KEY_WIDTH].int64_list.value.append(picture.width)
    feature[contract.KEY_LABEL].int64_list.value.extend(ids)
    feature[contract.KEY_MULTI_HOT].int64_list.value.extend(multi_hot)
    data: bytes = example.SerializeToString(deterministic=True)
    return data


def frame(data: bytes) -> bytes:
    """One record as a TFRecord file holds it."""
    length = LENGTH.pack(len(data))
    return b"".join((length, CHECKSUM.pack(masked_crc(length)), data, CHECKSUM.pack(masked_crc(data))))


class ChecksummedWriter:
    """Writes on, and knows the CRC-32C of all of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._crc = 0

    def write(self, data: bytes) -> None:
        """Appends `data`."""
        self._file.write(data)
        self._crc = google_crc32c.extend(self._crc, data)

    @property
    def crc32c(self) -> str:
        """The CRC-32C of everything written, eight hexadecimal digits."""
        return f"{self._crc:08x}"
