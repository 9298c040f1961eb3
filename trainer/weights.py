"""ImageNet weights for the keras backbone: `python -m trainer.weights` fetches them and prints the path.

Promises: a file in the cache is whole and HDF5 (it is renamed into place), several processes may ask at
once, and where there is no way to the network the answer is one sentence within seconds.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import sys
import threading
import urllib.request
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from canopy import cli
from canopy.cli import UserError
from canopy.transient import told

# tf_keras.applications.mobilenet_v2.BASE_WEIGHT_PATH; alphas and sizes are those published there.
BASE_URL = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
SIZES = (96, 128, 160, 192, 224)
TIMEOUT_SECONDS = 20.0
# Where a policy drops packets nobody ever says no, and a name may have a dozen addresses to try.
REACH_SECONDS, CONNECT_SECONDS = 10.0, 2.0
PLACE, NONE = "CANOPY_WEIGHTS", "none"  # a variable that names a file, a folder, or says that there are none
FOLDER = "/data/weights"  # where a cluster's volume may hold them
NONE_FOUND = (
    "--weights auto found no ImageNet weights and cannot fetch them: the backbone starts at random and will "
    "need many more epochs (name a file with --weights or CANOPY_WEIGHTS)"
)
HDF5 = b"\x89HDF\r\n\x1a\n"  # what such a file begins with: HDF5 File Format Specification, III.A


def file_name(alpha: float, image_size: int) -> str:
    """The published file for this width; the largest size not above `image_size` fits best.

    Raises:
        UserError: where no ImageNet weights of this width were published.
    """
    if alpha not in ALPHAS:
        raise UserError(
            f"there are no ImageNet weights for --alpha {alpha}: use one of {ALPHAS}, or --weights none"
        )
    size = max((s for s in SIZES if s <= image_size), default=SIZES[0])
    return f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}_no_top.h5"


def fetch(alpha: float, image_size: int) -> Path:
    """Returns the path of the weights, downloading them where Keras' own cache lacks them.

    Args:
        alpha: width multiplier.
        image_size: side of the images, pixels.

    Raises:
        UserError: where the file cannot be fetched.
    """
    name = file_name(alpha, image_size)
    try:
        folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
        path = folder / name
        if path.is_file() and _is_hdf5(path):
            return path
        _reach(BASE_URL)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{path.name}.{uuid.uuid4().hex}"
        try:
            with (
                urllib.request.urlopen(BASE_URL + name, timeout=TIMEOUT_SECONDS) as answer,
                part.open("xb") as file,  # no temporary file, which nobody else may read: caches are shared
            ):
                shutil.copyfileobj(answer, file)
            _check_whole(part, answer.headers.get("Content-Length"))
            if not _is_hdf5(part):
                raise OSError("what came is no HDF5 file, but perhaps a proxy's page")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, http.client.HTTPException, RuntimeError, UnicodeError) as error:
        # RuntimeError: nobody knows a home for this user, as for a number that a container was given.
        # UnicodeError: a proxy's name is none that a host can have.
        raise UserError(
            f"the ImageNet weights cannot be fetched ({error}): name a file, or none, with --weights "
            f"(the file is {BASE_URL}{name})"
        ) from error
    return path


def resolve(choice: str, alpha: float, image_size: int) -> str | None:
    """Turns `--weights` into a file, or None for random weights.

    Args:
        choice: imagenet, auto, none or a file.
        alpha: width multiplier.
        image_size: side of the images, pixels.

    Raises:
        UserError: where there is no such file and none can be fetched; never for auto.
        TryAgainError: where a disk does not give a file for a reason that may pass; likewise.
    """
    if choice == NONE or (choice == "auto" and os.environ.get(PLACE) == NONE):
        return None
    if choice in ("imagenet", "auto"):
        try:
            return str(_at_hand(alpha, image_size) or fetch(alpha, image_size))
        except UserError:
            if choice == "imagenet":
                raise
            return None
    try:
        if not Path(choice).is_file():
            raise UserError(f"--weights {choice}: there is no such file")
        if not _is_hdf5(Path(choice)):
            raise UserError(f"--weights {choice} is no HDF5 file, as Keras' weights are")
    except OSError as error:
        raise told(f"--weights {choice} cannot be read ({error.strerror})", error) from error
    return choice


def look_once(starts: Collection[tuple[str, float, int]]) -> None:
    """Resolves what processes that this one starts would each resolve for themselves, at every start.

    Where `auto` finds none they are told so: to look again can take seconds, and there may be many of them.

    Args:
        starts: what `resolve` takes.

    Raises:
        UserError: as `resolve`.
    """
    found = [resolve(*start) for start in starts]
    if not any(found) and {choice for choice, _, _ in starts} == {"auto"}:
        os.environ[PLACE] = NONE


def _reach(url: str) -> None:
    """Raises OSError where there is no way to an address, in `REACH_SECONDS` at most."""
    parts = urlsplit(url)
    if parts.scheme in urllib.request.getproxies():
        return  # a proxy knows the way, and this machine may not
    address = parts.hostname or "", parts.port or 443  # of HTTPS
    over, failed = threading.Event(), list[OSError]()

    def connect() -> None:
        try:
            socket.create_connection(address, CONNECT_SECONDS).close()
        except OSError as error:
            failed.append(error)
        over.set()

    threading.Thread(target=connect, daemon=True).start()
    if not over.wait(REACH_SECONDS):
        raise TimeoutError(f"{parts.hostname} does not answer")
    if failed:
        raise failed[0]


def _at_hand(alpha: float, image_size: int) -> Path | None:
    """A file that lies where CANOPY_WEIGHTS says, or in /data/weights: of this width, any published size."""
    named = os.environ.get(PLACE, "")
    if named == NONE:
        return None
    sizes = (image_size, *reversed(SIZES)) if alpha in ALPHAS else ()
    for place in filter(None, (named, FOLDER)):
        for path in (Path(place), *(Path(place, file_name(alpha, size)) for size in sizes)):
            with contextlib.suppress(OSError):  # it may not be looked at
                if path.is_file() and _is_hdf5(path):
                    return path
    return None


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(HDF5)) == HDF5


def _check_whole(path: Path, announced: str | None) -> None:
    """Raises OSError for a download that ended early: reading to the end does not notice."""
    size = path.stat().st_size
    if announced is not None and announced.strip() != str(size):  # it may be no number at all
        raise OSError(f"{size} of {announced} bytes came")


def main(argv: Sequence[str] | None = None) -> int:
    """Fetches the weights and prints where they lie."""

    def command() -> None:
        parser = cli.Parser("python -m trainer.weights", "Fetches ImageNet weights and prints their path.")
        parser.add_argument("--alpha", type=float, default=1.0, help="width multiplier")
        parser.add_argument("--image_size", type=int, default=224, help="side of the images, pixels")
        flags = parser.parse_args(argv)
        print(fetch(flags.alpha, flags.image_size))

    return cli.run(command)


if __name__ == "__main__":
    sys.exit(main())
