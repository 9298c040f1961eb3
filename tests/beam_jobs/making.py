"""Pictures and archives that the tests make themselves, and what they read of a finished job."""

from __future__ import annotations

import io
import json
import random
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import google_crc32c
import numpy as np
import pytest
import zstandard
from PIL import Image

from beam_jobs import images
from beam_jobs.archives.methods import ZSTANDARD
from beam_jobs.listing import list_images
from beam_jobs.sources import Reader

TAGS = ("agriculture", "clear", "primary", "water")

names_of_any_bytes = pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes names in UTF-8 alone")


def writes_gnu_tars() -> bool:
    """Whether the system's tar is GNU's: macOS has BSD's, of other flags and formats."""
    if not shutil.which("tar"):
        return False
    return b"GNU" in subprocess.run(["tar", "--version"], capture_output=True, check=False).stdout


def noise(seed: int, height: int = 24, width: int = 32, channels: int = 3) -> np.ndarray:
    """Smooth random pictures: JPEG keeps them well."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, channels), np.uint8)
    planes = [
        np.asarray(Image.fromarray(coarse[:, :, c]).resize((width, height), Image.Resampling.BILINEAR))
        for c in range(channels)
    ]
    return np.stack(planes, axis=-1)


def jpeg(pixels: np.ndarray, mode: str = "RGB", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels if mode != "L" else pixels[:, :, 0], mode).save(
        out, "JPEG", **{"quality": 90, **options}
    )
    return out.getvalue()


def planet(pixels: np.ndarray, fourth: int = 255, **options: Any) -> bytes:
    """A chip as Planet's archive holds it: R, G, B and 255 in four components, with no Adobe marker."""
    plane = np.full((*pixels.shape[:2], 1), fourth, np.uint8)
    # Pillow inverts what it writes as CMYK, so the planes are inverted beforehand.
    data = jpeg(255 - np.concatenate([pixels[:, :, :3], plane], axis=-1), "CMYK", subsampling=0, **options)
    at = data.index(b"\xff\xee")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    return data[:at] + data[at + 2 + length :]


def read_records(path: Path) -> list[bytes]:
    """A TFRecord file's records, each checksum checked."""
    data = path.read_bytes()
    records, at = [], 0

    def masked(part: bytes) -> int:
        crc = google_crc32c.value(part)
        return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    while at < len(data):
        (length,) = struct.unpack("<Q", data[at : at + 8])
        assert struct.unpack("<I", data[at + 8 : at + 12])[0] == masked(data[at : at + 8])
        body = data[at + 12 : at + 12 + length]
        assert len(body) == length
        assert struct.unpack("<I", data[at + 12 + length : at + 16 + length])[0] == masked(body)
        records.append(body)
        at += 16 + length
    return records


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fails where the block takes longer: a decoder that hangs must not hang the tests."""

    def late(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Archive:
    """An archive in the making: pictures in a folder, rows of a CSV."""

    root: Path
    rows: list[tuple[str, str]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / "train-jpg"

    @property
    def labels(self) -> Path:
        return self.root / "train_v2.csv"

    def put(
        self, name: str, data: bytes, tags: str | None = "clear primary", folder: str = "train-jpg"
    ) -> Path:
        path = self.root / folder / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if tags is not None:
            self.rows.append((name, tags))
        self.write_labels()
        return path

    def fill(self, count: int, seed: int = 0) -> Archive:
        rng = random.Random(seed)
        for i in range(count):
            tags = " ".join(rng.sample(TAGS, rng.randint(1, 3)))
            self.put(f"train_{i}", planet(noise(seed * 1000 + i)), tags)
        return self

    def write_labels(self) -> None:
        lines = ["image_name,tags", *(f'"{name}",{tags}' for name, tags in self.rows)]
        self.labels.write_text("\n".join(lines) + "\n", encoding="utf-8")


@dataclass
class Done:
    """A finished job."""

    code: int
    folder: Path
    out: str
    err: str

    @property
    def canopy(self) -> Any:
        return json.loads((self.folder / "canopy.json").read_text())

    @property
    def rejects(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in (self.folder / "rejects.jsonl").read_text().splitlines()]

    @property
    def shards(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.glob("*.tfrecord-*"))}

    @property
    def examples(self) -> list[dict[str, Any]]:
        """All records, decoded, in the shards' order."""
        from beam_jobs.records import Example

        result = []
        for path in sorted(self.folder.glob("*.tfrecord-*")):
            for data in read_records(path):
                feature = Example.FromString(data).features.feature
                row: dict[str, Any] = {"shard": path.name}
                for key, value in feature.items():
                    kind = value.WhichOneof("kind")
                    row[key] = list(getattr(value, kind).value) if kind else []
                result.append(row)
        return result

    @property
    def names(self) -> list[str]:
        return [row["image/filename"][0].decode() for row in self.examples]


