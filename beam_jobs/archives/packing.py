"""Which archives can be read in place, and what unpacks the others; what unpacks a CSV.

Promises: what may hold images and has no index to read by is refused with the command that unpacks it, as a
shell takes it, and never passed over: nobody would miss the images before the model is bad. The name tells
what a file is, of a tar its first bytes do, too.
"""

from __future__ import annotations

import shlex

from beam_jobs import storage
from canopy.cli import UserError

# By the ending of a file's name, what unpacks it.
UNPACK = {
    ".tar.gz": "tar -xzf", ".tgz": "tar -xzf", ".tar.xz": "tar -xJf", ".txz": "tar -xJf",
    ".tar.bz2": "tar -xjf", ".tbz2": "tar -xjf", ".tbz": "tar -xjf",
    ".tar.zst": "tar --zstd -xf", ".tzst": "tar --zstd -xf", ".tar.lz4": "tar -I lz4 -xf",
    ".tar.lzma": "tar --lzma -xf", ".tar.lz": "tar --lzip -xf", ".tar.z": "tar -xZf",
    ".7z": "7z x", ".rar": "unrar x", ".gz": "gunzip -k",
}  # fmt: skip
PACKED = tuple(UNPACK)
# How a tar begins that is packed, whatever its name, and the ending by which `UNPACK` knows it.
MAGIC = {b"\x1f\x8b": ".tar.gz", b"BZh": ".tar.bz2", b"\xfd7zXZ": ".tar.xz", b"\x28\xb5\x2f\xfd": ".tar.zst"}
# How a packed CSV begins, and what unpacks it, whatever its name, to the screen.
OF_CSV = {b"PK\3\4": "unzip -p", b"\x1f\x8b": "gunzip -c"}
CSV_BYTES = max(map(len, OF_CSV))


def kind(path: str) -> str | None:
    """`zip`, `tar` or None, by the ending of the file's name."""
    ending = path.lower().rpartition(".")[2]
    return ending if ending in ("zip", "tar") else None


def refuse(path: str) -> None:
    """Raises `UserError`, with the command that unpacks it, for an archive that has no index to read by."""
    if (ending := _packed(path)) is not None:
        inner = storage.split(path)[1][: -len(ending)]  # of Kaggle's test-jpg.tar.7z a tar
        raise _not_in_place(path, UNPACK[ending], inner if kind(inner) else "the folder")


def refuse_within(path: str, member: str) -> None:
    """Raises `UserError` where an archive's member is an archive itself, with what unpacks the outer one."""
    if kind(member) or _packed(member):
        command = "unzip" if kind(path) == "zip" else "tar -xf"
        raise _not_in_place(path, command, what=f"{path} holds {member}, which")


def refuse_tar(path: str) -> None:
    """Raises `UserError` for what is a tar by its name alone and packed by its first bytes."""
    if kind(path) == "tar":
        start = storage.read_range(path, 0, max(map(len, MAGIC)))
        for magic, ending in MAGIC.items():
            if start.startswith(magic):
                raise _not_in_place(path, UNPACK[ending])


def refuse_csv(path: str, start: bytes) -> None:
    """Refuses a CSV that is packed, as Kaggle hands them out.

    Args:
        path: of the file.
        start: its first `CSV_BYTES`, or more.

    Raises:
        UserError: with the command that unpacks it.
    """
    for magic, command in OF_CSV.items():
        if start.startswith(magic):
            name = storage.split(path)[1]
            packed, plain = shlex.quote(name), shlex.quote(f"{name}.csv")
            raise UserError(f"{path} is packed; unpack it with `{command} {packed} > {plain}`")


def _packed(path: str) -> str | None:
    """The ending by which `UNPACK` knows it, if it does."""
    name = path.lower()
    if not name.endswith(PACKED):  # all at once: listing asks it of millions
        return None
    return next(ending for ending in PACKED if name.endswith(ending))


def _not_in_place(path: str, command: str, result: str = "the folder", what: str = "") -> UserError:
    name, what = shlex.quote(storage.split(path)[1]), what or path
    return UserError(
        f"--images: {what} cannot be read in place; unpack it with `{command} {name}` and name {result}"
    )
