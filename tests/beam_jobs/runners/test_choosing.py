"""The runner and the mode that fit, and options that are refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from beam_jobs.runners import choosing
from beam_jobs.runners.choosing import Choice
from canopy import machine
from canopy.cli import UserError


def choose(*arguments: str, images: int = 1000, remote: bool = False, pieces: int = 5_000) -> Choice:
    return choosing.choose(
        choosing.parse_options(arguments),
        arguments,
        images=images,
        remote=remote,
        processes_from=choosing.processes_from(images, [], remote),
        pieces=pieces,
        each=choosing.PLAIN_BYTES,
    )


def test_the_default_fits_the_size_and_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert choose(images=10**6) == Choice("FnApiRunner", "in_memory", 1, 1)
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert choose(images=2_000) == Choice("FnApiRunner", "in_memory", 1, 2)
    assert choose(images=8_000) == Choice("FnApiRunner", "in_memory", 1, 1, processes=2)
    monkeypatch.setattr(machine, "cores", lambda: 16)
    assert choose(images=1000) == Choice("FnApiRunner", "in_memory", 1, 16)
    assert choose(images=10**6) == Choice("FnApiRunner", "in_memory", 1, 1, processes=16)


def test_many_images_of_a_store_are_read_by_many_threads_of_several_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 2)
    assert choose(images=8_000, remote=True) == Choice("FnApiRunner", "in_memory", 1, 8)
    assert choose(images=10**6, remote=True) == Choice("FnApiRunner", "multi_processing", 2, 8)


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("images", [1, 10**6])
def test_without_arguments_the_choice_needs_no_options(images: int, remote: bool) -> None:
    few = choosing.processes_from(images, [], remote)
    found = choosing.choose(
        None,
        [],
        images=images,
        remote=remote,
        processes_from=few,
        pieces=5_000,
        each=choosing.PLAIN_BYTES,
    )
    assert found == choose(images=images, remote=remote)


def test_work_that_keeps_all_cores_busy_by_itself_stays_in_one_process() -> None:
    choice = choosing.choose(
        choosing.parse_options([]),
        [],
        images=10**6,
        remote=False,
        processes_from=math.inf,
        pieces=1_000,
        each=choosing.PLAIN_BYTES,
    )
    assert (choice.mode, choice.processes) == ("in_memory", 0)


def test_what_the_user_says_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 16)
    assert choose("--direct_running_mode=in_memory", images=10**6).processes == 0
    assert choose("--direct_running_mode", "multi_processing", images=10).mode == "multi_processing"
    several = choose("--direct_running_mode=multi_threading", "--direct_num_workers=3")
    assert (several.mode, several.workers) == ("multi_threading", 3)
    assert choose("--direct_num_workers=3", images=10**6).processes == 3
    assert choose("--direct_num_workers=0", images=10**6).processes == 16
    assert choose("--direct_num_workers=1", images=10**6).processes == 0
    assert choose("--runner=FlinkRunner") == Choice("FlinkRunner", "", 0, 2)
    assert choose("--runner=FlinkRunner", remote=True) == Choice("FlinkRunner", "", 0, 8)


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(UserError, match="--direct_num_workers must not be negative, and is -3"):
        choose("--direct_num_workers=-3")


def test_more_processes_than_memory_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 25e9)
    words = r"^--direct_num_workers 2000 takes at least {} GB of memory, and this machine has 25\.0 GB, for "
    with pytest.raises(UserError, match=words.format(r"41\.9")):
        choose("--direct_num_workers=2000", images=10**6)
    with pytest.raises(UserError, match=words.format(r"268\.4")):
        choose("--direct_num_workers=2000", "--direct_running_mode=multi_processing", images=1)
    assert choose("--direct_num_workers=1000", images=10**6).processes == 1_000
    assert choose("--direct_num_workers=2000", images=1_000).threads == 2_000


def test_left_alone_there_are_no_more_processes_than_memory_has_ample_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 128)
    for gib, plain, beams in ((64, 128, 128), (4, 51, 8), (2, 25, 4)):
        monkeypatch.setattr(machine, "memory", lambda gib=gib: gib * 2.0**30)
        for number in ((), ("--direct_num_workers=0",)):
            assert choose(*number, images=10**6).processes == plain
            assert choose(*number, images=10**6, remote=True).workers == beams
            assert choose(*number, "--direct_running_mode=multi_processing").workers == beams
        assert choose("--direct_num_workers=60", images=10**6).processes == 60
    monkeypatch.setattr(machine, "memory", lambda: 1.0)
    assert choose(images=10**6) == Choice("FnApiRunner", "in_memory", 1, 128)
    assert choose(images=10**6, remote=True).workers == 1


def test_no_process_is_started_that_would_have_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 64)
    monkeypatch.setattr(machine, "memory", lambda: math.inf)
    assert choose(images=10_000, pieces=18) == Choice("FnApiRunner", "in_memory", 1, 4, processes=18)
    assert choose(images=10_000, pieces=64) == Choice("FnApiRunner", "in_memory", 1, 1, processes=64)
    assert choose(images=10_000, pieces=1) == Choice("FnApiRunner", "in_memory", 1, 64)
    assert choose("--direct_num_workers=20", images=10_000, pieces=18) == Choice(
        "FnApiRunner", "in_memory", 1, 2, processes=18
    )


def test_no_more_processes_are_started_than_open_files_allow(
    monkeypatch: pytest.MonkeyPatch, files_allowed: Callable[[int], None]
) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 128)
    monkeypatch.setattr(machine, "memory", lambda: math.inf)
    files_allowed(256)
    assert choose(images=10**6).processes == 64
    assert choose(images=10**6, remote=True).workers == 25
    assert choose("--direct_num_workers=120", images=10**6).processes == 120
    with pytest.raises(UserError, match=r"^--direct_num_workers 121 takes 258 open files, and a process may"):
        choose("--direct_num_workers=121", images=10**6)


def test_misspelt_beam_options_are_refused() -> None:
    with pytest.raises(UserError, match="--direct_num_worker "):
        choosing.parse_options(["--direct_num_worker", "3"])
    with pytest.raises(UserError, match="direct_running_mode"):
        choosing.parse_options(["--direct_running_mode=fast"])
    for runner in ("FlinkRunner", "a.module.Runner"):
        choosing.parse_options([f"--runner={runner}", "--of_its_own=4"])


def test_few_images_that_are_large_are_as_much_work_as_many_small_ones() -> None:
    chips, pictures = [16_000] * 5_000, [2_000_000] * 5_000
    assert choosing.processes_from(2_999, chips[:2_999]) == choosing.MANY_IMAGES > 2_999
    assert choosing.processes_from(5_000, chips) <= len(chips)
    assert choosing.processes_from(24, pictures[:24]) > 24
    assert choosing.processes_from(25, pictures[:25]) <= 25
    assert choosing.processes_from(2_999, [0] * 2_999) > 2_999  # of some stores' objects no size is known
    assert choosing.processes_from(99, pictures[:99], remote=True) == choosing.MANY_REMOTE_IMAGES
    assert choosing.processes_from(100, pictures[:100], remote=True) <= 100


def test_no_more_sizes_are_asked_for_than_it_takes_to_know() -> None:
    for size in (1, 60_000_000):
        left = iter([size] * (choosing.MANY_IMAGES + 1))
        choosing.processes_from(choosing.MANY_IMAGES - 1, left)
        assert next(left) == size
    untouched = iter([60_000_000])
    choosing.processes_from(choosing.MANY_IMAGES, untouched)
    assert next(untouched) == 60_000_000
