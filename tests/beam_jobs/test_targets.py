"""Where prediction writes: what is in its way or denied, and links that it writes through."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from beam_jobs import predict
from tests.beam_jobs.predicting import Run, is_one_sentence, left_in
from tests.beam_jobs.predicting import chips as chips
from tests.beam_jobs.predicting import model as model
from tests.beam_jobs.predicting import run as run


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_that_is_denied_is_one_sentence(run: Run, chips: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    done = run("--images", chips, output=locked / "below" / "submission.csv")
    assert done.code == 2
    assert "access is denied" in done.err


def test_an_output_below_a_file_is_one_sentence(run: Run, chips: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = run("--images", chips, output=tmp_path / "file" / "submission.csv")
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert (tmp_path / "file").read_text() == "x"


@pytest.fixture
def unreached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is told is told before the work."""

    def build(*_: object, **__: object) -> None:
        raise AssertionError("it scores")

    monkeypatch.setattr(predict, "build", build)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.usefixtures("unreached")
def test_scores_to_a_folder_that_is_denied_are_told_before_the_work(
    run: Run, chips: Path, tmp_path: Path
) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    scores = tmp_path / "locked" / "scores.parquet"
    done = run("--images", chips, "--scores", scores)
    assert (done.code, done.err) == (2, f"error: cannot write {scores}: access is denied\n")


@pytest.mark.parametrize("name", ["submission.csv", "scores.parquet"])
@pytest.mark.usefixtures("unreached")
def test_what_is_in_the_way_of_half_a_file_is_told_before_the_work(
    name: str, run: Run, chips: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out" / name
    Path(f"{target}.part").mkdir(parents=True)
    done = run("--images", chips, "--scores", tmp_path / "out" / "scores.parquet")
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert f"cannot write {target}: " in done.err
    assert left_in(tmp_path / "out") == {f"{name}.part"}


@pytest.mark.parametrize("flag", ["--output", "--scores"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_refused_and_stays(flag: str, linked: bool, run: Run, chips: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    target = tmp_path / ("link" if linked else "pipe")
    before = left_in(tmp_path)
    done = run("--images", chips, flag, target)
    assert done.code == 2
    assert done.err == (
        f"error: {flag}: {target} is a device or a pipe, and only a file can be written whole\n"
    )
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link").is_symlink()
    assert left_in(tmp_path) == before


@pytest.mark.parametrize("name", ["submission.csv.rejects.jsonl", "submission.csv"])
def test_what_is_in_the_way_of_the_rejects_or_goes_in_circles_is_told_before_the_work(
    name: str, run: Run, chips: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "submission.csv"
    output.parent.mkdir()
    if name == output.name:
        output.symlink_to(output)
    else:
        os.mkfifo(output.parent / name)
    done = run("--images", chips, output=output)
    assert done.code == 2
    assert is_one_sentence(done), done.err
    assert name in done.err
    assert left_in(output.parent) == {name}


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_written_through(there: bool, run: Run, chips: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.mkdir()
    links = {"submission.csv": large / "today.csv", "scores.parquet": large / "today.parquet"}
    (tmp_path / "out").mkdir()
    for name, target in links.items():
        (tmp_path / "out" / name).symlink_to(target)
        if there:
            target.write_text("earlier")
    wanted = run("--images", chips, output=tmp_path / "reference.csv").rows
    done = run("--images", chips, "--scores", tmp_path / "out" / "scores.parquet")
    assert done.code == 0, done.err
    assert done.rows == wanted
    assert all((tmp_path / "out" / name).readlink() == target for name, target in links.items())
    assert left_in(large) == {"today.csv", "today.parquet"}
    assert left_in(tmp_path / "out") == set(links)
    assert f"output     {large / 'today.csv'}" in done.out


@pytest.mark.parametrize(
    ("spelled", "told"),
    [
        ("link.parquet", "the same file"),
        ("linked/submission.csv", "the same file"),
        ("out/../out/submission.csv", "the same file"),
        ("linked/submission.csv.rejects.jsonl", "lists the rejects"),
        ("linked/submission.csv.part", "takes a name that --output"),
    ],
)
def test_another_way_to_the_output_is_no_other_file_for_the_scores(
    run: Run, chips: Path, tmp_path: Path, spelled: str, told: str
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "out")
    (tmp_path / "link.parquet").symlink_to(tmp_path / "out" / "submission.csv")
    done = run("--images", chips, "--scores", f"{tmp_path}/{spelled}")
    assert done.code == 2
    assert told in done.err


@pytest.mark.parametrize(
    ("scores", "output"),
    [
        ("out/s.csv.part", "out/s.csv"),
        ("out/s.csv.rejects.jsonl.part", "out/s.csv"),
        ("out/s.csv.partial", "out/s.csv"),
        ("out/s.csv.partial/scores", "out/s.csv"),
        ("out/s.csv/scores", "out/s.csv"),
        ("out/scores", "out/scores.part"),
        ("out", "out/s.csv"),
    ],
)
def test_scores_in_the_outputs_way_are_refused_before_the_work(
    scores: str, output: str, run: Run, chips: Path, tmp_path: Path
) -> None:
    done = run("--images", chips, "--scores", tmp_path / scores, output=tmp_path / output)
    assert done.code == 2
    assert done.err == f"error: --scores {tmp_path / scores} takes a name that --output {done.output} needs\n"
    assert not (tmp_path / "out").exists()


def test_scores_beside_the_output_are_in_nobodys_way(run: Run, chips: Path, tmp_path: Path) -> None:
    done = run("--images", chips, "--scores", tmp_path / "out" / "submission.csv.parquet")
    assert done.code == 0, done.err
    assert left_in(done.output.parent) == {"submission.csv", "submission.csv.parquet"}
