"""How `infra.submit` shows how things stand where nobody sits at a terminal."""

import pytest

from infra import screen
from infra.screen import Screen


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
