"""What a run writes down as it goes, and says in its log."""

import json
import resource
import sys

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from trainer.config import Config
from trainer.journal import Journal

LINE = {"step": 3, "epoch": 1, "loss": 0.5, "images_per_second": 10.0}


def config(tmp_path):
    return Config(data="", model_dir=str(tmp_path))


def test_each_line_is_there_as_soon_as_it_is_written(tmp_path):
    with Journal(config(tmp_path), is_chief=True) as journal:
        for count in (1, 2):
            journal.write(LINE)
            lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
            assert [json.loads(line) for line in lines] == [LINE] * count


@pytest.mark.parametrize(("tags", "are_told"), [(17, True), (200, True), (201, False), (5_000, False)])
def test_each_tags_figures_are_told_unless_they_are_so_many_that_the_file_would_grow_by_them(
    tmp_path, tags, are_told
):
    rows = {f"tag {number}": {"f2": 0.5} for number in range(tags)}
    validation = {"loss": 0.5, "f2": 0.25, "tags": rows}
    with Journal(config(tmp_path), is_chief=True) as journal:
        journal.write({"step": 3, "epoch": 1, "validation": validation})
    (line,) = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert line.pop("validation") == (validation if are_told else {"loss": 0.5, "f2": 0.25})
    assert line == {"step": 3, "epoch": 1}


def test_a_resumed_run_goes_on_with_the_same_file(tmp_path):
    for _ in range(2):
        with Journal(config(tmp_path), is_chief=True) as journal:
            journal.write(LINE)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_tensorboard_plots_a_step_that_was_taken_again_once(tmp_path):
    logs = tmp_path / "logs"
    for start, losses in enumerate([[0.9, 0.8, 0.7, 0.6], [0.5, 0.4]]):
        with Journal(config(tmp_path), is_chief=True, step=2 * start) as journal:
            for step, loss in enumerate(losses, start=2 * start + 1):
                journal.write({"step": step, "epoch": 1, "loss": loss})
        (written,) = logs.glob("*.v2")
        written.rename(logs / f"events.out.tfevents.{start}")  # read in the order of their seconds
    seen = EventAccumulator(str(logs)).Reload().Tensors("loss")
    found = [(each.step, round(float(tf.make_ndarray(each.tensor_proto)), 3)) for each in seen]
    assert found == [(1, 0.9), (2, 0.8), (3, 0.5), (4, 0.4)]


def test_nothing_of_a_line_is_held_for_the_rest_of_the_run(tmp_path):
    step, loss, f2 = 10**6 + len(LINE), 0.123 * len(LINE), 0.456 * len(LINE)
    with Journal(config(tmp_path), is_chief=True) as journal:
        held = [sys.getrefcount(each) for each in (step, loss, f2)]
        journal.write({"step": step, "loss": loss, "validation": {"f2": f2}})
        assert [sys.getrefcount(each) for each in (step, loss, f2)] == held


@pytest.mark.parametrize("whole", ["", json.dumps(LINE) + "\n"])
@pytest.mark.parametrize("cut", ["", '{"step": 1, "epo', '{"step": 1, "tags": "' + 200_000 * "x"])
def test_a_line_that_was_cut_off_is_taken_away_and_no_other(tmp_path, whole, cut):
    (tmp_path / "metrics.jsonl").write_text(whole + cut)
    with Journal(config(tmp_path), is_chief=True) as journal:
        journal.write(LINE)
        journal.write(LINE)
    assert (tmp_path / "metrics.jsonl").read_text() == whole + (json.dumps(LINE) + "\n") * 2


def test_a_line_that_the_disk_took_half_of_is_taken_away_by_the_next_one(tmp_path, monkeypatch):
    whole = tf.io.gfile.GFile.write

    def half(file, text):
        whole(file, text[:9])
        raise tf.errors.ResourceExhaustedError(None, None, "no space left")

    with Journal(config(tmp_path), is_chief=True) as journal:
        journal.write(LINE)
        with monkeypatch.context() as patch:
            patch.setattr(tf.io.gfile.GFile, "write", half)
            with pytest.raises(tf.errors.ResourceExhaustedError):
                journal.write(LINE)
        journal.write(LINE)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines == [json.dumps(LINE)] * 2


