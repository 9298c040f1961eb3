"""The house's own rules: who may import whom, how long a module may be, what never gets in."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

ROOMS = ("beam_jobs", "canopy", "infra", "trainer")
MUST_NOT = {
    "canopy": ("beam_jobs", "infra", "trainer", "apache_beam", "tensorflow", "tf_keras", "kubernetes"),
    "beam_jobs": ("infra", "trainer", "kubernetes"),
    "infra": ("beam_jobs", "trainer", "apache_beam", "tensorflow", "tf_keras"),
    "trainer": ("beam_jobs", "infra", "apache_beam", "kubernetes"),
}


def modules(*folders):
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_does_not_know_what_it_must_not(room):
    for path in modules(room):
        for name in imports(path):
            assert name.split(".")[0] not in MUST_NOT[room], f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    "opening",
    [path for path in modules(*ROOMS) if path.name == "__init__.py"],
    ids=lambda path: path.parent.name,
)
def test_a_folder_says_what_each_of_its_modules_is_for(opening):
    said = re.findall(r"`(\w+)`", ast.get_docstring(ast.parse(opening.read_text())) or "")
    inside = {path.stem for path in opening.parent.glob("*.py") if not path.stem.startswith("__")}
    inside |= {path.parent.name for path in opening.parent.glob("*/__init__.py")}
    assert not inside - set(said)


def test_no_module_has_over_400_lines():
    for path in modules(*ROOMS, "tests", "benchmarks"):
        assert len(path.read_text().splitlines()) <= 400, path.relative_to(ROOT)


def test_nothing_of_planets_and_no_machines_path_is_in_the_repository():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    for name in listed.stdout.split():
        path = Path(ROOT, name)
        assert path.suffix not in {".jpg", ".jpeg", ".h5", ".gz", ".tfrecord"}, name
        text = path.read_bytes()
        assert len(text) < 512 * 1024, name
        assert not re.search(rb"(^|[^\w.])/(root|home)/\w", text), name


def test_the_lock_file_pins_every_package_with_hashes_and_names_no_address():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert len(packages) > 100
    assert all(re.match(r"[\w.\[\]-]+==\S+( ; .+)? \\$", line) for line in packages)
    assert not any("://" in line for line in lines)
