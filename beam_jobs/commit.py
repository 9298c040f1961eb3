"""The output folder: begun, filled and committed so that no reader takes a part for the whole.

Promises: `dataset_info.json` is there only while everything else is there and final; a job killed at any
moment leaves a folder that the same command cleans up and fills again; nothing is removed that Canopy did
not write. On this machine files grow in a staging folder and are renamed at the end, and a whole data set
that is to be replaced stands until then. In a store, where a rename is a copy, shards are uploaded under
their final names, which nobody reads before the marker is there; an earlier data set goes before the first.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from beam_jobs import storage
from canopy import contract, locks
from canopy.cli import UserError

STAGING = ".canopy-staging"
LOCK = "lock"  # likewise, held while a job of this machine runs
RUN_JSON = "run.json"  # in the staging folder: the files that the job may leave behind
FAILED_REJECTS = "rejects.failed.jsonl"  # of a job that failed beside an earlier, whole data set
TFDS_LABELS = "image.class.label.labels.txt"  # where TensorFlow Datasets looks for the class names
FIXED = (
    contract.LABELS_TXT, contract.FEATURES_JSON, contract.CANOPY_JSON, contract.REJECTS_JSONL, TFDS_LABELS,
    contract.DATASET_INFO, FAILED_REJECTS,
)  # fmt: skip
SHARD_PATTERN = re.compile(r"[a-z][a-z0-9_]*-[A-Za-z][A-Za-z0-9_]*\.tfrecord-\d{5}-of-\d{5}")


class Output:
    """One job's hold on the output folder."""

    def __init__(self, folder: str) -> None:
        """Names the folder; nothing is touched before `begin`."""
        self.folder = folder
        self.remote = storage.is_remote(folder)
        self.staging = storage.join(folder, STAGING)
        self._held: IO[bytes] | None = None
        self._earlier: set[str] = set()  # files of the whole data set that this job is to replace

    def begin(self, overwrite: bool) -> None:
        """Takes the folder over, removing what an earlier job of Canopy left unfinished there.

        Args:
            overwrite: whether a whole data set may be replaced.

        Raises:
            UserError: a whole data set is there and `overwrite` is not set, or files are there under the
                names that this job writes and Canopy did not write them.
        """
        if not self.remote and storage.exists(self.folder) and not Path(self.folder).is_dir():
            raise UserError(f"--output: {self.folder} is a file, not a folder")
        there = set(storage.list_files(self.folder))
        if contract.DATASET_INFO in there:
            if contract.CANOPY_JSON not in there:
                raise UserError(f"--output: {self.folder} holds a data set that Canopy did not write")
            if not overwrite:
                raise UserError(f"--output: {self.folder} holds a whole data set; --overwrite replaces it")
            ours = self._listed(contract.CANOPY_JSON)
        elif storage.exists(storage.join(self.staging, RUN_JSON)):
            ours = self._listed(f"{STAGING}/{RUN_JSON}")
        else:
            ours = set()
            foreign = sorted(name for name in there if name in FIXED or SHARD_PATTERN.fullmatch(name))
            if foreign:
                raise UserError(
                    f"--output: {self.folder} holds {foreign[0]}, which no whole or begun job of Canopy wrote"
                )
        storage.make_folder(self.staging)
        self._lock()
        self._note(ours)
        if contract.DATASET_INFO in there:
            self._earlier = ours & there
        else:
            storage.delete(storage.join(self.folder, name) for name in sorted(ours & there))
        self._clear_staging(keep=(RUN_JSON, LOCK))
        for name in ("work", "results", "shards"):
            storage.make_folder(storage.join(self.staging, name))

    def _lock(self) -> None:
        """Keeps other jobs of this machine out until this process ends, however it ends."""
        if self.remote:
            return
        busy = f"--output: another job is writing to {self.folder}"
        with storage.explained(self.staging, "lock"):
            self._held = locks.take(storage.join(self.staging, LOCK), busy)

    def _listed(self, name: str) -> set[str]:
        """The files that a run.json or a canopy.json speaks of, as far as their names can be ours."""
        try:
            document = json.loads(storage.read_bytes(storage.join(self.folder, name)))
            if name == contract.CANOPY_JSON:
                shards = [shard["name"] for split in document["splits"].values() for shard in split["shards"]]
            else:
                shards = document["files"]
            return {*FIXED, *(str(shard) for shard in shards if SHARD_PATTERN.fullmatch(str(shard)))}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"--output: {storage.join(self.folder, name)} is damaged: {error!r}") from error

    def _clear_staging(self, keep: Iterable[str] = ()) -> None:
        if self.remote:
            kept = {storage.join(self.staging, name) for name in keep}
            storage.delete(path for path in storage.match(f"{self.staging}/**") if path not in kept)
            return
        for entry in Path(self.staging).iterdir():
            if entry.name in keep:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def claim(self, shards: Iterable[str]) -> None:
        """Says which shards are going to be written, before the first one is."""
        if self.remote:
            self._remove_earlier()
        self._note({*shards, *self._earlier})

    def _note(self, shards: Iterable[str]) -> None:
        """Notes which files may be there from now on, so that a later job knows them for Canopy's own."""
        files = sorted({*shards} - {*FIXED})
        storage.write_bytes(storage.join(self.staging, RUN_JSON), json.dumps({"files": files}).encode())

    def shard_path(self, shard: str) -> str:
        """Where a worker writes a shard."""
        return (
            storage.join(self.folder, shard) if self.remote else storage.join(self.staging, "shards", shard)
        )

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
        name = FAILED_REJECTS if self._earlier else contract.REJECTS_JSONL
        self._put({name: lines})
        self._clear_staging(keep=() if self._earlier else (RUN_JSON, LOCK))
        if self._earlier and not self.remote:
            Path(self.staging).rmdir()
        return storage.join(self.folder, name)

    def _put(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            if self.remote:
                storage.write_bytes(storage.join(self.folder, name), data)
            else:
                storage.write_bytes(storage.join(self.staging, name), data)
                Path(self.staging, name).replace(Path(self.folder, name))

    def commit(self, shards: Iterable[str], files: Mapping[str, bytes], marker: bytes) -> None:
        """Makes the folder whole.

        Args:
            shards: names of the shards, each written to its `shard_path`.
            files: all others but the marker, by name.
            marker: the content of `dataset_info.json`, written when all else is there for good.
        """
        self._remove_earlier()
        if not self.remote:
            for shard in shards:
                Path(self.shard_path(shard)).replace(Path(self.folder, shard))
        self._put(files)
        storage.sync_folder(self.folder)
        self._put({contract.DATASET_INFO: marker})
        storage.sync_folder(self.folder)
        self._clear_staging()
        if not self.remote:
            Path(self.staging).rmdir()
