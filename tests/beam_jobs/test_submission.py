"""The rows of a submission: which tags, which names, in which order."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from beam_jobs import submission
from beam_jobs.sources import Source
from beam_jobs.submission import (
    as_csv,
    as_parquet,
    assemble,
    bare,
    read_sample,
    tags_of,
    unseen,
    usable_names,
)
from beam_jobs.work import Reject
from canopy.cli import UserError
from canopy.model_info import ModelInfo

CLASSES = ("agriculture", "clear", "primary", "water")
scores_4 = hnp.arrays(np.float32, 4, elements=st.floats(0, 1, width=32))
thresholds_4 = st.lists(st.floats(0, 1), min_size=4, max_size=4)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def model(
    thresholds: list[float] | None = None, constant: tuple[str, ...] = ("clear", "primary")
) -> ModelInfo:
    limits = tuple(thresholds or [0.2] * 4)
    return ModelInfo("export", CLASSES, limits, constant, 16, {})


def apart(
    scored: dict[str, NDArray[np.float32]],
) -> tuple[list[str], NDArray[np.float32]]:
    """Names and their scores."""
    return list(scored), np.array(list(scored.values()), np.float32).reshape(len(scored), len(CLASSES))


def row(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


@given(scores=scores_4, thresholds=thresholds_4)
def test_the_tags_are_exactly_those_at_or_above_their_threshold_and_never_none(
    scores: NDArray[np.float32], thresholds: list[float]
) -> None:
    tags = tags_of(scores[np.newaxis], model(thresholds))[0].split(" ")
    reached = [name for name, s, t in zip(CLASSES, scores.tolist(), thresholds, strict=True) if s >= t]
    if reached:
        assert tags == reached
    else:
        assert len(tags) == 1
        assert tags[0] in CLASSES


def test_of_more_images_than_are_looked_at_together_each_has_its_own_tags(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = np.random.default_rng(1).random((20, 4), np.float32)
    alone = [tags_of(each[np.newaxis], model([0.5] * 4))[0] for each in scores]
    assert len(set(alone)) > 5
    monkeypatch.setattr(submission, "ROWS_TOGETHER", 8)
    assert tags_of(scores, model([0.5] * 4)) == alone


def test_a_score_at_its_threshold_counts() -> None:
    assert tags_of(row(0.25, 0.5, 0.1, 0.1)[np.newaxis], model([0.25, 0.5, 0.2, 0.2])) == [
        "agriculture clear"
    ]


@pytest.mark.parametrize(
    ("scores", "thresholds", "nearest"),
    [
        ((0.30, 0.0, 0.09, 0.0), [0.9, 0.5, 0.1, 0.5], "primary"),  # nine tenths, but not the largest score
        ((0.40, 0.0, 0.05, 0.0), [0.5, 0.5, 0.1, 0.5], "agriculture"),  # eight tenths, but 0.1 away
    ],
)
def test_where_no_score_reaches_its_threshold_the_one_with_the_largest_share_of_it_is_answered(
    scores: tuple[float, ...], thresholds: list[float], nearest: str
) -> None:
    assert tags_of(row(*scores)[np.newaxis], model(thresholds)) == [nearest]


@given(
    scored=st.dictionaries(names, scores_4, max_size=6),
    others=st.lists(names, max_size=6),
    data=st.data(),
)
def test_with_a_sample_there_is_one_row_for_each_of_its_names_in_its_order(
    scored: dict[str, NDArray[np.float32]], others: list[str], data: st.DataObject
) -> None:
    sample = data.draw(st.permutations(sorted({*others, *list(scored)[::2]})))
    result = assemble(*apart(scored), model(), sample)
    # A name that is drawn with a space at its end may mean another that is drawn without.
    meant = {name: name if name in scored else bare(name) for name in sample}
    assert [name for name, _ in result.rows] == sample
    for name, tags in result.rows:
        image = meant[name]
        assert tags == (
            tags_of(scored[image][np.newaxis], model())[0] if image in scored else "clear primary"
        )
    assert result.missing == [name for name in sample if meant[name] not in scored]
    assert result.extra == sorted(set(scored) - set(meant.values()))


def test_a_samples_names_mean_images_with_and_without_a_jpegs_ending_and_keep_their_spelling() -> None:
    scored = {"a": row(1, 0, 0, 0), "b": row(0, 1, 0, 0), "b.jpg": row(0, 0, 0, 1), "c": row(1, 1, 1, 1)}
    result = assemble(*apart(scored), model(), ["a.JPG", "b.jpg", " b ", "gone.jpg", "broken.jpg"])
    assert result.rows == [
        ("a.JPG", "agriculture"), ("b.jpg", "water"), (" b ", "clear"),
        ("gone.jpg", "clear primary"), ("broken.jpg", "clear primary"),
    ]  # fmt: skip
    assert (result.missing, result.extra) == (["gone.jpg", "broken.jpg"], ["c"])
    assert [reject.name for reject in unseen(result.missing, [Reject("broken", "undecodable", "cut")])] == [
        "gone.jpg"
    ]


def test_a_sample_may_spell_an_accent_as_a_character_of_its_own() -> None:
    result = assemble(["\u00e9"], row(0, 1, 0, 0)[np.newaxis], model(), ["e\u0301.jpg", "\u00e9"])
    assert result.rows == [("e\u0301.jpg", "clear"), ("\u00e9", "clear")]
    assert (result.missing, result.extra) == ([], [])


@given(scored=st.dictionaries(names, scores_4, max_size=6))
def test_without_a_sample_there_is_one_row_for_each_image_sorted_by_name(
    scored: dict[str, NDArray[np.float32]],
) -> None:
    result = assemble(*apart(scored), model(), None)
    assert [name for name, _ in result.rows] == sorted(scored)
    assert (result.missing, result.extra) == ([], [])
    assert all(tags for _, tags in result.rows)


def test_a_model_whose_best_constant_answer_is_none_still_fills_the_cell() -> None:
    assert assemble(*apart({}), model(constant=()), ["one"]).rows == [("one", "agriculture")]


def test_names_without_any_image_are_listed_and_those_with_a_rejected_one_not_twice() -> None:
    rejects = [Reject(name, "undecodable", "cut") for name in ("broken", "b.jpg")]
    result = assemble(["a"], row(1, 0, 0, 0)[np.newaxis], model(), ["a", "gone", "broken", "b.jpg"])
    listed = unseen(result.missing, rejects)
    assert [(reject.name, reject.reason) for reject in listed] == [("gone", "no_image")]


def test_of_one_name_the_first_by_path_is_used_and_the_others_are_rejects() -> None:
    sources = [Source("/b", "one.jpg"), Source("/a", "two.jpg"), Source("/a", "one.jpeg")]
    used, rejects = usable_names(sources)
    assert [source.path for source in used] == ["/a/one.jpeg", "/a/two.jpg"]
    (reject,) = rejects
    assert (reject.name, reject.reason) == ("one", "duplicate_name")
    assert reject.detail == "/b/one.jpg comes after /a/one.jpeg"


def test_a_name_that_is_no_utf_8_text_is_a_reject_that_can_be_written() -> None:
    used, rejects = usable_names([Source("/a", "caf\udce9.jpg"), Source("/a", ".jpg")])
    assert used == []
    assert sorted((reject.name, reject.reason) for reject in rejects) == [
        ("", "bad_name"),
        ("caf\\udce9", "bad_name"),
    ]


def sample(folder: Path, content: bytes) -> str:
    path = folder / "sample.csv"
    path.write_bytes(content)
    return str(path)


def test_a_samples_names_come_in_order_whatever_its_other_columns_and_line_ends(tmp_path: Path) -> None:
    content = b"tags,image_name\r\nclear,test_2\r\n,test_10\r\n\r\nclear water,test_1\r\n"
    assert read_sample(sample(tmp_path, content)) == ["test_2", "test_10", "test_1"]


def test_a_samples_header_may_have_spaces_as_the_labels_may(tmp_path: Path) -> None:
    assert read_sample(sample(tmp_path, b"tags , image_name\nclear,a\n")) == ["a"]


def test_a_sample_that_a_spreadsheet_has_saved_is_read_as_it_was_before(tmp_path: Path) -> None:
    for content in (b"image_name;tags\r\na;clear\r\n;\r\n", "Image_Name\tTags\na\t\n".encode("utf-16")):
        assert read_sample(sample(tmp_path, content)) == ["a"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert read_sample(sample(tmp_path, b"\xef\xbb\xbfimage_name,tags\na,clear\n")) == ["a"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no column image_name"),
        (b"name,tags\na,clear\n", "has no column image_name"),
        (b"image_name|tags\na|clear\n", "its header is 'image_name|tags'"),
        (b"image_name,tags\n", "has no row"),
        (b"image_name,tags, image_name\na,clear,b\n", "has more than one column image_name"),
        (b"image_name,tags\na,clear\nb,clear\na,clear\n", "line 4 names 'a' again"),
        (b"image_name,tags\na,clear\n,clear\n", "line 3 has no name"),
        (b"tags,image_name\nclear\n", "line 2: 1 fields where 2 are due"),
        (b"image_name,tags\na,b,clear\n", "line 2: 3 fields where 2 are due"),
        (b"image_name,tags\ncaf\xe9,clear\n", "is not UTF-8 text"),
        (b'image_name,tags\n"' + b"a" * 200_000, "line 2: field larger than"),
        (b'image_name,tags\na,clear\n"b,clear\nc,clear\n', "line 3: unexpected end of data"),
    ],
)
def test_a_samples_mistake_is_one_sentence_with_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(UserError) as caught:
        read_sample(sample(tmp_path, content))
    assert str(caught.value).startswith(f"--sample_submission {tmp_path}/sample.csv")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_sample_is_read_as_it_is_handed_out(tmp_path: Path) -> None:
    path = tmp_path / "sample_submission_v2.csv.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("sample_submission_v2.csv", "image_name,tags\nb,clear\na,clear\n")
        packed.writestr("__MACOSX/._sample_submission_v2.csv", "a shadow")
    assert read_sample(str(path)) == ["b", "a"]


def test_a_sample_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.csv: it does not exist"):
        read_sample(str(tmp_path / "nowhere.csv"))


@given(rows=st.lists(st.tuples(names, st.sampled_from(["clear", "clear primary"])), max_size=6))
@example(rows=[('odd, "name" (1)', "clear"), ("line\nbreak", "clear"), ("carriage\rreturn", "clear")])
@example(rows=[(" spaces ", "clear"), ("'", "clear"), ("été", "clear"), ("\ufeff", "clear")])
def test_whatever_a_name_holds_a_csv_reader_gets_it_back(rows: list[tuple[str, str]]) -> None:
    text = as_csv(rows).decode("utf-8")
    header, *body = csv.reader(io.StringIO(text, newline=""))
    assert header == ["image_name", "tags"]
    assert [tuple(found) for found in body] == rows


@given(wanted=st.lists(names, min_size=1, max_size=6, unique=True))
def test_a_submission_written_here_is_read_as_a_sample_with_the_same_names(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("sample")
    assert read_sample(sample(folder, as_csv((name, "clear") for name in wanted))) == wanted


def test_the_file_is_plain_where_names_are_plain() -> None:
    assert as_csv([("test_1", "clear primary")]) == b"image_name,tags\ntest_1,clear primary\n"


@pytest.mark.parametrize("count", [0, 3])
def test_the_file_of_scores_has_a_name_and_one_float32_column_a_class(count: int) -> None:
    scored = {f"test_{i}": row(i, 0.5, 0.25, 0) for i in reversed(range(count))}
    table = pd.read_parquet(io.BytesIO(as_parquet(*apart(scored), CLASSES)))
    assert list(table.columns) == ["image_name", *CLASSES]
    assert [str(kind) for kind in table.dtypes[1:]] == ["float32"] * 4
    assert list(table["image_name"]) == sorted(scored)
    assert list(table["agriculture"]) == list(range(count))


def test_a_file_of_scores_is_hardly_larger_than_they_are() -> None:
    scores = np.random.default_rng(0).random((20_000, 4), np.float32)
    data = as_parquet([f"image_{i}" for i in range(len(scores))], scores, CLASSES)
    assert len(data) < 1.5 * scores.nbytes  # names included
