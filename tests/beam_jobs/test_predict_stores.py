"""A submission from and to object storage: the same as on disk, complete or not there."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from beam_jobs import predict, staging, storage, submission
from beam_jobs.runners import choosing
from tests.beam_jobs.gcs_server import Faulty
from tests.beam_jobs.making import Shown
from tests.beam_jobs.predicting import Run, is_one_sentence
from tests.beam_jobs.predicting import chips as chips
from tests.beam_jobs.predicting import model as model
from tests.beam_jobs.predicting import run as run
from tests.beam_jobs.test_storage_beam import memory as memory


@pytest.fixture
def stored(server: Faulty, chips: Path, model: Path) -> tuple[str, str]:
    """The chips and the export in the store."""
    for folder, name in ((chips, "chips"), (model, "export")):
        for path in folder.rglob("*"):
            if path.is_file():
                storage.write_bytes(f"gs://here/{name}/{path.relative_to(folder)}", path.read_bytes())
    return "gs://here/chips", "gs://here/export"


def test_a_store_that_misbehaves_gets_the_submission_that_a_disk_gets(
    run: Run, chips: Path, tmp_path: Path, server: Faulty, stored: tuple[str, str]
) -> None:
    on_disk = run("--images", chips, "--scores", tmp_path / "scores.parquet")
    assert on_disk.code == 0, on_disk.err
    images, export = stored
    server.share = 0.1
    flags = ("--images", images, "--scores", "gs://here/out/scores.parquet")
    done = run(*flags, model=export, output="gs://here/out/submission.csv")
    server.share = 0.0
    assert done.code == 0, done.err
    assert sum(server.faults.values()) > 0
    assert storage.read_bytes("gs://here/out/submission.csv") == on_disk.output.read_bytes()
    scores = storage.read_bytes("gs://here/out/scores.parquet")
    assert scores == (tmp_path / "scores.parquet").read_bytes()
    assert sorted(storage.match("gs://here/out/**")) == [
        "gs://here/out/scores.parquet",
        "gs://here/out/submission.csv",
    ]


@pytest.mark.parametrize("runner", ["DirectRunner", "BundleBasedDirectRunner"])
def test_progress_is_told_where_the_submission_goes_to_a_store(
    runner: str, run: Run, chips: Path, stored: tuple[str, str], shown: list[Shown]
) -> None:
    images, export = stored
    flags = ("--images", images, "--runner", runner)
    done = run(*flags, model=export, output="gs://here/out/submission.csv")
    assert done.code == 0, done.err
    assert shown == [("scoring", 7, 7)]
    assert len(list(chips.iterdir())) == 7


def test_a_store_that_takes_nothing_is_one_sentence_and_keeps_the_earlier_submission(
    run: Run, server: Faulty, stored: tuple[str, str]
) -> None:
    images, export = stored
    storage.write_bytes("gs://here/out/submission.csv", b"earlier")
    server.denied = "/upload/"
    done = run("--images", images, model=export, output="gs://here/out/submission.csv")
    server.denied = ""
    assert done.code == 2
    assert is_one_sentence(done)
    assert "access is denied" in done.err
    assert storage.match("gs://here/out/**") == ["gs://here/out/submission.csv"]
    assert storage.read_bytes("gs://here/out/submission.csv") == b"earlier"


def test_scores_that_a_store_does_not_take_are_told_before_the_work(
    run: Run, chips: Path, server: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scoring(*_: object, **__: object) -> None:
        raise AssertionError("it scores")

    monkeypatch.setattr(predict, "build", scoring)
    server.denied = "/upload/storage/v1/b/theirs/"
    done = run("--images", chips, "--scores", "gs://theirs/scores.parquet", output="gs://here/submission.csv")
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert "cannot write gs://theirs/scores.parquet" in done.err
    assert "access is denied" in done.err
    assert storage.match("gs://here/**") == []


def test_an_export_that_the_store_does_not_hold_is_one_sentence(run: Run, stored: tuple[str, str]) -> None:
    done = run("--images", stored[0], model="gs://here/gone", output="gs://here/out/submission.csv")
    assert done.code == 2
    assert is_one_sentence(done)
    assert "gs://here/gone" in done.err


@pytest.mark.parametrize("step", ["assemble", "as_csv"])
def test_a_run_that_is_overtaken_when_it_has_scored_is_no_success(
    step: str, run: Run, chips: Path, server: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, whole = "gs://here/out/submission.csv", getattr(submission, step)

    def overtaken(*given: object) -> object:
        staging.Staging(f"{output}.partial", output, "run").begin()
        return whole(*given)

    monkeypatch.setattr(submission, step, overtaken)
    done = run("--images", chips, output=output)
    assert done.code == 2
    assert f"another run to {output} began before this one was done" in done.err
    assert storage.exists(output) == (step == "as_csv")  # the other one's takes its place


@pytest.mark.parametrize("stored", ["images", "model", "copy"])
def test_what_only_beam_reaches_is_left_to_beams_own_process(
    stored: str, run: Run, chips: Path, model: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "MANY_IMAGES", 1)
    places: dict[str, Path | str] = {"images": chips, "model": model}
    output = None
    if stored == "copy":  # of a packed tar, which lies beside the output
        places["images"] = chips.with_suffix(".tar.gz")
        with tarfile.open(places["images"], "w:gz") as packed:
            packed.add(chips)
        output = f"{memory}/submission.csv"
    else:
        for path in filter(Path.is_file, Path(places[stored]).rglob("*")):
            storage.write_bytes(f"{memory}/{path.relative_to(places[stored])}", path.read_bytes())
        places[stored] = memory
    flags = ("--images", places["images"], "--direct_num_workers", 2)
    done = run(*flags, model=places["model"], output=output)
    assert done.code == 0, done.err
    assert "rows       7" in done.out
