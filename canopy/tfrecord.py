"""How a TFRecord file frames its records: preprocessing writes them, the trainer finds the one that is bad.

Promises: TensorFlow's own framing, without importing TensorFlow.

A frame is a uint64 length, the masked CRC-32C of those 8 bytes, the data, the masked CRC-32C of the data;
all little-endian (tensorflow/core/lib/io/record_writer.h).
"""

from __future__ import annotations

import struct

import google_crc32c

LENGTH = struct.Struct("<Q")
CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h, kMaskDelta


def masked_crc(data: bytes) -> int:
    """The checksum of some bytes as a frame holds it: CRC-32C, rotated by 15 bits, and a constant added."""
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
