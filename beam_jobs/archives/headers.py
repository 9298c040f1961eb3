"""A tar whose headers are not trusted.

Promises: a member's headers are read up to a limit, whatever length they give: `tarfile` keeps each in
memory, and a packed tar of a few megabytes can hold gigabytes of them; one that it trips over is an archive's
fault.
"""

from __future__ import annotations

import tarfile
from typing import Any

MAX_BYTES = 16 << 20  # of a member's headers: its path takes hundreds, the holes of a sparse file some more


class Tar(tarfile.TarFile):
    """Raises `tarfile.ReadError` where Python's own would take all memory, or raise what nobody expects."""

    def next(self) -> tarfile.TarInfo | None:
        """The next member, None behind the last one."""
        plain: Any = self.fileobj
        start = self.offset
        self.fileobj = _Limited(plain)  # type: ignore[assignment]
        try:
            return super().next()
        except _TooLongError as error:
            raise tarfile.ReadError(f"over {MAX_BYTES:,} bytes of headers at byte {start:,}") from error
        except RecursionError as error:
            raise tarfile.ReadError(f"too many headers for one member at byte {start:,}") from error
        except IndexError as error:
            raise tarfile.ReadError(f"it is cut short within a header at byte {start:,}") from error
        finally:
            self.fileobj = plain


class _TooLongError(Exception):
    """More is asked for than headers may take."""


class _Limited:
    """As much of a file as one member's headers may take."""

    def __init__(self, file: Any) -> None:
        self._file, self._left = file, MAX_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> Any:
        """The next bytes."""
        self._left -= size
        if self._left < 0:
            raise _TooLongError
        return self._file.read(size)
