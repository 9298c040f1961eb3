"""Files on this machine and objects in a store, with one face.

Promises: gs:// goes through Google's client, s3:// through Amazon's, any other path with `://` in it through
Beam's FileSystems, the rest through the operating system; a file is either whole under its name
or not there; whatever the store refuses becomes one clear sentence (`UserError`, or `TryAgainError` where
that may pass).
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from beam_jobs.stores import gcs, s3
from canopy import shared_disk
from canopy.cli import TryAgainError, UserError, check_place, first_line
from canopy.transient import is_transient

PART = ".part"  # ends the name of a file that is still being written
# What some file systems answer to the syncing of a folder: nothing is amiss with the rest.
SYNCS_NO_FOLDER = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS)

Counted = Callable[[Iterable[str]], Iterable[str]]  # such as `Meter.counted`: gives what it is given


def is_remote(path: str) -> bool:
    """Says whether `path` is an address such as gs://bucket/object."""
    return "://" in path


def store(path: str) -> ModuleType | None:
    """The module that serves an object store's addresses, or None for any other path."""
    return next((module for module in (gcs, s3) if path.startswith(module.SCHEME)), None)


def is_beams(path: str) -> bool:
    """Says whether `path` is read and written through Beam's file systems, such as hdfs://host/file."""
    return is_remote(path) and store(path) is None


def join(folder: str, *names: str) -> str:
    """Joins a folder and names below it; the empty folder is the working one."""
    return "/".join([folder.rstrip("/"), *names] if folder else names)


def absolute(path: str) -> str:
    """A local path from the root, since workers may run in another folder; an address as it is.

    Raises:
        UserError: it is an address of nothing.
    """
    check_place(path)
    return path if is_remote(path) else os.path.abspath(path)  # noqa: PTH100 - keeps links as they are


def split(path: str) -> tuple[str, str]:
    """The folder and the file name of a path or an address."""
    if not is_remote(path):
        return os.path.split(path)
    # Not one slash more: in a store `in//a.jpg` and `in/a.jpg` are two objects.
    folder, _, name = path.rpartition("/")
    return folder, name


def _file_systems() -> Any:
    from apache_beam.io.filesystems import FileSystems

    return FileSystems


@contextlib.contextmanager
def explained(path: str, doing: str) -> Iterator[None]:
    """Turns what a file system raises about `path` into a `UserError` that says what could not be done.

    What another try, or another pod with a new mount, may get over becomes a `TryAgainError`.

    Args:
        path: what is being worked on.
        doing: a verb, as in "read", "write", "list".
    """
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"cannot {doing} {path}: it does not exist") from error
    except NotADirectoryError as error:
        raise UserError(f"cannot {doing} {path}: a part of its path is a file") from error
    except PermissionError as error:
        raise UserError(f"cannot {doing} {path}: access is denied") from error
    except OSError as error:
        if is_transient(error):
            raise TryAgainError(f"cannot {doing} {path}: {error.strerror}") from error
        if is_remote(path):
            raise UserError(f"cannot {doing} {path}: {first_line(error)}") from error
        raise UserError(f"cannot {doing} {path}: {error.strerror or error}") from error
    except ValueError as error:
        if not is_remote(path):
            raise
        said = first_line(error)
        if said.startswith("Unable to get filesystem"):  # Beam then advises to install Google's
            scheme = path.partition("://")[0]
            said = (
                f"no file system is known for {scheme}://, and a path of this machine stands without a scheme"
            )
        raise UserError(f"cannot {doing} {path}: {said}") from error


def exists(path: str) -> bool:
    """Says whether a file, folder or object of that name is there."""
    with explained(path, "look for"):
        if (objects := store(path)) is not None:
            return bool(objects.exists(path))
        if is_remote(path):
            return bool(_file_systems().exists(path))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            shared_disk.asked(path, os.lstat)
            return True
        return False


def is_still_there(path: str) -> bool:
    """As `exists`, of a file that another machine may have removed since."""
    if is_remote(path):
        return exists(path)
    with explained(path, "look for"):
        return shared_disk.is_still_there(path)


def is_file(path: str) -> bool:
    """Says whether there is a file of exactly that name; in a store folders are but parts of names."""
    if not is_remote(path):
        with explained(path, "look for"):
            return Path(path).is_file()
    return exists(path) if store(path) is not None else bool(match(glob.escape(path)))


def open_read(path: str) -> IO[bytes]:
    """Opens for reading, seekable."""
    with explained(path, "read"):
        if (objects := store(path)) is not None:
            whole: IO[bytes] = objects.open_read(path)
            return whole
        if is_remote(path):
            opened: IO[bytes] = _file_systems().open(path, compression_type="uncompressed")
            return opened
        return shared_disk.asked(path, lambda path: open(path, "rb"))  # noqa: PTH123


