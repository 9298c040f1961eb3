"""CSV tables are read again as they were written."""

import csv
import io

from hypothesis import example, given
from hypothesis import strategies as st

from canopy import tables

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.tuples(TEXT, st.sampled_from(["clear", "clear primary"]))))
@example([("carriage\rreturn", "clear"), ("both\r\n", "clear"), ('odd "name", b', "clear")])
def test_any_name_is_read_again_as_it_was(rows):
    text = tables.as_csv(("image_name", "tags"), rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["image_name", "tags"], *map(list, rows)]


def test_lines_end_as_they_do_on_every_system():
    assert tables.as_csv(("image_name", "tags"), [("a", "clear")]) == "image_name,tags\na,clear\n"
