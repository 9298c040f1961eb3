"""What the scripts of infra/image make; and, where `CANOPY_IMAGE` names a folder that the CPU image has been
unpacked into (CONTRIBUTING.md), what that holds.
"""

import os
import py_compile
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.util import cache_from_source
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.infra.conftest import LOCKS, packages
from tests.k8s import containers

UNCHECKED = b"\x01\0\0\0"  # by hash (1) and not checked (2 is missing): https://peps.python.org/pep-0552/
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
UNPACKED = pytest.mark.skipif(
    not containers.image().is_dir(),
    reason="CANOPY_IMAGE names no folder that an image has been unpacked into",
)


def test_the_notices_name_each_package_with_its_licence(tmp_path):
    path = tmp_path / "NOTICES"
    done = subprocess.run(
        [sys.executable, ROOT / "infra" / "image" / "notices.py", path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    text = path.read_text()
    for name, licence in (("numpy", "BSD"), ("tensorflow", "Apache"), ("pillow", "MIT-CMU")):
        section = text.split(f"\n{name} ", 1)[1][:200]
        assert licence in section, section
    within_tensorflow = text.split("\ntensorflow ", 1)[1].split("\ntensorflow-", 1)[0]
    assert "== Astunparse" in within_tensorflow  # its THIRD_PARTY_NOTICES.txt: whose work is linked into it


@pytest.mark.parametrize(
    "script", sorted((ROOT / "infra" / "image").glob("*.sh")), ids=lambda path: path.name
)
def test_a_script_parses_and_stops_at_the_first_error(script):
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    assert "set -eu" in script.read_text()


@pytest.fixture
def modules(tmp_path):
    """A folder with a module, and with a template that only looks like one."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sound.py").write_text("ANSWER = 42\n")
    (tmp_path / "modules" / "template.py").write_text("{{ answer }} = \n")
    return tmp_path / "modules"


def compiled(modules, *before):
    """Runs compile.sh with this Python, after other words, and reads what it made of the sound module."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        [*before, "sh", ROOT / "infra" / "image" / "compile.sh", modules],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "template.py" in done.stdout
    made = list((modules / "__pycache__").iterdir())
    assert [path.name for path in made] == [Path(cache_from_source("sound.py")).name]
    return made[0].read_bytes()


def test_what_compiles_is_compiled_for_files_whose_times_change_and_the_rest_is_named(modules):
    assert compiled(modules)[4:8] == UNCHECKED


def test_what_a_build_has_imported_is_compiled_like_the_rest(modules):
    py_compile.compile(str(modules / "sound.py"), invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP)
    assert compiled(modules)[4:8] == UNCHECKED


def test_a_builder_without_shared_memory_compiles_too(modules):
    own = [
        "unshare",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o ro none /dev/shm && exec "$@"',
    ]
    if not shutil.which("unshare") or subprocess.run([*own, "-", "true"], check=False).returncode:
        pytest.skip("a mount of one's own takes Linux with user namespaces")
    assert compiled(modules, *own, "-")[4:8] == UNCHECKED


@pytest.fixture
def installed():
    """The folder with the packages of the CPU image."""
    (folder,) = containers.image().glob("opt/canopy/lib/python3.*/site-packages")
    return folder


def names(versions):
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version in versions.items()}


@UNPACKED
def test_the_image_and_its_notices_hold_the_locks_versions(installed):
    found = {each.name: each.version for each in metadata.distributions(path=[str(installed)])}
    assert names(found) == names(packages(LOCKS / "cpu.lock")) | {"canopy": VERSION}
    notices = (containers.image() / "opt" / "canopy" / "NOTICES").read_text()
    listed = dict(re.findall(r"\n-{80}\n(\S+) (\S+)\n[^\n]+\n-{80}\n", notices))
    assert names(listed) | {"canopy": VERSION} == names(found)


@UNPACKED
def test_what_the_image_imports_is_compiled_whatever_its_files_times(installed):
    (library,) = containers.image().glob("usr/local/lib/python3.*")
    tag = f"cpython-{library.name.removeprefix('python').replace('.', '')}"
    found = [*installed.rglob("*.py"), *library.rglob("*.py")]
    assert len(found) > 1000
    for path in found:
        if path.is_relative_to(library / "site-packages"):
            continue  # pip's own, which no pod runs
        made = path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc"
        if made.exists():
            with made.open("rb") as file:
                assert file.read(8)[4:] == UNCHECKED, made
        else:
            with pytest.raises((SyntaxError, ValueError)):
                compile(path.read_bytes(), path, "exec")


@UNPACKED
def test_the_image_has_no_compiler_no_cache_and_nothing_that_its_user_may_change():
    root = containers.image()
    for folder in ("usr/bin", "usr/local/bin", "opt/canopy/bin"):
        programs = {path.name for path in (root / folder).iterdir()}
        assert not {"cc", "gcc", "g++", "clang", "ld", "make", "git"} & programs
    assert not (root / "root" / ".cache").exists()
    assert not (root / "etc" / "pip.conf").exists()
    for path in (root / "opt" / "canopy").rglob("*"):
        about = path.lstat()
        assert about.st_uid == about.st_gid == 0 or os.geteuid() != 0, path  # or unpacked by somebody else
        assert path.is_symlink() or not about.st_mode & 0o022, path
