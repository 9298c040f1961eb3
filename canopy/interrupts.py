"""Ctrl-C and SIGTERM, which unwind a command wherever they come.

Promises: SIGTERM raises KeyboardInterrupt in the main thread as Ctrl-C does, once. An interrupt that Python
itself drops, as it drops whatever is raised while an object is taken apart, is raised again; so is one that a
library's native code prints and forgets.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import TracebackType

# Python is out of the code that drops exceptions long before; nobody feels that Ctrl-C took so much longer.
AGAIN_SECONDS = 0.05


@contextlib.contextmanager
def heeded() -> Iterator[list[int]]:
    """Makes signals unwind what runs in the block; yields a list that is empty unless SIGTERM came."""
    came: list[int] = []
    with _unwinding(came), _raised_again(came):
        yield came


@contextlib.contextmanager
def _unwinding(came: list[int]) -> Iterator[None]:
    """Makes SIGTERM raise KeyboardInterrupt once, and notes it.

    A container's first process ignores a signal that it has no handler for: its pod would only end by
    SIGKILL, after its grace period.
    """
    owner = os.getpid()

    def unwind(number: int, _: object) -> None:
        if os.getpid() != owner:  # a fork's copy: it has nothing to tidy up
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt

    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _raised_again(came: list[int]) -> Iterator[None]:
    """Brings an interrupt back that came in a destructor, a weak reference's callback or native code.

    Python hands what is raised in the first two to `sys.unraisablehook`, and goes on as if nothing had been
    raised; native code that has no caller to hand it to, as some of TensorFlow's while it is imported, goes
    on likewise, by way of `sys.excepthook`.
    """
    before, printed_before = sys.unraisablehook, sys.excepthook
    timers: list[threading.Timer] = []

    def again() -> None:
        number = signal.SIGTERM if came else signal.SIGINT
        came.clear()  # SIGTERM's handler raises for the first alone
        # Not at once: whatever is raised in here is dropped, too.
        timers.append(threading.Timer(AGAIN_SECONDS, _thread.interrupt_main, [number]))
        timers[-1].start()

    def unraisable(dropped: sys.UnraisableHookArgs) -> None:
        if dropped.exc_type is KeyboardInterrupt:
            again()
        else:
            before(dropped)

    def printed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if kind is KeyboardInterrupt:
            again()
        else:
            printed_before(kind, error, trace)

    sys.unraisablehook, sys.excepthook = unraisable, printed
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
        sys.unraisablehook, sys.excepthook = before, printed_before
