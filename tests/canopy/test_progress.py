"""Progress: lines in a log, a bar on a terminal, and stdout left to the command."""

import re

import pytest

from canopy import progress
from canopy.progress import Meter
from tests.canopy.programs import on_a_terminal


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_gets_at_most_one_line_each_ten_seconds_however_often_it_is_told(clock, capsys):
    with Meter("reading", 4_000) as meter:
        for done in range(1, 351):
            clock.now += 0.125
            meter.update(done * 10)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"reading: {done:,} of 4,000 images, 80 images/s, {(4_000 - done) // 80} s left"
        for done in (800, 1_600, 2_400, 3_200)
    ]


def test_short_work_leaves_no_line(clock, capsys):
    with Meter("reading", 10) as meter:
        for done in range(10):
            meter.update(done)
            clock.now += 0.9
    assert capsys.readouterr() == ("", "")


def test_what_passes_by_is_counted_and_shown_now_and_then(clock, capsys):
    passed = []
    with Meter("listing", None, unit="files") as meter:
        for unit in meter.counted(range(10_000)):
            clock.now += 1 / 256
            passed.append(unit)
    assert passed == list(range(10_000))
    assert capsys.readouterr().err.splitlines() == [
        f"listing: {done:,} files, 256 files/s" for done in (3_000, 6_000, 9_000)
    ]


def test_units_add_up_and_lines_go_where_they_are_wanted(clock, capsys):
    said: list[str] = []
    with Meter("reading", None, say=said.append) as meter:
        for _ in range(2):
            clock.now += 10
            meter.add(50)
    assert said == ["reading: 50 images, 5 images/s", "reading: 100 images, 5 images/s"]
    assert capsys.readouterr() == ("", "")


def test_work_without_a_known_end_says_how_much_is_done_and_a_note(clock, capsys):
    with Meter("training", None, unit="steps") as meter:
        clock.now += 20
        meter.update(50, note="loss 0.31")
    assert capsys.readouterr().err == "training: 50 steps, 2.5 steps/s, loss 0.31\n"


def test_work_that_has_not_begun_promises_no_end(clock, capsys):
    with Meter("reading", 10) as meter:
        clock.now += 60
        meter.update(0)
    assert capsys.readouterr().err == "reading: 0 of 10 images, 0 images/s\n"


def test_large_pictures_of_which_each_takes_seconds_have_a_speed_too(clock, capsys):
    with Meter("converting", 100) as meter:
        clock.now += 20
        meter.update(5)
    assert capsys.readouterr().err == "converting: 5 of 100 images, 0.25 images/s, 380 s left\n"


READS = (
    "from canopy import progress\nprogress.LINE_SECONDS = 0.1\n"
    "with progress.Meter('reading', 40) as meter:\n"
    "    for done in range(41):\n"
    "        meter.update(done)\n"
    "        time.sleep(0.02)\n"
    "print('made it')\n"
)


def test_a_terminal_shows_a_bar_that_goes_away_and_stdout_only_the_commands_own_words():
    shown, out = on_a_terminal(READS, "xterm-256color")
    assert out == "made it\n"
    assert "reading" in shown
    assert "reading: " not in shown
    assert "━" in shown
    assert "images/s" in shown
    counts = [int(count) for count in re.findall(r"(\d+)/40", shown)]
    assert counts == sorted(counts)
    assert len(set(counts)) > 3
    assert "\x1b[2K" in shown.rpartition("images/s")[2]  # the line is cleared in the end


def test_a_terminal_that_cannot_redraw_a_line_gets_lines_and_none_of_the_escapes():
    shown, out = on_a_terminal(READS, "dumb")
    assert out == "made it\n"
    assert "\x1b" not in shown
    assert re.search(r"reading: \d+ of 40 images", shown)


def test_what_an_earlier_start_did_is_counted_and_makes_this_one_no_faster(clock, capsys):
    with Meter("training", 2_000, done=1_000) as meter:
        clock.now += 10
        meter.update(1_200)
    assert capsys.readouterr().err == "training: 1,200 of 2,000 images, 20 images/s, 40 s left\n"
