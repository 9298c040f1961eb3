"""A study that workers share, in a file and in a database: who takes what, and what outlives a worker."""

import contextlib
import importlib.util
import multiprocessing
import sqlite3
import time
from types import SimpleNamespace

import pytest

from canopy.cli import UserError
from trainer.tuning import sampling, search, slots, storage
from trainer.tuning import study as study_module
from trainer.tuning.study import MAX_DEATHS, Study, TakenError, best_of

SPACE = search.chosen(["learning_rate=1e-4..1e-2:log", "augment=d4,none"], ["weight_decay", "image_size"])
TERMS = {"fingerprint of --data": "abc", "--space learning_rate": "1e-4..1e-2:log", "--epochs": 3}


@pytest.fixture(params=["file", "database"])
def place(request, tmp_path):
    return str(tmp_path / "study.log") if request.param == "file" else f"sqlite:///{tmp_path}/study.db"


def join(place, tmp_path, wanted=3, stale_after=60.0, terms=TERMS, seed=0, name="canopy"):
    """A worker: each opens the study for itself, as processes on several machines do."""
    study = storage.open_study(
        place,
        name,
        terms=terms,
        output=tmp_path / "trials",
        sampler=sampling.SeededSampler(seed, SPACE.baseline()),
        pruner=sampling.make_pruner("median", 3),
    )
    return Study(study, wanted, stale_after)


def number_of_best(worker):
    best = best_of(worker.trials())
    return best and best.number


def test_workers_together_end_at_the_number_wanted(place, tmp_path):
    workers = [join(place, tmp_path), join(place, tmp_path)]
    done = 0
    for turn in range(20):
        worker = workers[turn % 2]
        trial = worker.claim(SPACE)
        if trial is None:
            break
        worker.tell(trial, 0.5 + turn / 100, seconds=1.0)
        done += 1
    assert done == 3
    assert [len(worker.trials()) for worker in workers] == [3, 3]
    assert {trial.user_attrs["seconds"] for trial in workers[0].trials()} == {1.0}
    assert number_of_best(workers[0]) == 2


def test_workers_that_start_with_one_seed_do_not_draw_the_same_and_a_search_can_be_repeated(place, tmp_path):
    first, second = join(place, tmp_path), join(place, tmp_path)
    drawn = [first.claim(SPACE).params, second.claim(SPACE).params]
    assert drawn[0] != drawn[1]
    again = join(place, tmp_path, name="again")
    assert [again.claim(SPACE).params, again.claim(SPACE).params] == drawn


def test_a_silent_workers_trial_is_tried_again_by_one_of_the_others(place, tmp_path):
    dead = join(place, tmp_path, wanted=1)
    lost = dead.claim(SPACE)
    others = [join(place, tmp_path, wanted=1, stale_after=0.2) for _ in range(2)]
    assert [other.claim(SPACE) for other in others] == [None, None]
    assert [other.rescue() for other in others] == [[], []]
    time.sleep(0.3)
    assert sorted(others[0].rescue() + others[1].rescue()) == [lost.number]
    taken = [trial for other in others if (trial := other.claim(SPACE))]
    assert [trial.params for trial in taken] == [lost.params]
    assert taken[0].user_attrs["previous"] == lost.number
    with pytest.raises(TakenError):
        dead.tell(lost, 0.9)
    with pytest.raises(TakenError):
        dead.report(lost, 1, 0.9)
    dead._beats.clear()
    with pytest.raises(TakenError):
        dead.beat(lost)
    dead.tell(lost, why=slots.STOPPED)
    assert len(dead.entries()) == 2  # it is not tried a third time


