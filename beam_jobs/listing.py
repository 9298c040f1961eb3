"""Which images the paths mean that a user gives: folders, globs, JPEG files, zip and tar archives.

Promises: every JPEG is found by name without opening one, each path once, in a stable order; what is passed
over is counted, and what may hold images and cannot be read is refused, by one rule for folders, stores and
archives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from beam_jobs import finding, storage
from beam_jobs.archives import contents, packing
from beam_jobs.sources import Listing
from canopy.cli import UserError
from canopy.contract import IMAGE_ENDINGS
from canopy.progress import Meter

SHOWN = 3  # folders of an archive, where the one that is named holds no image


def list_images(
    patterns: Iterable[str], ours: Callable[[str], bool] = lambda _: False, own: str = ""
) -> Listing:
    """Lists the images of folders (with all folders below), globs, JPEG files, zip and tar archives.

    Args:
        patterns: local paths or addresses; `archive.zip/folder` means that folder of an archive, with all
            folders below. Overlapping ones count an image once.
        ours: says of a path that an earlier job wrote it: it is not even counted, or the same inputs would
            give another number the second time.
        own: the job's own folder, where `sources.unpack` will put plain copies of packed tars.

    Returns:
        The images, sorted by folder or archive and by name: the same files give the same listing,
        whatever the order of `patterns`.

    Raises:
        UserError: one of them is missing, unreadable, packed in a way that cannot be read, or holds no
            JPEG.
    """
    with Meter("listing", None, "files") as meter:
        search = _Search(ours, meter)
        for pattern in patterns:
            search.add(pattern)
        return search.listing(own)


class _Search:
    """What patterns mean, before archives are looked into."""

    def __init__(self, ours: Callable[[str], bool], meter: Meter) -> None:
        self._ours, self._meter = ours, meter
        self._folders: dict[str, set[str]] = {}  # folder -> names of its images
        self._archives: dict[str, set[str]] = {}  # archive -> folders within that are meant, "" for all of it
        self._within: list[tuple[str, str, str]] = []  # pattern, its archive, the folder within
        self._only_archives: dict[str, tuple[list[str], int]] = {}  # pattern -> those, and its other files
        self._ignored = 0

    def add(self, pattern: str) -> None:
        """Finds a pattern's files."""
        path, within = packing.split(pattern)
        if within:
            self._archives.setdefault(path, set()).add(within)
            self._within.append((pattern, path, within))
            return
        images, archives, others = self._sort(path)
        self._ignored += others
        for archive in archives:
            self._archives.setdefault(archive, set()).add("")
        if not images and not archives:
            raise _no_jpeg(pattern, others)
        if not images:
            self._only_archives[pattern] = archives, others

    def _sort(self, pattern: str) -> tuple[int, list[str], int]:
        """Puts a pattern's images into their folders: how many, the archives, how many other files."""
        images = others = 0
        archives: list[str] = []
        for path, below in finding.files(pattern, self._meter):
            folder, name = storage.split(path)
            if below and finding.is_passed_over(below):
                is_image = False
            elif _ends_as_image(name):  # which most do, and there may be millions
                is_image = True
            elif below and _is_single_gzip(name):
                is_image = False
            elif packing.kind(path):
                archives.append(path)
                continue
            else:
                packing.refuse(path)
                is_image = not below
            if is_image:
                self._folders.setdefault(folder, set()).add(name)
                images += 1
            else:
                others += not self._ours(path)
        return images, archives, others

    def listing(self, own: str) -> Listing:
        """Looks into the archives, and lists all that was found."""
        listing, empty = Listing(), set()
        for place in sorted({*self._folders, *self._archives}):
            if place not in self._archives:
                listing.add(place, sorted(self._folders[place]))
            elif not self._add_archive(listing, place, own):
                empty.add(place)
        listing.ignored += self._ignored + len(empty)
        for pattern, (archives, others) in self._only_archives.items():
            if empty.issuperset(archives):
                raise _no_jpeg(pattern, others if archives == [pattern] else others + len(archives))
        return listing

    def _add_archive(self, listing: Listing, archive: str, own: str) -> bool:
        """Adds an archive's images; whether it holds any."""
        found = contents.index(
            archive, partial(_is_wanted, archive), self._meter, frozenset(self._archives[archive])
        )
        for pattern, its_archive, within in self._within:
            if its_archive == archive and not any(packing.lies_in({within}, each) for each in found.members):
                raise _not_within(pattern, archive, [*found.members, *filter(_is_image, found.elsewhere)])
        if not found.members:
            return False
        listing.ignored += found.others
        listing.add(archive, found.members, found.entries)
        if found.is_packed:
            # Hidden, so that no listing takes what a killed job has left among its images for one more.
            listing.copies[archive] = storage.join(own, ".unpacked", f"{len(listing.copies)}.tar")
        return True


def _no_jpeg(pattern: str, others: int) -> UserError:
    more = f" ({others:,} other files are there)" if others else ""
    return UserError(f"--images: no JPEG in {pattern}{more}")


def _not_within(pattern: str, archive: str, images: list[str]) -> UserError:
    """The same for a folder of an archive, with those in which the archive's images are."""
    folders = sorted({packing.normal(image).rpartition("/")[0] for image in images})
    some = ", ".join(f"{archive}/{folder}" if folder else f"{archive} itself" for folder in folders[:SHOWN])
    more = f" (there are some in {some}{' …' if len(folders) > SHOWN else ''})" if folders else ""
    return UserError(f"--images: no JPEG in {pattern}{more}")


def _is_single_gzip(name: str) -> bool:
    """Whether it is one file in gzip such as labels.csv.gz, and no image."""
    stem, dot, ending = name.rpartition(".")
    packed = (dot + ending).lower() == ".gz"
    return packed and not stem.lower().endswith(".tar") and not _is_image(stem)


def _is_single(member: str) -> bool:
    """Whether it is one file in gzip or, by its name, in zip: within an archive no zip can be looked into."""
    stem, _, ending = member.rpartition(".")
    of_csv = ending.lower() == "zip" and stem.lower().endswith(".csv")
    return of_csv or _is_single_gzip(member)


def _is_wanted(archive: str, member: str) -> bool:
    """Whether an archive's member is an image; refuses one that may hold more, as a folder's are refused."""
    if _is_image(member):
        return True
    if not finding.is_passed_over(member) and not _is_single(member):
        packing.refuse_within(archive, member)
    return False


def _is_image(member: str) -> bool:
    """Whether a path in an archive, or a file's name, is an image's."""
    return _ends_as_image(member) and not finding.is_passed_over(member)


def _ends_as_image(member: str) -> bool:
    return member.lower().endswith(IMAGE_ENDINGS)
