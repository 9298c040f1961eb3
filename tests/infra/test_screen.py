"""How `infra.submit` shows how things stand, on a terminal and where nobody sits at one."""

import re

import pytest

from infra import screen
from infra.screen import Screen
from tests.canopy.programs import on_a_terminal


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(screen, "time", clock)
    return clock


def test_how_a_job_stands_is_told_when_it_changes_and_once_a_minute(clock, capsys):
    with Screen() as shown:
        for _ in range(240):  # two minutes, asked twice a second
            shown.standing("1 running")
            clock.now += 0.5
        assert capsys.readouterr().err == "1 running\n" * 2
        shown.standing("1 of 1 done")
        assert capsys.readouterr().err == "1 of 1 done\n"


def test_stdout_holds_the_log_alone(capsys):
    with Screen() as shown:
        shown.standing("1 running")
        shown.note("something to read")
        shown.log("a line")
    assert capsys.readouterr() == ("a line\n", "1 running\nsomething to read\n")


SUBMITS = (
    "from infra.screen import Screen\n"
    "with Screen() as shown:\n"
    "    for many in (1, 90):\n"
    "        shown.standing('pods:' + many * ' 1 running')\n"
    "        time.sleep(0.6)\n"
    "    shown.note('something to read')\n"
    "    shown.log('a line')\n"
)


def test_on_a_terminal_how_a_job_stands_is_one_line_that_goes_away():
    shown, out = on_a_terminal(SUBMITS, "xterm-256color")
    assert out == "a line\n"
    assert "pods: 1 running" in shown
    assert max(len(line) for line in re.findall(r"pods:[^\x1b\r\n]*", shown)) < 100
    assert "…" in shown, "it is cut where the line ends"
    assert "something to read" in shown
    assert "pods:" not in shown.rpartition("\x1b[2K")[2], "the line is cleared in the end"


def test_a_terminal_that_cannot_redraw_a_line_gets_lines_and_none_of_the_escapes():
    shown, out = on_a_terminal(SUBMITS, "dumb")
    assert out == "a line\n"
    assert shown.splitlines() == ["pods: 1 running", "pods:" + 90 * " 1 running", "something to read"]