def test_a_folder_that_takes_no_plots_is_warned_of_and_keeps_its_lines(tmp_path, logged):
    (tmp_path / "logs").write_text("a file where the folder is to be")
    with Journal(config(tmp_path), is_chief=True) as journal:
        journal.write(LINE)
        assert journal.lacks_validation(3)
    assert "TensorBoard will lack this start" in logged.text
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == LINE


def test_where_it_cannot_be_read_an_epoch_counts_as_not_validated(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with Journal(config(tmp_path), is_chief=True) as journal:
        assert journal.lacks_validation(3)


def test_it_knows_whether_an_epoch_was_validated_also_where_a_line_is_cut(tmp_path):
    with Journal(config(tmp_path), is_chief=True) as journal:
        assert journal.lacks_validation(3)
        journal.write(LINE)
        (tmp_path / "metrics.jsonl").open("a").write('["validation"]\n{"step": 3, "validation": {"f\n')
        assert journal.lacks_validation(3)
        journal.write({"step": 3, "epoch": 1, "validation": {"f2": 0.9}})
        assert not journal.lacks_validation(3)
        assert journal.lacks_validation(6)


def test_to_go_on_with_a_long_file_takes_a_look_at_its_end(tmp_path):
    line, long = f"{json.dumps(LINE)}\n".encode(), 1 << 40  # bytes, of which a disk holds the last alone
    with (tmp_path / "metrics.jsonl").open("wb") as file:
        file.seek(long)
        file.write(line + b'{"step"')
    with Journal(config(tmp_path), is_chief=True) as journal:
        journal.write(LINE)
    with (tmp_path / "metrics.jsonl").open("rb") as file:
        file.seek(long)
        assert file.read() == line * 2


def losses_in(logs):
    found = [
        (event.step, round(float(tf.make_ndarray(value.tensor)), 3))
        for path in logs.iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]
    return sorted(found)


def test_where_its_open_file_is_lost_the_plots_go_on_in_another_one(tmp_path, logged):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(config(tmp_path), is_chief=True) as journal:
        for step in (1, 2):
            journal.write({"step": step, "loss": step / 10})
        (first,) = (tmp_path / "logs").iterdir()
        resource.setrlimit(resource.RLIMIT_FSIZE, (first.stat().st_size, before[1]))
        try:
            journal.write({"step": 3, "loss": 0.3})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        journal.write({"step": 4, "loss": 0.4})
    assert losses_in(tmp_path / "logs") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4
    assert logged.text.count("begun anew, for it cannot be written") == 1


def test_tensorboard_plots_the_numbers_and_those_of_validation(tmp_path):
    with Journal(config(tmp_path), is_chief=True) as journal:
        journal.write(LINE)
        journal.write({"step": 3, "epoch": 1, "validation": {"f2": 0.9, "tags": {}}})
    found = {
        (value.tag, event.step)
        for path in (tmp_path / "logs").iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    }
    assert found == {("loss", 3), ("images_per_second", 3), ("validation/f2", 3)}


def test_the_chief_alone_writes(tmp_path):
    with Journal(config(tmp_path), is_chief=False) as journal:
        journal.write(LINE)
        assert not journal.lacks_validation(3)
    assert not list(tmp_path.iterdir())


def test_a_run_tells_loss_speed_and_the_wait_for_its_input(trained):
    lines = [json.loads(line) for line in (trained.model_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == sorted({line["step"] for line in steps})
    for line in steps:
        assert line["epoch"] == 1
        assert line["loss"] > 0
        assert line["images_per_second"] > 0
        assert 0 <= line["input_wait_share"] < 1
        assert line["learning_rate"] >= 0
    assert lines[-1]["validation"]["records"] > 0
