"""Interrupts that come where Python drops what is raised."""

import ctypes
import signal
import subprocess
import sys
import time

import pytest

from canopy import cli, interrupts
from tests.canopy.programs import python

# What the signal finds Python doing: each drops whatever is raised within it.
DESTRUCTOR = (
    "class Torn:\n    def __del__(self): signal.raise_signal(NUMBER)\ndef taken_apart():\n    Torn()\n"
)
CALLBACK = (
    "import weakref\n"
    "class Torn: pass\n"
    "def taken_apart():\n"
    "    torn = Torn()\n"
    "    global kept\n"
    "    kept = weakref.ref(torn, lambda _: signal.raise_signal(NUMBER))\n"
)
NATIVE = (
    "import ctypes\n"
    "def taken_apart():\n"
    "    ctypes.pythonapi.PyRun_SimpleString(b'signal.raise_signal(NUMBER)')\n"
)
ENDS = [(signal.SIGINT, 130, b"interrupted\n"), (signal.SIGTERM, 143, b"stopped by SIGTERM\n")]


@pytest.mark.parametrize("program", [DESTRUCTOR, CALLBACK, NATIVE], ids=["destructor", "callback", "native"])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize(("number", "code", "word"), ENDS)
def test_an_interrupt_that_python_drops_ends_the_command_all_the_same(program, times, number, code, word):
    process = python(
        f"import signal\nNUMBER = {int(number)}\n{program}"
        "def command():\n"
        f"    for _ in range({times}): taken_apart()\n"
        "    print('goes on', flush=True)\n"
        "    for _ in range(200): time.sleep(0.1)\n"
        "sys.exit(cli.run(command))",
        stdout=subprocess.PIPE,
    )
    begun = time.monotonic()
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out, said) == (code, b"goes on\n", word)
    assert time.monotonic() - begun < 15


def test_an_interrupt_dropped_at_the_very_end_changes_nothing_that_is_done() -> None:
    process = python(
        f"import signal\nNUMBER = 2\n{DESTRUCTOR}code = cli.run(taken_apart)\ntime.sleep(0.5)\nprint(code)",
        stdout=subprocess.PIPE,
    )
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out, said) == (0, b"0\n", b"")


def test_whatever_else_is_dropped_is_told_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[sys.UnraisableHookArgs] = []
    printed: list[BaseException] = []
    before, printed_before = sys.unraisablehook, sys.excepthook
    sys.unraisablehook, sys.excepthook = told.append, lambda _, error, trace: printed.append(error)
    try:
        with interrupts.heeded():

            class Torn:
                def __del__(self) -> None:
                    raise ValueError("of its own")

            Torn()
            ctypes.pythonapi.PyRun_SimpleString(b"raise ValueError('native')")
        assert sys.unraisablehook == told.append
    finally:
        sys.unraisablehook, sys.excepthook = before, printed_before
    assert [str(one.exc_value) for one in told] == ["of its own"]
    assert list(map(str, printed)) == ["native"]
    assert cli.run(lambda: None) == 0
    assert capsys.readouterr().err == ""
