"""The markers of a JPEG: what decoders disagree on is mended there, and no coded bit is touched.

Promises: a header's body, a thumbnail in it included, is never taken for a marker; a file that needs nothing
comes back as it is; any bytes at all are walked through in one pass, without an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from canopy.contract import ADOBE_MARKER

EOI, SOS = b"\xff\xd9", b"\xff\xda"  # end of image, start of scan
# A header: no stuffed zero of a scan's data, no fill byte, and not TEM, RSTn or SOI, which have no length.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")


def headers(data: bytes) -> Iterator[tuple[int, int]]:
    """The markers up to the end of image, between scans too: each one's code, and where its length stands.

    Walks as libjpeg's `next_marker` does: whatever is not 0xFF is skipped, fill bytes and a scan's data too.
    """
    position = 2
    while found := _MARKER.search(data, position):
        position = found.end()
        marker = data[position - 1]
        yield marker, position
        if marker == EOI[1]:
            return
        position += _length(data, position)


def _length(data: bytes, at: int) -> int:
    """The bytes of a marker's length and body, as its length says, whether they are there or not."""
    return max(int.from_bytes(data[at : at + 2], "big"), 2)


def count_scans(data: bytes) -> int:
    """How many scans a file has up to its end of image: a pass over all its pixels each."""
    return sum(marker == SOS[1] for marker, _ in headers(data))


def has_adobe_marker(data: bytes) -> bool:
    """Says whether libjpeg would see an Adobe APP14 marker before the first scan."""
    for marker, at in headers(data):
        if marker == SOS[1]:
            break
        if marker == 0xEE:
            body = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
            if len(body) >= 12 and body[:5] == b"Adobe":
                return True
    return False


def mend(data: bytes, components: int) -> bytes:
    """Makes every decoder read a JPEG that Pillow reads, and read it as Pillow does.

    Args:
        data: a whole JPEG file.
        components: how many its frame has.

    Returns:
        `data` itself where nothing is missing; else with an Adobe marker, an end, or both put in.
    """
    return with_end(with_adobe_marker(data, components))


def with_adobe_marker(data: bytes, components: int) -> bytes:
    """Puts an Adobe marker into a 4-component JPEG that lacks one; any other comes back as it is."""
    if components == 4 and not has_adobe_marker(data):
        return data[:2] + ADOBE_MARKER + data[2:]
    return data


def with_end(data: bytes) -> bytes:
    """Puts an end behind a JPEG that has none after its first scan; any other comes back as it is.

    Pillow stops at the last pixel, as in a file whose tail is zeros; TensorFlow wants the end as well. A
    marker whose length goes beyond the file is left out: it would take the end for its own body.
    """
    scanned = False
    for marker, at in headers(data):
        if marker == EOI[1]:
            return data
        if at + _length(data, at) > len(data):
            return data[: at - 2] + EOI if scanned else data
        scanned = scanned or marker == SOS[1]
    return data + EOI if scanned else data
