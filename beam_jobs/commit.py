"""The output folder: begun, filled and committed so that no reader takes a part for the whole.

Promises: `dataset_info.json` is there only while everything else is there and final; a job killed at any
moment leaves a folder that the same command cleans up and fills again, one that fails or is interrupted no
half shard (on this machine); nothing is removed that Canopy did not write; what workers of a killed job
still finish is none of a later one's. On this machine files grow in a staging folder and are renamed at the
end, and a whole data set that is to be replaced stands until then. In a store, where a rename is a copy,
shards are uploaded under their final names, which nobody reads before the marker is there; an earlier data
set goes before the first.
Of two jobs the second is refused while the first lasts, or the later one goes on and the earlier one ends:
`staging` says where. In a store a shard that the earlier one's workers are just uploading may still land,
which canopy.json's checksums would tell; on a disk all is renamed from a folder that the later one removes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from beam_jobs import storage
from beam_jobs.staging import Staging
from canopy import contract
from canopy.cli import TryAgainError, UserError

STAGING = ".canopy-staging"
RUN_JSON = "run.json"  # in the staging folder: the files that the job may leave behind
# In the job's own folder there: all that grows with the images.
LISTS, RESULTS, SHARDS = "work", "results", "shards"
FAILED_REJECTS = "rejects.failed.jsonl"  # of a job that failed beside an earlier, whole data set
TFDS_LABELS = "image.class.label.labels.txt"  # where TensorFlow Datasets looks for the class names
FIXED = (
    contract.LABELS_TXT, contract.FEATURES_JSON, contract.CANOPY_JSON, contract.REJECTS_JSONL, TFDS_LABELS,
    contract.DATASET_INFO, FAILED_REJECTS,
)  # fmt: skip
SHARD_PATTERN = re.compile(r"[a-z][a-z0-9_]*-[A-Za-z][A-Za-z0-9_]*\.tfrecord-\d{5}-of-\d{5}")


class Output:
    """One job's hold on the output folder."""

    def __init__(self, folder: str, run: str = "") -> None:
        """Names the folder, and the run, of which `staging` says what it is; `begin` touches them first."""
        self.folder = folder
        self.remote = storage.is_remote(folder)
        self._staging = Staging(storage.join(folder, STAGING), folder, "job", run)
        self.own = self._staging.own
        self._earlier: set[str] = set()  # files of the whole data set that this job is to replace

    def begin(self, overwrite: bool) -> None:
        """Takes the folder over, removing what an earlier job of Canopy left unfinished there.

        Args:
            overwrite: whether a whole data set may be replaced.

        Raises:
            UserError: a whole data set is there and `overwrite` is not set, or files or folders are there
                under the names that this job writes and Canopy did not write them, or another job of this
                machine is writing there.
        """
        self.look(overwrite)
        self._staging.begin(keep=(RUN_JSON,))
        try:
            there, ours = self.look(overwrite)  # again: a job that was not done the first time may be by now
        except (UserError, TryAgainError):
            self._staging.leave()
            raise
        self._note(ours)
        if contract.DATASET_INFO in there:
            self._earlier = ours & there
        else:
            storage.delete(storage.join(self.folder, name) for name in sorted(ours & there))
        for name in (LISTS, RESULTS, SHARDS):
            storage.make_folder(storage.join(self.own, name))

    def look(self, overwrite: bool) -> tuple[set[str], set[str]]:
        """The files in the folder, and the names that Canopy's own have; raises as `begin` does.

        For itself, too, before millions of images are listed, which takes minutes.
        """
        if not self.remote and storage.exists(self.folder) and not Path(self.folder).is_dir():
            raise UserError(f"--output: {self.folder} is a file, not a folder")
        self._refuse_folders()
        there = set(storage.list_files(self.folder))
        if contract.DATASET_INFO in there:
            if contract.CANOPY_JSON not in there:
                raise UserError(f"--output: {self.folder} holds a data set that Canopy did not write")
            if not overwrite:
                raise UserError(f"--output: {self.folder} holds a whole data set; --overwrite replaces it")
            return there, self._listed(contract.CANOPY_JSON)
        if storage.exists(storage.join(self._staging.folder, RUN_JSON)):
            return there, self._listed(f"{STAGING}/{RUN_JSON}")
        foreign = sorted(filter(_is_final, there))
        if foreign:
            raise UserError(
                f"--output: {self.folder} holds {foreign[0]}, which no whole or begun job of Canopy wrote"
            )
        return there, set()

    def _refuse_folders(self) -> None:
        """A file is written by a rename at the job's end, which no folder gives way to."""
        if self.remote:
            return
        with storage.explained(self.folder, "list"):
            there = os.scandir(self.folder) if Path(self.folder).is_dir() else ()
            found = sorted(entry.name for entry in there if _is_final(entry.name) and entry.is_dir())
        if found:
            raise UserError(
                f"--output: {self.folder} holds a folder {found[0]}, where a file is to be written"
            )

    @contextlib.contextmanager
    def tidied(self) -> Iterator[None]:
        """Removes what a job of this machine has half written where the block ends by an exception.

        Not the lock, which goes with the process: threads of it may still be at work.
        """
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # in a store, or before it is begun, there is no such folder
                # By another name, so that no thread puts a file there meanwhile.
                shutil.rmtree(Path(self.own).rename(f"{self.own}{storage.PART}"))
            raise

    def check(self) -> None:
        """Raises `UserError` where another job to the same folder has begun since, or the folder is gone."""
        if not self.remote and not storage.exists(self.folder):
            raise UserError(f"--output: {self.folder} was removed before this job was done")
        self._staging.check()

    def _listed(self, name: str) -> set[str]:
        """The files that a run.json or a canopy.json speaks of, as far as their names can be ours."""
        try:
            document = json.loads(storage.read_bytes(storage.join(self.folder, name)))
            if name == contract.CANOPY_JSON:
                shards = [shard["name"] for split in document["splits"].values() for shard in split["shards"]]
            else:
                shards = document["files"]
            return {*FIXED, *(shard for shard in shards if SHARD_PATTERN.fullmatch(str(shard)))}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"--output: {storage.join(self.folder, name)} is damaged: {error!r}") from error

    def claim(self, shards: Iterable[str]) -> None:
        """Says which shards are going to be written, before the first one is."""
        self.check()
        if self.remote:
            self._remove_earlier()
        self._note({*shards, *self._earlier})

    def _note(self, shards: Iterable[str]) -> None:
        """Notes which files may be there from now on, so that a later job knows them for Canopy's own."""
        files = sorted({*shards} - {*FIXED})
        storage.write_bytes(
            storage.join(self._staging.folder, RUN_JSON), json.dumps({"files": files}).encode()
        )

    def shard_path(self, shard: str) -> str:
        """Where a worker writes a shard."""
        return storage.join(self.folder, shard) if self.remote else storage.join(self.own, SHARDS, shard)

    def list_path(self, shard: str) -> str:
        """Where a shard's work list is for its worker."""
        return storage.join(self.own, LISTS, f"{shard}.json")

    def result_path(self, shard: str) -> str:
        """Where the worker leaves what became of the shard."""
        return storage.join(self.own, RESULTS, f"{shard}.json")

    def _remove_earlier(self) -> None:
        """Removes the data set that this job replaces, its marker first."""
        if not self._earlier:
            return
        storage.delete([storage.join(self.folder, contract.DATASET_INFO)])
        storage.sync_folder(self.folder)
        storage.delete(storage.join(self.folder, name) for name in sorted(self._earlier))
        self._earlier = set()

    def write_rejects(self, lines: bytes) -> str:
        """Writes the list of rejects by itself, for a job that fails for their number.

        Returns:
            Its path; an earlier data set that stands keeps its own.
        """
        self.check()
        name = FAILED_REJECTS if self._earlier else contract.REJECTS_JSONL
        self._put({name: lines})
        self._end(keep=() if self._earlier else (RUN_JSON,))
        return storage.join(self.folder, name)

    def _end(self, keep: Iterable[str] = ()) -> None:
        """Clears the staging folder, the lock last: whoever comes in between is not to lose anything."""
        self._staging.clear(keep)
        self._staging.leave()

    def _put(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            if self.remote:
                storage.write_bytes(storage.join(self.folder, name), data)
            else:
                storage.write_bytes(storage.join(self.own, name), data)
                self._publish(storage.join(self.own, name), name)

    def _publish(self, path: str, name: str) -> None:
        """Gives a file of this machine its final name."""
        target = storage.join(self.folder, name)
        with storage.explained(target, "write"):
            Path(path).replace(target)

    def commit(self, shards: Iterable[str], files: Mapping[str, bytes], marker: bytes) -> None:
        """Makes the folder whole.

        Args:
            shards: names of the shards, each written to its `shard_path`.
            files: all others but the marker, by name.
            marker: the content of `dataset_info.json`, written when all else is there for good.
        """
        self.check()
        try:
            self._make_whole(shards, files, marker)
        except (UserError, TryAgainError):
            self.check()  # another job that has taken the folder is the reason, not what is missing
            raise
        self._end()

    def _make_whole(self, shards: Iterable[str], files: Mapping[str, bytes], marker: bytes) -> None:
        self._remove_earlier()
        if not self.remote:
            for shard in shards:
                self._publish(self.shard_path(shard), shard)
        self._put(files)
        storage.sync_folder(self.folder)
        self.check()
        self._put({contract.DATASET_INFO: marker})
        storage.sync_folder(self.folder)
        try:
            self.check()
        except UserError:
            # The other job has removed what the marker stands for, or is about to.
            storage.delete([storage.join(self.folder, contract.DATASET_INFO)])
            raise


def done_by(folder: str, run: str) -> dict[str, Any] | None:
    """The canopy.json of a whole data set that this very run has written; None where there is none.

    A pod that ends between its last word and its success being noted is replaced, and has nothing to do.

    Args:
        folder: the output.
        run: what the starts of one run have in common; "" where nothing tells.

    Raises:
        UserError: the folder cannot be read.
    """
    if not run or not storage.exists(storage.join(folder, contract.DATASET_INFO)):
        return None
    path = storage.join(folder, contract.CANOPY_JSON)
    try:
        document = json.loads(storage.read_bytes(path)) if storage.exists(path) else {}
        is_its_own = document["run"]["id"] == run
    except (ValueError, KeyError, TypeError):
        return None
    return document if is_its_own else None


def writes(folder: str, path: str) -> bool:
    """Whether a job to a folder may write, or have written, a file or a folder of that path."""
    below = path.removeprefix(f"{folder.rstrip('/')}/")
    return below != path and (_is_final(below) or below.split("/")[0] == STAGING)


def _is_final(name: str) -> bool:
    """Whether a job of Canopy may write a file of that name."""
    return name in FIXED or SHARD_PATTERN.fullmatch(name) is not None