def read_bytes(path: str) -> bytes:
    """A whole file's content."""
    if (objects := store(path)) is not None:
        with explained(path, "read"):
            return bytes(objects.read(path))
    with open_read(path) as file, explained(path, "read"):
        return file.read()


@contextlib.contextmanager
def open_write(path: str) -> Iterator[IO[bytes]]:
    """Writes a file that appears under its name whole, when the block ends without an exception.

    On this machine that takes a second name, a flush to the disk and a rename; a store's upload is atomic.
    """
    with explained(path, "write"):
        if (objects := store(path)) is not None:
            with objects.open_write(path) as upload:
                yield upload
            return
        if is_remote(path):
            file = _file_systems().create(path, "application/octet-stream", "uncompressed")
            try:
                yield file
                file.close()
            except BaseException:
                _abandon(file, path)
                raise
            return
        part = Path(path + PART)
        try:
            with part.open("wb") as local:
                yield local
                local.flush()
                os.fsync(local.fileno())
            part.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):  # it tells less than why
                part.unlink()
            raise


def _abandon(file: Any, path: str) -> None:
    """Takes half a file away: Beam's streams finish it however they end, once nobody holds them as well."""
    with contextlib.suppress(Exception):
        file.close()
    with contextlib.suppress(Exception):  # it may not have come to be there
        _file_systems().delete([path])


def size(path: str) -> int:
    """Bytes of a file; of an object by a request.

    Raises:
        OSError: there is no such file.
    """
    if (objects := store(path)) is not None:
        return int(objects.size(path))
    if is_remote(path):
        return int(_file_systems().match([path])[0].metadata_list[0].size_in_bytes)
    return Path(path).stat().st_size


def read_range(path: str, start: int, length: int) -> bytes:
    """A part of a file, shorter where the file ends within it."""
    with explained(path, "read"):
        if (objects := store(path)) is not None:
            return bytes(objects.read(path, start, length))
        with open_read(path) as file:
            file.seek(start)
            return file.read(length)


def read_at(handle: int, start: int, length: int) -> bytes:
    """A part of an open local file, shorter where the file ends; file systems may give it piece by piece."""
    data = os.pread(handle, length, start)
    while len(data) < length and (more := os.pread(handle, length - len(data), start + len(data))):
        data += more
    return data


def write_bytes(path: str, data: bytes) -> None:
    """Writes a whole file at once; see `open_write`."""
    with open_write(path) as file:
        file.write(data)


def sync_folder(folder: str) -> None:
    """Makes renames and removals in a local folder last through a power cut; nothing elsewhere."""
    if is_remote(folder):
        return
    with explained(folder, "write to"):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in SYNCS_NO_FOLDER:
                raise
        finally:
            os.close(handle)


def make_folder(folder: str) -> None:
    """Makes a local folder with its parents; a store has none."""
    if not is_remote(folder):
        with explained(folder, "make the folder"):
            Path(folder).mkdir(parents=True, exist_ok=True)


def list_files(folder: str) -> list[str]:
    """The names of the files directly in a folder, sorted; none where the folder is not there."""
    with explained(folder, "list"):
        if is_remote(folder):
            prefix = folder.rstrip("/") + "/"
            return sorted(path[len(prefix) :] for path in _match(glob.escape(prefix) + "*"))
        if not Path(folder).is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(folder) if not entry.is_dir())


def _match(pattern: str) -> Iterator[str]:
    """All but the empty objects by which consoles and mounts of stores show folders."""
    if (objects := store(pattern)) is not None:
        found = objects.match(pattern)
    else:
        found = (meta.path for meta in _file_systems().match([pattern])[0].metadata_list)
    yield from (path for path in found if not path.endswith("/"))


def match(pattern: str, counted: Counted = iter) -> list[str]:
    """The addresses that a pattern of a store matches, sorted; all pass through `counted` as they come."""
    with explained(pattern, "list"):
        return sorted(counted(_match(pattern)))


def below(folder: str, counted: Counted = iter) -> list[str]:
    """The addresses of all that is in a store's folder and the folders below it, as by `match`."""
    with explained(folder, "list"):
        return sorted(counted(_match(glob.escape(folder.rstrip("/")) + "/**")))


def delete(paths: Iterable[str]) -> None:
    """Removes files; one that is gone already is no mistake."""
    for path in paths:
        if not is_remote(path):
            with explained(path, "remove"):
                Path(path).unlink(missing_ok=True)
        elif (objects := store(path)) is not None:
            with explained(path, "remove"):
                objects.delete(path)
        elif exists(path):
            with explained(path, "remove"):
                _file_systems().delete([path])
