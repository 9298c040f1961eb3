"""How a zip's members are packed, and what unpacks them: Deflate, bzip2, LZMA, Zstandard.

Promises: no more is unpacked than is asked for; whatever a member's own bytes say, what looks back holds no
more than that, or than `zstd.WINDOW`; a table is a stream, and one that is cut short or does not fit its
checksum is an error, never a shorter one. The numbers are those of PKWARE's APPNOTE.TXT, 4.4.5.
"""

from __future__ import annotations

import bz2
import copy
import io
import lzma
import struct
import zipfile
import zlib
from typing import IO, Any, cast

import zstandard

from beam_jobs.archives import streams, zstd

STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
BZIP2, LZMA = zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA
ZSTANDARD = 93  # zipfile knows it from Python 3.14 on
READABLE = frozenset({STORED, DEFLATED, BZIP2, LZMA, ZSTANDARD})
OTHERS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 95: "xz", 98: "PPMd"}

# What a member begins with that LZMA has packed (APPNOTE.TXT, 5.8.8): the version of what packed it, how long
# the rest is, the three numbers of its model in one byte, the bytes it may look back.
LZMA_HEADER = struct.Struct("<2xHBI")
LZMA_MOST = 4  # of the first two numbers together, and of the third: what liblzma reads

# What these raise for what they read; bzip2 an OSError.
DAMAGED = (zlib.error, lzma.LZMAError, *zstd.ERRORS)


def name(method: int) -> str:
    """What people call a method that cannot be read here."""
    return OTHERS.get(method, f"method {method}")


def unpack(method: int, packed: bytes, most: int) -> bytes:
    """A member's first bytes.

    Args:
        method: one of `READABLE`.
        packed: all of it, as it is in the zip.
        most: how many bytes are wanted. Of LZMA there may be more than were packed, if more are wanted: its
            end need not be marked.

    Returns:
        Those bytes; fewer where it is cut short.

    Raises:
        zipfile.BadZipFile: it is damaged, with the words of what found it so.
    """
    if method == STORED or not most:  # zlib takes none for no limit
        return packed[:most]
    try:
        if method == DEFLATED:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
        return _opened(method, io.BytesIO(packed), most).read(most)
    except EOFError:
        return b""
    except (OSError, *DAMAGED) as error:
        raise zipfile.BadZipFile(str(error)) from error


def opened(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """A member as a stream of plain bytes, whose end is reached only if they fit the checksum."""
    if member.compress_type in (STORED, DEFLATED):
        return archive.open(member)
    return io.BufferedReader(_Checked(archive, member))


def packed_bytes(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """A member as it is in the zip."""
    # zipfile gives the bytes as they are of a member that is not packed, and checks what its index tells.
    plain = copy.copy(member)
    plain.compress_type, plain.file_size = STORED, member.compress_size
    del plain.CRC
    return archive.open(plain)


def _opened(method: int, packed: IO[bytes], size: int) -> IO[bytes]:
    """What unpacks a member; of more than `size` bytes LZMA's may be wrong."""
    if method == BZIP2:
        return bz2.BZ2File(packed)
    if method == LZMA:
        filters = [_lzma_filter(packed.read(LZMA_HEADER.size), size)]
        return lzma.LZMAFile(packed, format=lzma.FORMAT_RAW, filters=filters)
    reader = zstandard.ZstdDecompressor(max_window_size=zstd.WINDOW)
    # Not zstd.opened: that holds what a piece stands for, however little of it is wanted.
    return cast(IO[bytes], reader.stream_reader(packed, read_across_frames=True))


def _lzma_filter(header: bytes, size: int) -> dict[str, Any]:
    if len(header) < LZMA_HEADER.size:
        raise EOFError("it ends within its header")
    length, model, distance = LZMA_HEADER.unpack(header)
    model, lc = divmod(model, 9)
    pb, lp = divmod(model, 5)
    if length != LZMA_HEADER.size - 4 or lc + lp > LZMA_MOST or pb > LZMA_MOST:
        raise lzma.LZMAError("Invalid or unsupported options")
    # Nothing is farther back than the start: 4 GiB, which a header may ask for, are never needed.
    return {"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": min(distance, size)}


class _Checked(streams.Unpacked):
    """A member's plain bytes, looked through as they are read."""

    def __init__(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
        self._archive, self._member = archive, member
        super().__init__()

    def _rewind(self) -> None:
        packed = packed_bytes(self._archive, self._member)
        self._plain = _opened(self._member.compress_type, packed, self._member.file_size)
        self._crc = 0

    def _next(self, most: int) -> bytes:
        left = self._member.file_size - self._at
        data = self._plain.read(min(most, left))
        self._crc = zlib.crc32(data, self._crc)
        if len(data) == left and self._crc != self._member.CRC:
            raise zipfile.BadZipFile("its bytes do not fit the archive's checksum")
        if left and not data:
            raise EOFError("it ends before its last byte")
        return data
