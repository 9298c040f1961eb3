"""Which archives can be read, and what unpacks the others.

Promises: what may hold images and cannot be read is refused with the command that unpacks it, as a shell
takes it, and never passed over: nobody would miss the images before the model is bad. The name tells what a
file is.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Collection

from beam_jobs import storage
from canopy.cli import UserError

# How a tar's name ends; packed by these, it is read through a plain copy.
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst")
# By the ending of another file's name, what unpacks it.
UNPACK = {
    ".tar.lz4": "tar -I lz4 -xf", ".tar.lzma": "tar --lzma -xf", ".tar.lz": "tar --lzip -xf",
    ".tar.z": "tar -xZf", ".7z": "7z x", ".rar": "unrar x", ".gz": "gunzip -k",
    ".7z.001": "7z x", ".zip.001": "7z x",  # the first part of several, which stands for all
}  # fmt: skip
PACKED = tuple(UNPACK)


def kind(path: str) -> str | None:
    """`zip`, `tar` or None, by the ending of the file's name."""
    name = path.lower()
    if name.endswith(".zip"):
        return "zip"
    return "tar" if name.endswith(TARS) else None


def split(path: str) -> tuple[str, str]:
    """Parts `archive.zip/folder` into the archive and what is named within it.

    Returns:
        The archive's path and the other, as `normal` has it; of any other path itself and "".
    """
    at = 0
    while (at := path.find("/", at + 1)) > 0:
        archive = path[:at]
        if kind(archive) and storage.is_file(archive):
            return archive, normal(path[at + 1 :])
    return path, ""


def normal(member: str) -> str:
    """A path within an archive in its one spelling, relative and with slashes; "" for the archive's top."""
    path = posixpath.normpath(member.replace("\\", "/")).lstrip("/")
    return "" if path == "." else path


def lies_in(folders: Collection[str], member: str) -> bool:
    """Whether a member is one of some files or in one of some folders, as `normal` has them; none the top."""
    path = normal(member)
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def refuse(path: str) -> None:
    """Raises `UserError`, with the command that unpacks it, for an archive that cannot be read."""
    if (ending := _packed(path)) is not None:
        inner = storage.split(path)[1][: -len(ending)]  # of Kaggle's test-jpg.tar.7z a tar
        raise unreadable(path, UNPACK[ending], inner if kind(inner) else "the folder")


def refuse_within(path: str, member: str) -> None:
    """Raises `UserError` where an archive's member is an archive itself, with what unpacks the outer one."""
    if kind(member) or _packed(member):
        command = "unzip" if kind(path) == "zip" else "tar -xf"
        raise unreadable(path, command, what=f"{path} holds {member}, which")


def _packed(path: str) -> str | None:
    """The ending by which `UNPACK` knows it, if it does."""
    name = path.lower()
    if not name.endswith(PACKED):  # all at once: listing asks it of millions
        return None
    return next(ending for ending in PACKED if name.endswith(ending))


def unreadable(path: str, command: str, result: str = "the folder", what: str = "") -> UserError:
    """What refuses an archive.

    Args:
        path: its own.
        command: what unpacks it, before its name.
        result: what that makes, to be named in its stead.
        what: begins the sentence; the path, unless it is given.
    """
    name, what = shlex.quote(storage.split(path)[1]), what or path
    return UserError(
        f"--images: {what} cannot be read as it is; unpack it with `{command} {name}` and name {result}"
    )
