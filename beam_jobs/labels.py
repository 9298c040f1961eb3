"""The tags CSV: names, tags, vocabulary, class ids.

Promises: every row is read or the job ends with a sentence that names the row; a name is compared as the
CSV spells it (a JPEG's ending dropped, accents composed), never taken for a path; the vocabulary's order is
the file's, or alphabetical where there is no file. Rows are kept in columns, so millions of them fit.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import sys
import unicodedata
from array import array
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import IO

from beam_jobs import storage
from beam_jobs.archives import tables
from beam_jobs.images import NO_TAGS, UNKNOWN_TAG
from beam_jobs.sources import without_ending
from canopy.cli import UserError

NAME_COLUMN, TAGS_COLUMN = "image_name", "tags"
# What parts columns: spreadsheets write semicolons where a comma marks decimals, and tabs as "Unicode text".
SEPARATORS = ",;\t"
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Where most tags hold one of these, it was meant to part them: by itself, or in a list as Python prints it.
OTHER_SEPARATORS = ",;|[]'\""
LISTS = ",;|"  # no tag begins with one of these, or ends so, that is meant as one
AROUND = (('"', '"'), ("[", "]"))  # what words of one tag, or a list, stand between
MAX_LINE = 1 << 24  # characters: a packed file of megabytes may unpack to a line of gigabytes


@dataclass(frozen=True)
class Labels:
    """The CSV's rows, in columns."""

    names: list[str]  # of each row
    set_of: array[int]  # of each row: its position in `tag_sets`
    tag_sets: list[tuple[str, ...]]  # distinct sets of tags, each sorted; archives have few hundred
    path: str  # for messages


@dataclass(frozen=True)
class Refused:
    """Why a set of tags cannot become a label."""

    reason: str  # NO_TAGS or UNKNOWN_TAG
    detail: str


def read_labels(path: str) -> Labels:
    """Reads a CSV with at least the columns `image_name` and `tags` (tags parted by spaces).

    Raises:
        UserError: as `rows` does; or a name is empty, or there is no row at all.
    """
    names: list[str] = []
    set_of = array("i")
    numbers: dict[str, int] = {}  # the tags as spelled -> position in tag_sets
    positions: dict[tuple[str, ...], int] = {}
    for line, (spelled, tags) in rows(path, (NAME_COLUMN, TAGS_COLUMN), path):
        name = spelled.strip()
        if not name:
            raise UserError(f"{path}, line {line}: the image_name is empty")
        number = numbers.get(tags)
        if number is None:
            # Each text once: millions of rows of a dozen tags would hold gigabytes of the same few words.
            kinds = tuple(sorted(set(map(sys.intern, tags.split()))))
            number = numbers[tags] = positions.setdefault(kinds, len(positions))
        names.append(without_ending(name))
        set_of.append(number)
    if not names:
        raise UserError(f"{path} has no row below its header")
    return Labels(names, set_of, list(positions), path)


def rows(path: str, columns: Sequence[str], told: str) -> Iterator[tuple[int, list[str]]]:
    """Reads some columns of a CSV, plain or packed.

    Args:
        path: of the file.
        columns: which it has to have, once each; spaces around the header's names are no part of them, nor
            is their case.
        told: begins the sentences.

    Yields:
        Of each row that is not blank: its line number (the first of several), and its cells as they stand.

    Raises:
        UserError: the file is missing, damaged, not text, lacks a column or has it twice, or has a row of
            another width.
    """
    with (
        storage.explained(path, "read"),
        tables.opened(path, told) as plain,
        _text(plain) as text,
    ):
        done = 0  # lines of the rows read: a quote that is left open makes one row of all that follows
        try:
            lines = _lines(text)
            first = next(lines, "")
            reader = csv.reader(chain([first], lines), delimiter=_separator(first, columns), strict=True)
            header = [column.strip() for column in next(reader, [])]
            places = [_place(header, column, told) for column in columns]
            done = reader.line_num
            for row in reader:
                line, done = done + 1, reader.line_num
                if not any(row):  # spreadsheets leave nothing but separators of a row that was emptied
                    continue
                if len(row) != len(header):
                    raise UserError(f"{told}, line {line}: {len(row)} fields where {len(header)} are due")
                yield line, [row[place] for place in places]
        except csv.Error as error:
            raise UserError(f"{told}, line {done + 1}: {error}") from error
        except UnicodeDecodeError as error:
            said = text.encoding.upper().removesuffix("-SIG")
            raise UserError(f"{told} is not {said} text (near line {done + 1}): save it as UTF-8") from error


def _text(plain: IO[bytes]) -> io.TextIOWrapper:
    """A CSV's text, as its first bytes say: UTF-16 where they are that one's mark."""
    start = plain.read(len(UTF16[0]))
    plain.seek(0)
    return io.TextIOWrapper(plain, "utf-16" if start in UTF16 else "utf-8-sig", newline="")


