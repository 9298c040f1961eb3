"""A folder is found whatever it is called, by a library that takes its name for a pattern."""

import glob
from pathlib import Path

import pytest

from canopy import patterns


@pytest.mark.parametrize("name", ["rate [1e-3]", "back\\slash", "plain", "star * mark ?"])
def test_what_lies_in_a_folder_is_found_by_the_pattern_that_its_path_is(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "variables.index").write_text("there")
    with patterns.plain(str(tmp_path / name)) as folder:
        (found,) = glob.glob(f"{folder}/variables.index")  # noqa: PTH207 - a path as a pattern
        assert Path(found).read_text() == "there"
    assert Path(folder).exists() == (folder == str(tmp_path / name))
    assert (tmp_path / name / "variables.index").exists()


@pytest.mark.parametrize("path", ["gs://bucket/rate [1e-3]", "export"])
def test_a_folder_of_a_store_or_one_whose_name_is_no_pattern_has_no_other_path(path):
    with patterns.plain(path) as folder:
        assert folder == path