def test_a_worker_that_gives_signs_of_life_keeps_its_trial(place, tmp_path):
    busy, watching = join(place, tmp_path, wanted=1), join(place, tmp_path, wanted=1, stale_after=0.5)
    trial = busy.claim(SPACE)
    for _ in range(6):
        busy._beats[trial.number] = (busy._beats[trial.number][0], -1e9)  # one is due
        busy.beat(trial)
        assert watching.rescue() == []
        time.sleep(0.15)
    busy.tell(trial, 0.7)
    assert len(watching.trials()) == 1


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until a test moves it."""
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(study_module, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


@pytest.mark.parametrize(("stale_after", "due"), [(60.0, 10.0), (1000.0, 20.0)])
def test_a_sign_of_life_comes_several_times_before_silence_counts(stale_after, due, place, tmp_path, clock):
    worker = join(place, tmp_path, stale_after=stale_after)
    trial = worker.claim(SPACE)
    beats = []
    for passed in (due - 1, 1, due - 1, 1):
        clock.now += passed
        worker.beat(trial)
        beats.append(worker.entries()[0].beat)
    assert beats == [1, 2, 2, 3]


def test_a_worker_is_lost_when_it_was_silent_for_the_whole_time_and_a_trial_that_waits_never_is(
    place, tmp_path, clock
):
    worker, watching = join(place, tmp_path), join(place, tmp_path)
    lost = worker.claim(SPACE)
    worker.study.enqueue_trial(lost.params)
    assert watching.rescue() == []
    clock.now += 59
    assert watching.rescue() == []
    clock.now += 1
    assert watching.rescue() == [lost.number]


def test_a_trial_whose_worker_died_before_it_handed_it_on_is_handed_on_by_another(
    place, tmp_path, clock, monkeypatch
):
    worker, other = join(place, tmp_path, wanted=1), join(place, tmp_path, wanted=1)
    stopped = worker.claim(SPACE)
    monkeypatch.setattr(worker, "_again", lambda number: None)
    worker.tell(stopped, why=slots.STOPPED)
    assert other.rescue() == []
    assert other.claim(SPACE) is None
    clock.now += 60
    assert other.rescue() == [stopped.number]
    assert other.claim(SPACE).params == stopped.params


def test_a_retry_whose_worker_died_while_it_took_it_up_is_tried_again_as_it_was(
    place, tmp_path, clock, monkeypatch
):
    worker, other = join(place, tmp_path, wanted=1), join(place, tmp_path, wanted=1)
    stopped = worker.claim(SPACE)
    worker.tell(stopped, why=slots.STOPPED)
    with monkeypatch.context() as moment:
        moment.setattr(worker.study._storage, "set_trial_param", None)
        with pytest.raises(TypeError):
            worker.claim(SPACE)
    assert other.rescue() == []
    clock.now += 60
    assert other.rescue() == [stopped.number + 1]
    again = other.claim(SPACE)
    assert (again.params, again.user_attrs["previous"]) == (stopped.params, stopped.number)


def test_the_first_trial_tries_the_defaults_also_where_it_was_lost_before_it_had_drawn_them(
    place, tmp_path, clock, monkeypatch
):
    worker, other = join(place, tmp_path), join(place, tmp_path)
    with monkeypatch.context() as moment:
        moment.setattr(worker.study._storage, "set_trial_param", None)
        with pytest.raises(TypeError):
            worker.claim(SPACE)
    second = other.claim(SPACE)
    assert second.params != SPACE.baseline()
    assert other.rescue() == []
    clock.now += 60
    assert 0 in other.rescue()
    again = other.claim(SPACE)
    assert (again.user_attrs["root"], again.params) == (0, SPACE.baseline())


def test_a_trial_that_ends_while_it_is_taken_for_lost_has_ended(place, tmp_path, clock, monkeypatch):
    worker, other = join(place, tmp_path, wanted=1), join(place, tmp_path, wanted=1)
    trial = worker.claim(SPACE)
    assert other.rescue() == []
    before = other.standing()
    monkeypatch.setattr(other, "standing", lambda: before)
    worker.tell(trial, 0.5)
    clock.now += 60
    assert other.rescue() == []
    assert [entry.state for entry in other.entries()] == ["complete"]


def test_who_asked_at_the_same_moment_and_came_second_takes_no_place(place, tmp_path, monkeypatch):
    first, second = join(place, tmp_path, wanted=1), join(place, tmp_path, wanted=1)
    before = second.standing()
    trial = first.claim(SPACE)
    with monkeypatch.context() as moment:
        moment.setattr(second, "standing", lambda: before)
        assert second.claim(SPACE) is None
    first.tell(trial, 0.5)
    assert [each.number for each in second.trials()] == [trial.number]
    assert not second.standing().unfinished


def test_a_trial_that_costs_worker_after_worker_is_given_up(place, tmp_path):
    watching = join(place, tmp_path, wanted=1, stale_after=0.05)
    tries = 0
    for _ in range(10):
        if join(place, tmp_path, wanted=1).claim(SPACE) is None:
            break
        tries += 1
        watching.rescue()
        time.sleep(0.1)
        watching.rescue()
    assert tries == MAX_DEATHS + 1
    assert watching.trials()[0].user_attrs["why"] == f"gave up: it cost {tries} workers"


def test_a_stopped_trial_is_taken_up_again_however_often_it_is_stopped(place, tmp_path):
    worker = join(place, tmp_path, wanted=1)
    tries = []
    for _ in range(MAX_DEATHS + 3):
        trial = worker.claim(SPACE)
        tries.append((trial.params, trial.user_attrs.get("previous")))
        worker.tell(trial, why=slots.STOPPED)
    assert tries == [(tries[0][0], number - 1 if number else None) for number in range(MAX_DEATHS + 3)]
    assert worker.entries()[-1].deaths == 0
    worker.tell(worker.claim(SPACE), 0.8)
    assert len(worker.trials()) == 1


def test_a_trial_that_is_worse_than_half_of_the_others_were_is_ended(place, tmp_path):
    worker = join(place, tmp_path, wanted=10)
    for _ in range(sampling.UNPRUNED_TRIALS):
        trial = worker.claim(SPACE)
        assert not any(worker.report(trial, epoch, 0.8) for epoch in (1, 2, 3))
        worker.tell(trial, 0.8)
    bad = worker.claim(SPACE)
    assert not worker.report(bad, 1, 0.3)  # the first epoch says little
    assert worker.report(bad, 2, 0.3)
    worker.report(bad, 3, 0.9)
    worker.tell(bad)
    assert len(worker.trials()) == sampling.UNPRUNED_TRIALS + 1
    assert number_of_best(worker) == 0  # whatever the ended one reached


def test_of_equal_trials_the_first_is_the_best_and_failed_ones_never_are(place, tmp_path):
    worker = join(place, tmp_path)
    worker.tell(worker.claim(SPACE), why="exit code 1")
    worker.tell(worker.claim(SPACE), 0.7)
    worker.tell(worker.claim(SPACE), 0.7)
    assert worker.claim(SPACE) is None
    assert number_of_best(worker) == 1
    assert best_of([]) is None


def test_a_score_of_zero_is_one(place, tmp_path):
    worker = join(place, tmp_path)
    worker.tell(worker.claim(SPACE), 0.0)
    assert number_of_best(worker) == 0


def test_another_data_set_another_space_or_another_flag_is_refused_with_what_differs(place, tmp_path):
    join(place, tmp_path)
    changed = {
        "fingerprint of --data": "xyz",
        "--space learning_rate": "1e-3..1e-2:log",
        "--space dropout": "0..0.5",
        "--epochs": 4,
        "--newer_flag": 1,
    }
    with pytest.raises(UserError) as refused:
        join(place, tmp_path, terms=changed)
    told = str(refused.value)
    assert "fingerprint of --data: was abc, is xyz" in told
    assert "--space learning_rate: was 1e-4..1e-2:log, is 1e-3..1e-2:log" in told
    assert "--space dropout: was not there, is 0..0.5" in told
    assert "--epochs: was 3, is 4" in told
    assert "newer_flag" not in told
    join(place, tmp_path, terms={**TERMS, "--newer_flag": 1})


def test_trials_of_an_unknown_study_are_not_written_over(place, tmp_path):
    (tmp_path / "trials" / "trial-0000").mkdir(parents=True)
    with pytest.raises(UserError, match="does not know"):
        join(place, tmp_path)
    assert not (tmp_path / "study.log").exists()
    (tmp_path / "trials" / "trial-0000").rmdir()
    assert join(place, tmp_path).claim(SPACE)


def test_a_file_that_holds_another_study_outlives_the_refusal_of_one(tmp_path):
    place = str(tmp_path / "study.log")
    number = join(place, tmp_path).claim(SPACE).number
    (tmp_path / "trials" / f"trial-{number:04d}").mkdir(parents=True)
    with pytest.raises(UserError, match="does not know"):
        join(place, tmp_path, name="another")
    assert join(place, tmp_path).claim(SPACE).number == number + 1


@pytest.mark.parametrize("content", [b"image_name,tags\na,b", b"\x00\xff\x00", b'{"a": 1}\n', b"[1]\n"])
def test_a_file_that_is_no_study_is_refused_and_left_alone(content, tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be opened"):
        join(str(path), tmp_path)
    assert path.read_bytes() == content


def test_a_database_of_another_optuna_is_refused(tmp_path):
    path = tmp_path / "study.db"
    join(f"sqlite:///{path}", tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'v3.0.0.d'")
        database.commit()
    with pytest.raises(UserError, match="cannot be opened"):
        join(f"sqlite:///{path}", tmp_path)


def test_a_line_that_was_cut_short_costs_that_line_alone(tmp_path):
    path = tmp_path / "study.log"
    worker = join(str(path), tmp_path)
    worker.tell(worker.claim(SPACE), 0.7)
    with path.open("ab") as file:
        file.write(b'{"op_code":5,"worker_id"')
    again = join(str(path), tmp_path)
    again.tell(again.claim(SPACE), 0.8)
    assert [trial.value for trial in join(str(path), tmp_path).trials()] == [0.7, 0.8]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nodatabase://user:secret@host/name", "cannot be opened"),
        ("sqlite:////nowhere/at/all/study.db", "cannot be opened: there is no folder /nowhere/at/all$"),
        ("sqlite:///nowhere/study.db", "no folder nowhere; from the root it takes four slashes"),
        ("sqlite://", "is a database in memory"),
        ("sqlite:///:memory:", "is a database in memory"),
        ("sqlite://study.db", "cannot be opened"),
        ("://", "cannot be opened"),
        ("postgresql://user:secret@host:port/name", r"--study postgresql://\.\.\. cannot be opened .*'port'"),
        ("nodatabase://host/name?user=u&password=secret", r"name\?password=\*\*\*&user=u cannot be opened"),
        ("postgresql://user:pass@secret@host/name", "a password's @ has to be written as %40"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_sentence_without_the_password(address, said, tmp_path):
    with pytest.raises(UserError, match=said) as refused:
        join(address, tmp_path)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("scheme", "module", "package"),
    [
        ("postgresql+psycopg", "psycopg", "psycopg[binary]"),
        ("mysql+mysqldb", "MySQLdb", "mysqlclient"),
        ("oracle+oracledb", "oracledb", "oracledb"),
    ],
)
def test_a_database_without_its_driver_names_the_command_that_installs_it(scheme, module, package, tmp_path):
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed here")
    with pytest.raises(UserError) as refused:
        join(f"{scheme}://user:secret@host/name", tmp_path)
    assert str(refused.value).endswith(f"-m pip install '{package}'")
    assert "secret" not in str(refused.value)


def _take_turns(place, folder, wanted, numbers):
    worker = join(place, folder, wanted=wanted)
    while len(worker.standing().finished) < wanted:
        trial = worker.claim(SPACE)
        if trial is not None:
            numbers.append(trial.number)
            with contextlib.suppress(TakenError):
                worker.tell(trial, 0.5)


def test_processes_that_hurry_share_one_study(place, tmp_path):
    join(place, tmp_path)  # the tables of a database are made once
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        numbers = manager.list()
        turns = (place, tmp_path, 6, numbers)
        processes = [context.Process(target=_take_turns, args=turns) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        assert len(set(numbers)) == len(numbers) == 6
    assert len(join(place, tmp_path).trials()) == 6
