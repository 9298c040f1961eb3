"""From settings to work lists: lists the images, joins the labels, plans, sets aside what cannot be used.

Promises: every image found is in exactly one work list or among the rejects; columns and arrays throughout,
so that millions of images fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from beam_jobs import commit, convert, labels, plan, storage
from beam_jobs.commit import Output
from beam_jobs.images import BAD_NAME, DUPLICATE_NAME, NO_LABEL
from beam_jobs.listing import list_images
from beam_jobs.settings import MAX_SHARDS, Settings
from beam_jobs.sources import Listing
from beam_jobs.work import Item, Reject, Work, utf8
from canopy import contract
from canopy.cli import UserError
from canopy.progress import Meter

# Images converted beforehand to learn how large a record is: of few, which may take minutes, a sixteenth.
LEAST_SAMPLED, SAMPLED = 8, 64
MEASURED = 2_048  # images of the main split, at least, that the channel statistics are over


@dataclass(frozen=True)
class Prepared:
    """The whole plan."""

    found: int  # images listed
    ignored: int  # other files
    listing: Listing  # the images
    vocabulary: tuple[str, ...]
    ids: list[tuple[int, ...]]  # class ids of each distinct set of tags; empty where they are refused
    set_of: NDArray[np.int32]  # of each image: its position in `ids`
    order: dict[str, NDArray[np.int64]]  # of each split: positions in the listing, shuffled
    rejects: list[Reject]
    label_rows: int  # in the CSV
    labels_without_image: int
    unlike: str = ""  # how names differ where the CSV has none of the images', to end a sentence
    shards: dict[str, int] = field(default_factory=dict)  # of each split, from `sharded` on

    def without_images(self) -> Prepared:
        """The same without what grows with the images, for when the work lists are written."""
        return replace(self, listing=Listing(), order={}, set_of=np.empty(0, np.int32))


def prepare(settings: Settings, own: str) -> Prepared:
    """Reads the inputs' names and labels and plans; no image is read.

    Args:
        settings: the job's.
        own: the job's own folder, where plain copies of packed tars are going to be.

    Raises:
        UserError: an input is missing or wrong, or two rows contradict each other.
    """
    table = labels.read_labels(settings.labels)
    vocabulary = (
        labels.read_vocabulary(settings.vocabulary) if settings.vocabulary else labels.vocabulary_of(table)
    )
    listing = list_images(settings.images, lambda path: commit.writes(settings.output, path), own)
    label_digest = plan.digests(table.names, settings.seed)
    sets = np.frombuffer(table.set_of, np.int32)
    for rows in plan.repeated(label_digest, plan.shuffled(label_digest)):
        if len({int(sets[row]) for row in rows}) > 1:
            raise UserError(
                f"{settings.labels} has rows that contradict each other for {table.names[rows[0]]!r}: give "
                "each image one row with all of its tags"
            )

    digest = plan.digests(listing.names(), settings.seed)
    row = plan.find(digest, label_digest)
    unlike = ""
    if (row < 0).all():  # mostly a folder or another ending in the CSV's names, which a list of all hides
        unlike = (
            f"; {settings.labels} names none of them: its first name is {table.names[0]!r}, and that of an "
            f"image is {listing[0].name!r}"
        )
        if "/" in table.names[0]:
            unlike += (
                ": a name is without its folder, so take the folders out of that file, and rename images "
                "that are then called alike"
            )
    order = plan.shuffled(digest)
    set_of = np.where(row < 0, -1, sets[row]).astype(np.int32)
    refused = labels.class_ids(table, vocabulary)
    rejects = _rejects(listing, plan.repeated(digest, order), set_of, refused)
    usable = np.ones(len(listing), bool)
    usable[list(rejects)] = False

    used = order[usable[order]]
    split = plan.split_of(digest[used], [share for _, share in settings.splits])
    orders = {name: used[split == i] for i, (name, _) in enumerate(settings.splits)}
    hit = np.zeros(len(table.names), bool)
    hit[row[row >= 0]] = True
    return Prepared(
        found=len(listing),
        ignored=listing.ignored,
        listing=listing,
        vocabulary=vocabulary,
        ids=[() if isinstance(entry, labels.Refused) else entry for entry in refused],
        set_of=set_of,
        order=orders,
        rejects=list(rejects.values()),
        label_rows=len(table.names),
        labels_without_image=len(np.unique(label_digest, axis=0)) - int(hit.sum()),
        unlike=unlike,
    )


def sharded(prepared: Prepared, settings: Settings) -> Prepared:
    """The plan with the number of shards, for which some images are read and converted."""
    main = settings.main_split
    counts = {name: len(order) for name, order in prepared.order.items()}
    wanted = settings.num_shards
    if wanted is None:
        wanted = plan.shard_count(counts[main], _typical_record_bytes(prepared, settings), settings.shard_mb)
    shards = plan.shard_counts(counts, main, wanted)
    return replace(prepared, shards={split: min(count, MAX_SHARDS) for split, count in shards.items()})


def _rejects(
    listing: Listing,
    repeated: list[NDArray[np.int64]],
    set_of: NDArray[np.int32],
    refused: list[tuple[int, ...] | labels.Refused],
) -> dict[int, Reject]:
    """Why images cannot be used, by their positions in the listing.

    Args:
        listing: the images.
        repeated: positions of images of one name, a group each.
        set_of: int32[n], of each image: its set of tags, -1 where the CSV has no row for it.
        refused: of each set of tags: why it cannot be used, or its class ids.
    """
    rejects: dict[int, Reject] = {}
    for group in repeated:
        (first, _), *others = sorted((listing[int(position)].path, int(position)) for position in group)
        for path, position in others:
            detail = f"{utf8(path)} comes after {utf8(first)}"
            rejects[position] = Reject(utf8(listing[position].name), DUPLICATE_NAME, detail)
    is_refused = np.array([isinstance(entry, labels.Refused) for entry in refused])
    for position in np.flatnonzero((set_of < 0) | is_refused[set_of]).tolist():
        if position in rejects:
            continue
        name = listing[position].name
        entry = refused[set_of[position]]
        if set_of[position] >= 0 and isinstance(entry, labels.Refused):
            reason, detail = entry.reason, entry.detail
        elif not name or utf8(name) != name:
            reason, detail = BAD_NAME, "the file's name is no UTF-8 text"
        else:
            reason, detail = NO_LABEL, "no row in the labels"
        rejects[position] = Reject(utf8(name), reason, detail)
    return rejects


def _typical_record_bytes(prepared: Prepared, settings: Settings) -> float:
    """The mean size of the first images' records: of the inputs alone, as the order is."""
    order = prepared.order[settings.main_split]
    chosen = order[: min(SAMPLED, max(LEAST_SAMPLED, len(order) // 16))]
    items = [Item(prepared.listing[int(position)], (), statistics=False) for position in chosen]
    with Meter("measuring", len(items)) as meter:
        sizes = convert.record_bytes(items, settings.encoding, len(prepared.vocabulary), meter.add)
    return sum(sizes) / len(sizes) if sizes else 1.0


def work_lists(prepared: Prepared, settings: Settings, output: Output, progress: str) -> Iterator[Work]:
    """Each shard's work list, the main split's first.

    Args:
        prepared: the plan.
        settings: the job's.
        output: where the shards go.
        progress: a folder of this machine for the numbers of images done.
    """
    main = settings.main_split
    splits = sorted(prepared.order, key=lambda split: (split != main, split))
    for split in splits:
        order, shards = prepared.order[split], prepared.shards[split]
        edges = plan.bounds(len(order), shards)
        # The order is a shuffle, so every n-th image is a fair sample.
        stride = max(len(order) // MEASURED, 1)
        for index in range(shards):
            name = contract.shard_name(settings.dataset, split, index, shards)
            items = [
                Item(
                    prepared.listing[int(order[at])],
                    prepared.ids[prepared.set_of[order[at]]],
                    split == main and at % stride == 0,
                )
                for at in range(edges[index], edges[index + 1])
            ]
            yield Work(
                split=split,
                index=index,
                shard=name,
                path=output.shard_path(name),
                result=output.result_path(name),
                progress=storage.join(progress, name),
                classes=len(prepared.vocabulary),
                encoding=settings.encoding,
                items=items,
            )


def shard_names(prepared: Prepared, settings: Settings) -> list[str]:
    """The names of all shards to come."""
    return [
        contract.shard_name(settings.dataset, split, index, shards)
        for split, shards in prepared.shards.items()
        for index in range(shards)
    ]
