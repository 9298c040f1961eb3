"""Files that a run writes, on a disk or in a store, and what it means that one refuses.

Promises: a file is written whole or not at all; a refusal that only the user can mend (no room, no right, no
such place) is told from one that another try, or another pod with a new mount, may well get over; of a disk
that several machines have mounted counts what is there, and not what this one remembers.

An NFS client takes names and sizes for what they were for up to a minute (nfs(5), acdirmax), and asks its
server when something is opened. So that is how a file is found, and its end is where no more can be read.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import tensorflow as tf

from canopy import shared_disk
from canopy.cli import TryAgainError, UserError
from canopy.transient import told

REFUSED = (OSError, tf.errors.OpError)  # what a full disk or a storage that says no raises
_READ_BYTES = 1 << 20

# What may pass. EIO is an UnknownError, as is what TensorFlow has no name for.
TRANSIENT = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnknownError,
)


def refusal(text: str, error: BaseException) -> UserError | TryAgainError:
    """The exception to raise where a storage refused.

    Args:
        text: the sentence for it.
        error: one of `REFUSED`.

    Returns:
        A `TryAgainError` where the refusal may pass: a server that is moved (ESTALE), a disk or a network
        that fails (EIO, ETIMEDOUT), a store that is busy.
    """
    if isinstance(error, OSError):
        return told(text, error)
    return TryAgainError(text) if isinstance(error, TRANSIENT) else UserError(text)


def make_folder(path: str) -> None:
    """Makes a folder where there are any: in a store an object's name makes its own.

    TensorFlow would ask such a store for the bucket itself, which takes a right that who may read and write
    objects need not have; and on a disk it takes one for made that another machine has removed.
    """
    if not is_in_store(path):
        Path(path.removeprefix("file://")).mkdir(parents=True, exist_ok=True)


def stand_for_folder(path: str) -> None:
    """Makes the object that stands for a folder in a store, for what makes folders and cannot be told not to.

    TensorFlow's writers of logs and models look upwards for a folder that is there, and above a folder in a
    bucket's root only the bucket is left to be asked for. This one asks for nothing above it.
    """
    if is_in_store(path):
        tf.io.gfile.mkdir(path)


def is_in_store(path: str) -> bool:
    """Whether a path is an object's, and no local file's."""
    return "://" in path and not path.startswith("file://")


def is_there(path: str) -> bool:
    """Whether a file or a folder is there, for whoever may have made or removed it."""
    if is_in_store(path):
        return bool(tf.io.gfile.exists(path))
    shared_disk.look_for(path)
    try:
        os.listdir(path.removeprefix("file://"))  # noqa: PTH208 (it is not known to be a folder)
    except NotADirectoryError:
        try:
            with tf.io.gfile.GFile(path, "rb") as file:
                file.read(1)
        except tf.errors.NotFoundError:
            return False
    except FileNotFoundError:
        return False
    return True


def read(path: str) -> bytes:
    """All that a file holds: TensorFlow alone would stop at the size that it is remembered to have."""
    with tf.io.gfile.GFile(path, "rb") as file:
        return b"".join(iter(lambda: file.read(_READ_BYTES), b""))


def delete(path: str) -> None:
    """Deletes a file, or a folder with all that is in it; nothing where another machine was faster.

    What a process of this machine has open, such as TensorBoard, may stay until it is closed, under a name
    that stands for no file of a run, and so may the folder that it is in.
    """
    try:
        if not is_there(path):
            return
        if tf.io.gfile.isdir(path):
            tf.io.gfile.rmtree(path)
        else:
            tf.io.gfile.remove(path)
    except tf.errors.NotFoundError:
        return
    except REFUSED:
        below = [name for _, _, names in os.walk(path) for name in names]
        if not below or not all(name.startswith(shared_disk.REMOVED) for name in below):
            raise


def write_text(path: str, text: str) -> None:
    """Writes a file whole or not at all; its folder is made. `path` may be local or gs://."""
    make_folder(path.rpartition("/")[0])
    part = f"{path}.tmp"
    try:
        with tf.io.gfile.GFile(part, "w") as file:
            file.write(text)
        tf.io.gfile.rename(part, path, overwrite=True)
    except BaseException:
        with contextlib.suppress(*REFUSED):
            tf.io.gfile.remove(part)
        raise
