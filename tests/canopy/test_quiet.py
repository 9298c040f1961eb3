"""Start-up chatter is dropped; what a library says of trouble is not."""

import os
import subprocess
import sys

from tests.conftest import ROOT

NOISE = "I0000 00:00:1700000000.123456   12345 port.cc:153] oneDNN custom operations are on."
NOTICE = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR"
TROUBLE = "E0000 00:00:1700000000.123456   12345 cuda_dnn.cc:8579] Unable to register cuDNN factory"


def told(program: str) -> tuple[int, list[str], str]:
    """Runs a program with `quiet` imported; its exit code, the lines on its stderr, and its stdout."""
    lines = "import os, subprocess, sys, threading\nfrom canopy import quiet\n"
    lines += f"N, W, T = {(NOISE, NOTICE, TROUBLE)!r}\n"
    lines += "def low(*texts):\n    for text in texts: os.write(2, text.encode() + b'\\n')\n"
    done = subprocess.run(
        [sys.executable, "-c", lines + program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr.splitlines(), done.stdout


def test_noise_on_the_file_descriptor_is_dropped_and_other_lines_come_through_in_order():
    code, lines, out = told(
        "with quiet.importing():\n"
        "    low(W, N, T)\n"
        "    print('a warning from Python', file=sys.stderr)\n"
        "    low(N, 'a line that has I0000 in it')\n"
        "print('after')\n"
    )
    assert code == 0
    assert lines == [TROUBLE, "a warning from Python", "a line that has I0000 in it"]
    assert out == "after\n"


def test_noise_of_a_child_process_is_dropped_too():
    _, lines, _ = told(
        "with quiet.importing():\n    subprocess.run(['sh', '-c', f'echo \"{N}\" >&2; echo \"{T}\" >&2'])\n"
    )
    assert lines == [TROUBLE]


def test_afterwards_the_same_words_come_through_untouched():
    _, lines, _ = told("with quiet.importing():\n    low(N)\nlow(N)\nprint('after', file=sys.stderr)\n")
    assert lines == [NOISE, "after"]


def test_what_is_on_its_way_at_the_start_or_the_end_stays_where_it_was():
    _, lines, _ = told(
        "sys.stderr.write('before ')\n"
        "with quiet.importing():\n"
        "    low('within')\n"
        "    sys.stderr.write('at the end ')\n"
        "low('after')\n"
    )
    assert lines == ["before within", "at the end after"]


def test_an_import_that_fails_shows_all_it_wrote_before_its_traceback():
    code, lines, _ = told("with quiet.importing():\n    low(N, T)\n    import no_such_module\n")
    assert code == 1
    assert lines[:2] == [NOISE, TROUBLE]
    assert lines[-1] == "ModuleNotFoundError: No module named 'no_such_module'"


def test_within_one_another_the_outer_and_the_inner_drop_noise():
    _, lines, _ = told(
        "with quiet.importing():\n"
        "    low(N, 'one')\n"
        "    with quiet.importing():\n"
        "        low(N, 'two')\n"
        "    low(N, 'three')\n"
        "low('four')\n"
    )
    assert lines == ["one", "two", "three", "four"]


def test_two_threads_that_import_at_once_leave_stderr_where_it_was():
    _, lines, out = told(
        "first, second = threading.Event(), threading.Event()\n"
        "def one():\n"
        "    with quiet.importing():\n"
        "        first.set()\n"
        "        print(second.wait(20))\n"
        "def two():\n"
        "    first.wait(20)\n"
        "    with quiet.importing():\n"
        "        second.set()\n"
        "        threads[0].join()\n"
        "threads = [threading.Thread(target=one), threading.Thread(target=two)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "low('after')\n"
        "print('after as well', file=sys.stderr)\n"
    )
    assert lines == ["after", "after as well"]
    assert out == "True\n", "one waits for the other"


def test_what_another_thread_imports_later_is_quiet_as_well():
    _, lines, _ = told(
        "def load():\n"
        "    with quiet.importing():\n"
        "        low(N, T)\n"
        "load()\n"
        "thread = threading.Thread(target=load)\n"
        "thread.start()\n"
        "thread.join()\n"
    )
    assert lines == [TROUBLE, TROUBLE]


def test_a_stderr_that_is_no_file_does_not_stop_the_lines_on_the_descriptor():
    _, lines, _ = told("import io\nsys.stderr = io.StringIO()\nwith quiet.importing():\n    low(N, T)\n")
    assert lines == [TROUBLE]


def test_tensorflow_starts_without_a_word():
    code, lines, out = told(
        "with quiet.importing():\n    import tensorflow as tf\nprint(int(tf.constant(1) + 1))\n"
    )
    assert (code, lines, out) == (0, [], "2\n")


def test_an_import_is_not_searched_for_garbage_which_is_collected_again_afterwards():
    code, lines, out = told(
        "import gc\n"
        "with quiet.uncollected():\n"
        "    before = gc.get_stats()\n"
        "    made = [[] for _ in range(1_000_000)]\n"
        "    print(gc.isenabled(), gc.get_stats() == before)\n"
        "kept = gc.get_freeze_count()\n"
        "print(gc.isenabled(), kept > 1_000_000)\n"
        "gc.disable()\n"
        "with quiet.uncollected():\n"
        "    pass\n"
        "print(gc.isenabled())\n"
    )
    assert (code, lines) == (0, [])
    assert out.split() == ["False", "True", "True", "True", "False"]


def test_grpc_asks_no_proxy_unless_the_user_has_named_one_for_it(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    for named in ("http://127.0.0.1:1", None):
        monkeypatch.setenv("grpc_proxy", named) if named else monkeypatch.delenv("grpc_proxy")
        _, _, out = told("with quiet.importing():\n    pass\nprint(os.environ['grpc_proxy'])\n")
        assert out == f"{named or ''}\n"


def test_a_process_takes_of_a_gpus_memory_what_it_needs_unless_the_user_has_it_otherwise(monkeypatch):
    for named in ("false", None):
        name = "TF_FORCE_GPU_ALLOW_GROWTH"
        monkeypatch.setenv(name, named) if named else monkeypatch.delenv(name)
        _, _, out = told(f"with quiet.importing():\n    pass\nprint(os.environ['{name}'])\n")
        assert out == f"{named or 'true'}\n"
