"""From names and labels to work lists: nothing is counted twice, and shards have the size asked for."""

from __future__ import annotations

import pytest

from beam_jobs import settings
from beam_jobs.commit import Output
from beam_jobs.prepare import Prepared, prepare, shard_names, sharded, work_lists
from canopy import progress
from canopy.cli import UserError
from tests.beam_jobs.making import Archive, Run, jpeg, names_of_any_bytes, noise


def job_of(archive: Archive, *flags: str) -> settings.Settings:
    inputs = (f"--images={archive.folder}", f"--labels={archive.labels}", f"--output={archive.root / 'out'}")
    return settings.parse((*inputs, *flags))[0]


def plan_of(archive: Archive, *flags: str) -> Prepared:
    job = job_of(archive, *flags)
    return sharded(prepare(job, own=""), job)


@names_of_any_bytes
def test_a_name_that_comes_twice_and_cannot_be_used_is_set_down_once_a_file(archive: Archive) -> None:
    chip = jpeg(noise(1))
    archive.put("good", chip)
    for folder in ("train-jpg/a", "train-jpg/a-b"):
        archive.put("unlabelled", chip, None, folder)
        archive.put("tagless", chip, "", folder)
        archive.put("caf\udce9", chip, None, folder)
    plan = plan_of(archive)
    assert sorted((reject.name, reject.reason) for reject in plan.rejects) == [
        ("caf\\udce9", "bad_name"), ("caf\\udce9", "duplicate_name"),
        ("tagless", "duplicate_name"), ("tagless", "no_tags"),
        ("unlabelled", "duplicate_name"), ("unlabelled", "no_label"),
    ]  # fmt: skip
    assert plan.found == len(plan.rejects) + sum(map(len, plan.order.values())) == 7
    # The whole paths are compared: "-" comes before "/".
    assert {reject.detail for reject in plan.rejects if reject.reason == "duplicate_name"} == {
        f"{archive.folder}/a/{name}.jpg comes after {archive.folder}/a-b/{name}.jpg"
        for name in ("unlabelled", "tagless", "caf\\udce9")
    }


def test_a_row_that_comes_twice_is_one_label_and_no_contradiction(archive: Archive) -> None:
    archive.put("chip", jpeg(noise(1)), "clear primary")
    archive.put("unlabelled", jpeg(noise(1)), None)
    archive.rows += [("chip", "primary  clear"), ("never_seen", "clear"), ("never_seen", "clear")]
    archive.write_labels()
    plan = plan_of(archive)
    assert (plan.label_rows, plan.labels_without_image) == (4, 1)
    archive.rows.append(("never_seen", "water"))
    archive.write_labels()
    with pytest.raises(UserError, match="contradict each other for 'never_seen': give each image one row"):
        plan_of(archive)


def test_a_csv_that_names_no_image_is_shown_beside_one(archive: Archive, run: Run) -> None:
    archive.put("chip", jpeg(noise(1)), None)
    archive.rows = [("chap", "clear")]
    archive.write_labels()
    done = run(archive)
    assert done.code == 2
    said = "names none of them: its first name is 'chap', and that of an image is 'chip'"
    assert done.err.endswith(f"; {archive.labels} {said}\n")
    assert [(row["name"], row["reason"]) for row in done.rejects] == [("chip", "no_label")]


def test_whose_csv_names_folders_is_told_to_leave_them_out(archive: Archive, run: Run) -> None:
    for folder in ("a", "b"):
        archive.put(f"{folder}/chip", jpeg(noise(1)), None)
    archive.rows = [("a/chip.jpg", "clear"), ("b/chip.jpg", "water")]
    archive.write_labels()
    done = run(archive)
    assert done.code == 2
    said = "its first name is 'a/chip', and that of an image is 'chip': a name is without its folder, so take"
    assert said in done.err
    assert done.err.endswith("and rename images that are then called alike\n")


def test_shards_have_the_size_asked_for_whatever_the_images_are(archive: Archive, run: Run) -> None:
    for i in range(40):
        archive.put(f"chip_{i}", jpeg(noise(i, 128, 128)))
    done = run(archive, "--shard_mb", "0.05", "--splits", "train=1")
    assert done.code == 0, done.err
    sizes = [len(data) for data in done.shards.values()]
    assert min(sizes) > 25_000
    assert max(sizes) < 55_000  # as pictures differ, a shard of as many may be a little larger


@pytest.mark.parametrize(("images", "measured"), [(9, 8), (200, 12)])
def test_that_a_few_images_are_converted_beforehand_fewer_of_few_is_shown_as_large_ones_take_their_time(
    archive: Archive,
    images: int,
    measured: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    plan_of(archive.fill(images), "--splits=train=1")
    assert f"\nmeasuring: {measured} of {measured} images, " in capsys.readouterr().err


def test_the_shards_named_beforehand_are_those_that_are_made(archive: Archive) -> None:
    job = job_of(archive.fill(30), "--num_shards=3", "--splits=train=0.6,validation=0.4")
    plan = sharded(prepare(job, own=""), job)
    made = [work.shard for work in work_lists(plan, job, Output(job.output), "progress")]
    assert sorted(shard_names(plan, job)) == sorted(made)
    assert len(made) == 3 + 2


def test_no_split_has_more_shards_than_a_shards_name_can_count(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.fill(2)
    for wanted in ({"train": 100_500, "validation": 7}, {"train": 7, "validation": 100_500}):
        monkeypatch.setattr("beam_jobs.plan.shard_counts", lambda *_, wanted=wanted: wanted)
        assert sorted(plan_of(archive).shards.values()) == [7, settings.MAX_SHARDS]
