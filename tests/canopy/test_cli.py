"""How commands end: the exit code, one line on stderr, and never a traceback for what is no bug."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from canopy import cli
from canopy.cli import Parser, PeerLostError, TryAgainError, UserError
from tests.canopy.programs import python, words
from tests.conftest import ROOT

needs_a_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def with_a_reader_that_goes_away(line: list[str], unbuffered: str = "") -> tuple[int, bytes]:
    """Runs a command into a pipe that nobody reads, as `| head` after its last line; code and stderr."""
    reader, writer = os.pipe()
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    process = subprocess.Popen(line, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(reader)
    os.close(writer)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("--labels x.csv does not exist"), 2, "error: --labels x.csv does not exist\n"),
        (MemoryError(), 2, "error: out of memory: give the command more, or fewer workers to share it\n"),
        (PeerLostError("worker 1 did not come"), 75, "peer lost: worker 1 did not come\n"),
        (TryAgainError("the store is busy"), 75, "out of reach for now: the store is busy\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_expected_ending_is_one_line_on_stderr_and_its_exit_code(raised, code, said, capsys):
    def command():
        raise raised

    assert cli.run(command) == code
    assert capsys.readouterr() == ("", said)


def test_a_machine_without_a_place_for_temporary_files_is_told(monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    assert cli.run(lambda: tempfile.TemporaryFile().close()) == 2
    said = "error: No usable temporary directory found in ['/nowhere']: TMPDIR names where there is one\n"
    assert capsys.readouterr() == ("", said)


def test_another_file_that_is_not_there_is_a_bug():
    with pytest.raises(FileNotFoundError):
        cli.run(Path("/nowhere/at/all").unlink)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("été\u00a0🌳\u3000森", "été\u00a0🌳\u3000森"),
        ("a\x1b]0;owned\x07b", r"a\x1b]0;owned\x07b"),
        ("up\x9b1A\b\x7f", r"up\x9b1A\x08\x7f"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_what_a_terminal_would_act_upon_is_shown_as_an_escape(line, shown, capsys):
    cli.tell([line, "b"])
    assert capsys.readouterr().out == f"{shown}\nb\n"

    def command():
        raise UserError(line)

    assert cli.run(command) == 2
    assert capsys.readouterr().err == f"error: {shown}\n"


def test_a_command_that_returns_ends_with_0_and_adds_nothing(capsys):
    assert cli.run(lambda: print("done")) == 0
    assert capsys.readouterr() == ("done\n", "")


def test_a_command_that_has_told_why_it_ends_names_its_code(capsys):
    assert cli.run(lambda: 7) == 7
    assert capsys.readouterr() == ("", "")


def test_a_bug_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda: print(1 // 0))


def test_a_librarys_words_of_several_lines_still_make_one_line(capsys):
    def command():
        raise UserError("cannot read a.csv: first\nsecond")

    assert cli.run(command) == 2
    assert capsys.readouterr().err == "error: cannot read a.csv: first second\n"


@pytest.mark.parametrize(("said", "line"), [("one\ntwo", "one"), ("\n one\n", "one"), ("", "OSError")])
def test_an_exceptions_first_line_is_never_empty(said, line):
    assert cli.first_line(OSError(said)) == line


def test_a_mistake_of_the_users_shows_no_traceback_in_a_real_process():
    process = python("def command(): raise cli.UserError('no such file')\nsys.exit(cli.run(command))")
    assert process.communicate(timeout=60)[1] == b"error: no such file\n"
    assert process.returncode == 2


@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_ends_a_command_without_a_word(lines, unbuffered):
    program = f"def command():\n    for i in range({lines}): print('line', i)\nsys.exit(cli.run(command))"
    code, said = with_a_reader_that_goes_away(words(program), unbuffered)
    assert said == b""
    # One line is still in the buffer when the work is done: then nothing was cut short.
    assert code == (0 if lines == 1 and not unbuffered else 141)


# macOS tells of a stream only what it is asked for; asked for nothing, not even that its reader is gone.
TELLS_NOTHING_UNASKED = (
    "import select\n"
    "class Poll:\n"
    "    def __init__(self): self.real = real()\n"
    "    def register(self, stream, events): events and self.real.register(stream, events)\n"
    "    def poll(self, wait): return self.real.poll(wait)\n"
    "real, select.poll = select.poll, Poll\n"
)


def test_a_reader_that_goes_away_is_noticed_where_the_system_tells_only_what_it_is_asked_for():
    program = "def command():\n    for i in range(9): print('line', i)\nsys.exit(cli.run(command))"
    assert with_a_reader_that_goes_away(words(TELLS_NOTHING_UNASKED + program), "1") == (141, b"")


def test_help_into_a_reader_that_goes_away_shows_no_traceback():
    code, said = with_a_reader_that_goes_away([sys.executable, "-m", "canopy.sample", "--help"])
    assert said == b""
    assert code == 0


def test_a_mistake_is_told_even_where_nobody_reads_stdout():
    program = (
        "def command():\n    print('begun')\n    raise cli.UserError('no such file')\n"
        "sys.exit(cli.run(command))"
    )
    assert with_a_reader_that_goes_away(words(program)) == (2, b"error: no such file\n")


@pytest.mark.parametrize(
    ("work", "shown"),
    [
        ("reader, writer = os.pipe(); os.close(reader); os.write(writer, b'x')", b"BrokenPipeError"),
        pytest.param(
            "with open('/dev/full', 'w') as file: file.write('x')",
            b"OSError: [Errno 28]",
            marks=needs_a_full_disk,
        ),
    ],
)
def test_a_pipe_or_a_file_of_the_commands_own_is_no_matter_of_stdouts(work, shown):
    program = f"def command():\n    {work}\nsys.exit(cli.run(command))"
    process = python(program, stdout=subprocess.DEVNULL)
    assert shown in process.communicate(timeout=60)[1]
    assert process.returncode == 1


CLOSED = (
    "import os, sys\nfrom canopy import cli, quiet\nfrom canopy.progress import Meter\n"
    "def command():\n"
    "    with quiet.importing(), Meter('reading', 4):\n"
    "        print('some', flush=True), print('more', file=sys.stderr)\n"
    "    file = open('held.txt', 'w')\n"
    "    os.system('echo a child; echo a child >&2')\n"
    "    assert file.fileno() > 2\n"
    "    raise cli.UserError('no such file')\n"
    "sys.exit(cli.run(command))"
)
OUT, ERR = "some\na child\n", "more\na child\nerror: no such file\n"


@pytest.mark.parametrize(
    ("closed", "out", "err"),
    [("<&-", OUT, ERR), (">&-", "", ERR), ("2>&-", OUT, ""), ("<&- >&- 2>&-", "", "")],
)
def test_a_closed_stream_changes_nothing_but_what_is_seen(closed, out, err, tmp_path):
    line = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, CLOSED]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, out, err)
    assert (tmp_path / "held.txt").read_text() == ""


@needs_a_full_disk
@pytest.mark.parametrize("lines", [1, 100_000])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_stdout_is_one_sentence_and_no_success(lines, unbuffered):
    with Path("/dev/full").open("w") as full:
        process = python(
            f"def command():\n    for i in range({lines}): print('line', i)\nsys.exit(cli.run(command))",
            stdout=full,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
        said = process.communicate(timeout=60)[1]
    assert said == b"error: stdout cannot be written: No space left on device\n"
    assert process.returncode == 2


@needs_a_full_disk
def test_a_full_stdout_takes_the_place_of_no_other_ending():
    with Path("/dev/full").open("w") as full:
        process = python(
            "def command():\n    print('begun')\n    raise cli.PeerLostError('worker 1 did not come')\n"
            "sys.exit(cli.run(command))",
            stdout=full,
            env={**os.environ, "PYTHONUNBUFFERED": ""},
        )
        said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (75, b"peer lost: worker 1 did not come\n")


@needs_a_full_disk
@pytest.mark.parametrize(("ends", "code"), [("pass", 0), ("raise cli.TryAgainError('no answer')", 75)])
def test_a_full_stderr_costs_no_work_and_changes_no_code(ends, code):
    program = (
        "from canopy import progress\nprogress.LINE_SECONDS = 0.0\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)\n"
        "def command():\n"
        "    with progress.Meter('reading', 4) as meter: meter.update(1)\n"
        f"    print('read')\n    {ends}\n"
        "sys.exit(cli.run(command))"
    )
    process = python(program, stdout=subprocess.PIPE)
    assert process.communicate(timeout=60) == (b"read\n", b"")
    assert process.returncode == code


def test_a_path_that_the_terminals_encoding_lacks_can_still_be_shown():
    process = python(
        r"sys.exit(cli.run(lambda: print('output caf\u00e9 \udcff')))",
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    out, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")
    assert out == b"output caf\\xe9 \\udcff\n"


@pytest.fixture
def parser():
    parser = Parser("python -m something", "Does something.")
    parser.add_argument("--images", type=int, default=7, help="how many")
    return parser


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--imagse", "3"], "--imagse"),
        (["--images", "many"], "--images"),
        (["--images"], "--images"),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_flag_is_one_sentence_that_names_it_and_points_to_the_help(parser, flags, names):
    with pytest.raises(UserError) as caught:
        parser.parse_args(flags)
    assert names in str(caught.value)
    assert str(caught.value).endswith("(see --help)")
    assert "\n" not in str(caught.value)


def test_an_abbreviated_flag_is_refused_since_a_later_version_could_take_it_for_another(parser):
    with pytest.raises(UserError, match="--image"):
        parser.parse_args(["--image", "3"])


def test_the_help_tells_defaults_and_ends_with_0(parser, capsys):
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--help"])
    assert end.value.code == 0
    assert "(default: 7)" in capsys.readouterr().out


def test_the_reason_is_left_where_kubernetes_looks_for_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CANOPY_TERMINATION_LOG", str(tmp_path / "termination-log"))

    def command():
        raise cli.UserError("chip.jpg is no JPEG")

    assert cli.run(command) == cli.EXIT_USER
    assert (tmp_path / "termination-log").read_text() == "error: chip.jpg is no JPEG"


def test_what_kubernetes_cannot_keep_of_a_reason_is_its_end(tmp_path, monkeypatch):
    monkeypatch.setenv("CANOPY_TERMINATION_LOG", str(tmp_path / "termination-log"))
    cli.leave_word("--data: " + "森" * 2000)  # of which the 4,096th byte is in the middle of one
    kept = (tmp_path / "termination-log").read_bytes()
    assert 4090 < len(kept) <= 4096
    assert set(kept.decode().removeprefix("--data: ")) == {"森"}


def test_a_termination_log_that_cannot_be_written_hides_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CANOPY_TERMINATION_LOG", str(tmp_path / "missing" / "termination-log"))

    def command():
        raise cli.UserError("chip.jpg is no JPEG")

    assert cli.run(command) == cli.EXIT_USER
    assert "chip.jpg is no JPEG" in capsys.readouterr().err


def test_a_working_folder_that_somebody_has_removed_is_told(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert cli.run(lambda: print(Path("out").resolve())) == cli.EXIT_USER
    assert capsys.readouterr().err == (
        "error: the working folder is no longer there: change to another one\n"
    )


@pytest.mark.parametrize("none", [None, "", []])
def test_the_help_tells_no_default_of_a_flag_that_has_none(parser, capsys, none):
    parser.add_argument("--output", default=none, help="where (default: beside the images)")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "where (default: beside the images)\n" in capsys.readouterr().out


def test_what_is_no_path_of_this_machine_is_refused_where_only_such_a_one_will_do(parser):
    parser.add_argument("--output", type=cli.path)
    assert parser.parse_args(["--output", "out/"]).output == Path("out")
    for text in ("", "gs://bucket/out"):  # for Path the working folder, and a folder `gs:` in it
        with pytest.raises(UserError, match=f"--output: must be a path of this machine, and is '{text}'"):
            parser.parse_args(["--output", text])