def _lines(text: IO[str]) -> Iterator[str]:
    """A file's lines; raises `csv.Error` at one that is too long to be a row's."""
    while line := text.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise csv.Error(f"it has more than {MAX_LINE:,} characters")
        yield line


def _separator(header: str, columns: Sequence[str]) -> str:
    """By which of `SEPARATORS` all columns are in a header's line."""
    for separator in SEPARATORS:
        with contextlib.suppress(csv.Error):
            cells = next(csv.reader([header], delimiter=separator), [])
            if {cell.strip().lower() for cell in cells}.issuperset(columns):
                return separator
    return SEPARATORS[0]


def _place(header: Sequence[str], column: str, told: str) -> int:
    """Where a column is, spelled as it should be or else in another case."""
    places = [place for place, each in enumerate(header) if each == column]
    places = places or [place for place, each in enumerate(header) if each.lower() == column]
    if not places:
        raise UserError(f"{told} has no column {column}: its header is {','.join(header)[:200]!r}")
    if len(places) > 1:
        raise UserError(f"{told} has more than one column {column}")
    return places[0]


def read_vocabulary(path: str) -> tuple[str, ...]:
    """Reads a vocabulary: one tag a line, in the order of the class ids.

    Raises:
        UserError: the file is missing or empty, or a tag comes twice or holds a space.
    """
    try:
        lines = storage.read_bytes(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"--vocabulary: {path} is not UTF-8 text") from error
    tags = tuple(line.strip() for line in lines if line.strip())
    if not tags:
        raise UserError(f"--vocabulary: {path} names no tag")
    for tag in tags:
        if len(tag.split()) > 1:
            raise UserError(f"--vocabulary: {path}: a tag is one word, and {tag!r} has a space")
    if len(set(tags)) < len(tags):
        twice = next(tag for tag in tags if tags.count(tag) > 1)
        raise UserError(f"--vocabulary: {path} names {twice!r} twice")
    return tags


def vocabulary_of(labels: Labels) -> tuple[str, ...]:
    """All tags of a CSV, sorted.

    Raises:
        UserError: no row has a tag, two differ in how accents are encoded alone, most look like several that
            something else parts, or one like a piece of such.
    """
    tags = tuple(sorted({tag for tags in labels.tag_sets for tag in tags}))
    if not tags:
        raise UserError(f"{labels.path}: no row has a tag")
    composed: dict[str, str] = {}
    for tag in tags:
        twin = composed.setdefault(unicodedata.normalize("NFC", tag), tag)
        if twin != tag:  # on a screen they are the same
            raise UserError(
                f"{labels.path} has the tags {twin!a} and {tag!a}, which differ in how their accents are "
                "encoded alone: encode them alike (NFC)"
            )
    joined = [tag for tag in tags if any(mark in tag for mark in OTHER_SEPARATORS)]
    known = set(tags)
    cut = _cut(joined, known)
    if cut or len(joined) > len(tags) // 2 or any(_parts(tag) <= known for tag in joined):
        raise UserError(
            f"{labels.path}: tags are parted by spaces, and {len(joined)} of its {len(tags)} are like "
            f"{(cut or joined)[0]!r}: put spaces between tags and underscores within them, or name each tag "
            "that is meant so in a --vocabulary"
        )
    return tags


def _cut(tags: Sequence[str], known: Container[str]) -> list[str]:
    """Those that are a piece of a list or of words between quotes, or a list of which a part is a tag.

    Args:
        tags: those that hold one of the other separators.
        known: all tags.
    """
    # An entity such as `&amp;` ends so as well.
    cut = [tag for tag in tags if tag[0] in LISTS or (tag[-1] in LISTS and "&" not in tag)]
    for begin, end in AROUND:
        if any(tag[-1] == end and tag[0] != begin for tag in tags):
            cut += [tag for tag in tags if tag[0] == begin and tag[-1] != end]
    return cut + [tag for tag in tags if any(part in known for part in _parts(tag, ";|") - {tag})]


def _parts(tag: str, marks: str = OTHER_SEPARATORS) -> set[str]:
    """What lies between the marks in a tag."""
    for mark in marks:
        tag = tag.replace(mark, " ")
    return set(tag.split())


def class_ids(labels: Labels, vocabulary: Sequence[str]) -> list[tuple[int, ...] | Refused]:
    """For each of `labels.tag_sets`: its class ids, ascending, or why it has none."""
    ids = {tag: i for i, tag in enumerate(vocabulary)}
    result: list[tuple[int, ...] | Refused] = []
    for tags in labels.tag_sets:
        unknown = [tag for tag in tags if tag not in ids]
        if not tags:
            result.append(Refused(NO_TAGS, "its row names no tag"))
        elif unknown:
            result.append(Refused(UNKNOWN_TAG, f"not in the vocabulary: {' '.join(unknown)}"))
        else:
            result.append(tuple(sorted(ids[tag] for tag in tags)))
    return result