Run = Callable[..., Done]
Shown = tuple[str, int | None, int]  # what was done, to how many in the end if that is known, of how many


def pillow(data: bytes) -> np.ndarray | None:
    """The truth: what Pillow's convert("RGB") gives, or None where Pillow raises."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:
        return None


def ours(data: bytes) -> np.ndarray | None:
    """What Canopy gives, or None where it rejects, with a reason and a detail."""
    try:
        return images.to_rgb(data)
    except images.RejectedImage as rejected:
        of_bytes = (images.EMPTY, images.NOT_JPEG, images.UNDECODABLE, images.TOO_LARGE)
        if rejected.reason not in of_bytes or not rejected.detail:
            raise
        return None


def truth(data: bytes) -> np.ndarray:
    """Pillow's pixels of a JPEG that it reads."""
    pixels = pillow(data)
    assert pixels is not None
    return pixels


def tar_of(
    path: Path,
    members: dict[str, bytes],
    format: int = tarfile.GNU_FORMAT,
    links: dict[str, str] | None = None,
) -> tuple[Path, list[int]]:
    """Makes a tar; also returns where each member's header is, and behind them the end's."""
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.LNKTYPE, target
            archive.addfile(link)
        end = archive.offset
    with tarfile.open(path) as archive:
        return path, [*(info.offset_data - 512 for info in archive), end]


def zip_of(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    if method == ZSTANDARD:
        return zip_by_hand(path, {name: (data, zstd(data)) for name, data in members.items()}, method)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name) if method == zipfile.ZIP_STORED else name, data)
    return path


def zip_by_hand(path: Path, members: dict[str, tuple[bytes, bytes]], method: int) -> Path:
    """Makes a zip of members that are packed already, by whatever method: APPNOTE.TXT, 4.3.

    Args:
        path: of the zip.
        members: by their names, the bytes of each, plain and packed.
        method: its number.
    """
    content = index = b""
    for name, (data, packed) in members.items():
        # The version that reads it, flags, method, time and day, checksum, lengths: alike in both places.
        shared = struct.pack(
            "<HHHHHIIIHH", 63, 0, method, 0, 33, zlib.crc32(data), len(packed), len(data), len(name), 0
        )
        index += b"PK\x01\x02" + struct.pack("<H", 63) + shared
        index += struct.pack("<HHHII", 0, 0, 0, 0, len(content)) + name.encode()
        content += b"PK\x03\x04" + shared + name.encode() + packed
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(index), len(content), 0)
    path.write_bytes(content + index + b"PK\x05\x06" + end)
    return path


def zstd(data: bytes) -> bytes:
    """What `zstd` makes of it: one frame with a checksum."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def pack(path: Path, members: dict[str, bytes]) -> None:
    """Makes a zip or a tar, as the name ends."""
    if path.suffix == ".zip":
        zip_of(path, members)
    else:
        tar_of(path, members)


def read_all(*patterns: object) -> dict[str, bytes]:
    """Each image's bytes, by its name."""
    with Reader() as reader:
        return {source.name: reader.read(source) for source in list_images(map(str, patterns))}
