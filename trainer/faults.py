"""Which record stopped a run: the sentence that TensorFlow's own error is not.

Promises: where reading fails, the shards are read again, record by record, and the first bad one is named
with its shard and number; where nothing is wrong with them, the error stays what it was.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import IO, Any

from canopy import contract
from canopy.cli import UserError
from canopy.progress import Meter
from canopy.tfrecord import CHECKSUM, LENGTH, masked_crc
from canopy.transient import told
from trainer.shard import Shard

log = logging.getLogger("canopy")

Decode = Callable[[bytes], Any]  # a picture's bytes to uint8[height, width, 3]


class BadRecordError(Exception):
    """What is wrong with a record, as the end of a sentence."""


def naming(
    elements: Iterable[Any], shards: Sequence[Shard], classes: int, decode: Decode | None = None
) -> Iterator[Any]:
    """Hands on what a `tf.data.Dataset` gives, and says why where it fails: names the bad record, if one is.

    Args:
        elements: the data set.
        shards: that it reads.
        classes: size of the vocabulary.
        decode: raises `tf.errors.OpError` for a picture that cannot be decoded; None: nobody decodes.

    Raises:
        UserError: names the shard and the record at which reading failed, or which shard must not be read.
        TryAgainError: where a storage does not give them for a reason that may pass.
    """
    import tensorflow as tf

    from trainer.files import TRANSIENT, refusal

    kinds = (
        tf.errors.DataLossError,  # a checksum differs, or the file ends within a record
        tf.errors.FailedPreconditionError,  # fewer records than there should be
        tf.errors.InvalidArgumentError,  # a feature or a picture
        tf.errors.NotFoundError,
        UnicodeDecodeError,  # TensorFlow quotes a record that is no Example, and Python chokes on it
    )
    each = iter(elements)
    while True:
        try:
            element = next(each)
        except StopIteration:
            return
        except kinds as error:
            log.warning("a record cannot be read: looking for it")
            said = first(shards, classes, decode)
            if said is None:
                raise
            raise UserError(said) from error
        except (*TRANSIENT, tf.errors.PermissionDeniedError) as error:
            raise refusal(f"a shard cannot be read ({_plain(error)})", error) from error
        yield element


def first(shards: Sequence[Shard], classes: int, decode: Decode | None = None) -> str | None:
    """Says what is wrong with the first bad record of `shards`, in their order; None where all are sound.

    Args:
        shards: to read whole.
        classes: size of the vocabulary; 0: what the records hold is not looked at.
        decode: see `naming`.

    Raises:
        UserError, TryAgainError: where a local shard cannot be read.
    """
    with Meter("looking for the bad record", sum(shard.records for shard in shards), "records") as meter:
        for shard in shards:
            said = _first_of(shard, classes, decode, meter)
            if said is not None:
                return said
    return None


def _first_of(shard: Shard, classes: int, decode: Decode | None, meter: Meter) -> str | None:
    number = 0
    try:
        with closing(_open(shard.path)) as file:
            for data in _records(file):
                if number >= shard.records:
                    return (
                        f"{shard.path} holds more than the {shard.records} records that canopy.json promises"
                    )
                if classes:
                    _look_into(data, classes, decode)
                number += 1
                meter.add(1)
    except BadRecordError as error:
        return f"{shard.path}: record {number} of {shard.records}, counted from 0, {error}"
    except FileNotFoundError:
        return f"{shard.path} is missing: canopy.json promises {shard.records} records in it"
    except OSError as error:
        raise told(f"{shard.path} cannot be read ({error.strerror or error})", error) from error
    if number < shard.records:
        return (
            f"{shard.path} ends before record {number}, counted from 0: canopy.json promises "
            f"{shard.records} records"
        )
    return None


def _open(path: str) -> Any:
    if "://" not in path:
        return open(path, "rb")  # noqa: PTH123
    import tensorflow as tf

    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(path)
    return tf.io.gfile.GFile(path, "rb")


def _records(file: IO[bytes]) -> Iterator[bytes]:
    """Each record's data; raises `BadRecordError` for what TensorFlow's reader refuses."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    while head := file.read(LENGTH.size + CHECKSUM.size):
        if len(head) < LENGTH.size + CHECKSUM.size:
            raise BadRecordError("is cut off")
        if CHECKSUM.unpack_from(head, LENGTH.size)[0] != masked_crc(head[: LENGTH.size]):
            raise BadRecordError("is corrupt: the checksum of its length differs")
        (length,) = LENGTH.unpack_from(head)
        if length > size:  # no memory holds what it may say
            raise BadRecordError("is cut off")
        data = file.read(length + CHECKSUM.size)
        if len(data) < length + CHECKSUM.size:
            raise BadRecordError("is cut off")
        if CHECKSUM.unpack_from(data, length)[0] != masked_crc(data[:length]):
            raise BadRecordError("is corrupt: its checksum differs")
        yield data[:length]


def _look_into(data: bytes, classes: int, decode: Decode | None) -> None:
    """Raises `BadRecordError` where an Example is not what the contract says."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        feature = tf.train.Example.FromString(data).features.feature
    except DecodeError as error:
        raise BadRecordError("is no tf.train.Example") from error
    for key in (contract.KEY_FILENAME, contract.KEY_ENCODED):
        if len(feature[key].bytes_list.value) != 1:
            raise BadRecordError(f"lacks {key}")
    found = len(feature[contract.KEY_MULTI_HOT].int64_list.value)
    if found != classes:
        raise BadRecordError(
            f"has {found} numbers in {contract.KEY_MULTI_HOT}, and there are {classes} classes"
        )
    sides = [list(feature[key].int64_list.value) for key in (contract.KEY_HEIGHT, contract.KEY_WIDTH)]
    if decode is not None:
        name = feature[contract.KEY_FILENAME].bytes_list.value[0].decode("utf-8", "replace")
        try:
            shape = decode(feature[contract.KEY_ENCODED].bytes_list.value[0]).shape
        except tf.errors.OpError as error:
            raise BadRecordError(
                f"({name}) holds a picture that cannot be decoded ({_plain(error)})"
            ) from error
        if sides != [[shape[0]], [shape[1]]]:
            raise BadRecordError(
                f"({name}) holds a picture of {shape[0]} x {shape[1]} pixels, and {contract.KEY_HEIGHT} and "
                f"{contract.KEY_WIDTH} say otherwise"
            )


def _plain(error: Exception) -> str:
    """What TensorFlow says, without the names of the operations in which it happened."""
    return str(error).split("[Op:")[0].split("}} ")[-1].strip()
