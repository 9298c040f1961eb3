"""CSV tables that commands write and every reader takes.

Promises: what is read again is what was written, whatever its first column holds.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence


def as_csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table's text, lines ended by a newline alone.

    Args:
        header: the columns' names.
        rows: of as many texts each; the first may be any, as the name of an image is.
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    # Before Python 3.13 a lone carriage return was not quoted, and no reader took it.
    quoting = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoting if "\r" in row[0] else writer).writerow(row)
    return out.getvalue()
