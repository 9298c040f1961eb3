"""The tags CSV and the vocabulary."""

from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from beam_jobs.labels import Refused, class_ids, read_labels, read_vocabulary, vocabulary_of
from canopy.cli import UserError
from tests.beam_jobs.archives.test_tables import zipped


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([("u\u0308", []), ("\u00fc", []), ("carriage\rreturn", [])])
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
                lambda s: s.strip() == s
            ),
            st.lists(st.sampled_from(["clear", "water", "road", "größe"]), max_size=4),
        ),
        min_size=1,
    )
)
def test_every_row_is_read_as_it_stands_but_for_how_accents_are_spelled(
    tmp_path: Path, rows: list[tuple[str, list[str]]]
) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image_name", "tags"])
        writer.writerows((name + ".jpg", " ".join(tags)) for name, tags in rows)
    labels = read_labels(str(path))
    assert labels.names == [unicodedata.normalize("NFC", name) for name, _ in rows]
    read = [labels.tag_sets[number] for number in labels.set_of]
    assert read == [tuple(sorted(set(tags))) for _, tags in rows]


def test_a_tag_is_held_once_however_many_sets_it_is_in(tmp_path: Path) -> None:
    rows = "".join(f"{number},water kind_{number} road\n" for number in range(50))
    found = read_labels(write(tmp_path / "t.csv", f"image_name,tags\n{rows}")).tag_sets
    assert len(found) == 50
    assert len({id(tag) for tags in found for tag in tags}) == 52


@pytest.mark.parametrize(
    "text",
    [
        "image_name,tags\na,clear water\n",
        "\ufeffimage_name,tags\r\na,clear water\r\n",
        "tags,extra,image_name\n clear  water ,x,a.jpg\n",
        'image_name,tags\n"a","water clear clear"\n\n',
        "image_name, tags\na.JPG,clear water",
        "image_name,tags\n a ,clear water\n",
        "image_name,tags\na.jpg ,clear water\n",
        "Image_Name, TAGS\na,clear water\n",
        "Tags,tags,image_name\nhaze,clear water,a\n",
        "image_name,tags\n,\na,clear water\n,\n,,\n",
        "\ufeffimage_name;tags\r\na;clear water\r\n;\r\n",
        'x,y;"tags";image_name\n;water clear;a.jpg\n',
        "image_name\ttags\na\tclear water\n",
        "\ufeffimage_name\ttags\r\na\tclear water\r\n".encode("utf-16-le"),
        "image_name,tags\na,clear water\n".encode("utf-16"),
    ],
)
def test_common_spellings_of_a_csv_mean_the_same(tmp_path: Path, text: str | bytes) -> None:
    labels = read_labels(write(tmp_path / "t.csv", text))
    assert labels.names == ["a"]
    assert labels.tag_sets == [("clear", "water")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,tags\na,b\n", "has no column image_name"),
        ("image_name,label\na,b\n", "has no column tags"),
        ("", "has no column image_name"),
        ("image_name,tags\n", "no row below"),
        ("image_name,tags\na,b\nc\n", "line 3: 1 fields where 2"),
        ("image_name,tags\n,b\n", "line 2: the image_name is empty"),
        ('image_name,tags\n"a,b\n', "line 2"),
        ('image_name,tags\na,b\n"c"d,b\n', "line 3: ',' expected after '\"'"),
        ('image_name,tags\na,"b\nc,d\ne,f\n', "line 2: unexpected end of data"),
        pytest.param('image_name,tags\na,"b\n' + "c,d\n" * 40_000, "line 2: field larger", id="open quote"),
        ('image_name,tags\na,"b\nc","d\ne,f"\n', "line 2: 3 fields where 2"),
        (b"image_name,tags\n\xff\xfe,b\n", r"not UTF-8 text \(near line 1\): save it as UTF-8"),
        ("image_name,tags\na,\ud800b\n".encode("utf-16", "surrogatepass"), "is not UTF-16 text"),
        ("image_name;tag\na;b\n", "has no column image_name: its header is 'image_name;tag'"),
        ("image_name;tags\na;b;c\n", "line 2: 3 fields where 2"),
    ],
)
def test_a_wrong_csv_is_refused_with_its_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        read_labels(write(tmp_path / "t.csv", text))
    assert "t.csv" in str(caught.value)


def test_of_two_columns_of_a_name_none_is_picked(tmp_path: Path) -> None:
    for header in ("image_name,tags,tags", "image_name,TAGS,Tags"):
        path = write(tmp_path / "t.csv", f"{header}\na,clear,water\n")
        with pytest.raises(UserError, match=r"t\.csv has more than one column tags"):
            read_labels(path)


@pytest.mark.parametrize("pack", [gzip.compress, zipped], ids=["gzip", "zip"])
def test_a_packed_csv_is_read_as_the_plain_one_is(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    plain = "\ufeffimage_name,tags\na,clear water\nb,clear\n".encode()
    (tmp_path / "t.csv").write_bytes(plain)
    (tmp_path / "packed").write_bytes(pack(plain))
    wanted, found = (read_labels(str(tmp_path / name)) for name in ("t.csv", "packed"))
    assert found == replace(wanted, path=str(tmp_path / "packed"))


@pytest.mark.parametrize("pack", [gzip.compress, zipped], ids=["gzip", "zip"])
def test_a_packed_csvs_mistake_is_told_with_its_line(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "t.csv.packed").write_bytes(pack(b"image_name,tags\na,clear\nb\n"))
    with pytest.raises(UserError, match=r"t\.csv\.packed, line 3: 1 fields where 2 are due"):
        read_labels(str(tmp_path / "t.csv.packed"))


@pytest.mark.parametrize(("before", "line"), [(b"", 1), (b"image_name,tags\na,clear\n", 3)])
def test_a_line_of_gigabytes_is_refused_before_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes, line: int
) -> None:
    monkeypatch.setattr("beam_jobs.labels.MAX_LINE", 1 << 20)
    path = tmp_path / "t.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(before)
        for _ in range(64):
            file.write(b"a" * (1 << 20))
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"line {line}: it has more than 1,048,576 characters$"):
        read_labels(str(path))
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_a_missing_csv_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_labels(str(tmp_path / "t.csv"))


def test_the_vocabulary_is_the_files_in_its_order_else_the_tags_sorted(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path / "t.csv", "image_name,tags\na,water clear\nb,\nc,road volcano\n"))
    assert vocabulary_of(labels) == ("clear", "road", "volcano", "water")
    vocabulary = read_vocabulary(write(tmp_path / "v.txt", "\ufeffwater\n\n clear \nroad\n"))
    assert vocabulary == ("water", "clear", "road")
    ids = class_ids(labels, vocabulary)
    assert ids[0] == (0, 1)
    assert isinstance(ids[1], Refused)
    assert ids[1].reason == "no_tags"
    assert isinstance(ids[2], Refused)
    assert ids[2].reason == "unknown_tag"
    assert "volcano" in ids[2].detail


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "no tag"), ("a\nb c\n", "'b c'"), ("b\na\nc\na\n", "'a' twice"), (b"\xff", "UTF-8")],
)
def test_a_wrong_vocabulary_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_vocabulary(write(tmp_path / "v.txt", text))


def test_two_tags_that_look_the_same_are_refused_and_told_apart(tmp_path: Path) -> None:
    table = read_labels(write(tmp_path / "t.csv", "image_name,tags\na,for\u00eat\nb,fore\u0302t\n"))
    with pytest.raises(UserError, match=r"'fore\\u0302t' and 'for\\xeat', which differ in how their accents"):
        vocabulary_of(table)
    one = read_labels(write(tmp_path / "t.csv", "image_name,tags\na,lac\nb,fore\u0302t\n"))
    assert vocabulary_of(one) == ("fore\u0302t", "lac")  # as it is spelled


def test_a_csv_without_any_tag_has_no_vocabulary(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no row has a tag"):
        vocabulary_of(read_labels(write(tmp_path / "t.csv", "image_name,tags\na,\n")))


@pytest.mark.parametrize("between", [",", ", ", ";", " | "])
def test_tags_that_something_else_parts_are_refused_with_what_parts_them(
    tmp_path: Path, between: str
) -> None:
    rows = [f'{i},"{between.join(tags)}"' for i, tags in enumerate((("a", "b"), ("b", "c", "d"), ("e", "a")))]
    table = read_labels(write(tmp_path / "t.csv", "\n".join(["image_name,tags", *rows])))
    with pytest.raises(UserError, match=r"t\.csv: tags are parted by spaces.*--vocabulary"):
        vocabulary_of(table)


def test_tags_in_lists_as_python_or_json_write_them_are_refused(tmp_path: Path) -> None:
    lists = [["a", "b"], ["b", "c", "d"], ["e", "a"], ["c"]]
    for write_list in (repr, json.dumps):
        with (tmp_path / "t.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["image_name", "tags"], *enumerate(map(write_list, lists))])
        with pytest.raises(UserError, match=r"t\.csv: tags are parted by spaces.*--vocabulary"):
            vocabulary_of(read_labels(str(tmp_path / "t.csv")))


def test_tags_that_commas_part_are_refused_where_most_rows_have_one_tag(tmp_path: Path) -> None:
    single = [f"{i},{tag}" for i, tag in enumerate("abcdefgh")]
    table = read_labels(write(tmp_path / "t.csv", "\n".join(["image_name,tags", *single, 'x,"a,b"'])))
    with pytest.raises(UserError, match=r"1 of its 9 are like 'a,b'"):
        vocabulary_of(table)
    table = read_labels(write(tmp_path / "t.csv", "\n".join(["image_name,tags", *single, 'x,"a,z"'])))
    assert "a,z" in vocabulary_of(table)  # one part of it is no tag


def test_a_tag_that_is_another_with_a_comma_is_refused_however_many_are(tmp_path: Path) -> None:
    table = read_labels(
        write(tmp_path / "t.csv", 'image_name,tags\nx,"clear, primary"\ny,"road clear water haze"\n')
    )
    with pytest.raises(UserError, match="tags are parted by spaces"):
        vocabulary_of(table)


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("clear, primary", "'clear,'"),
        ("haze;", "'haze;'"),
        ("clear ,primary", "',primary'"),
        ("haze|tag7", r"'haze\|tag7'"),
        ('"slash and burn" water', """'"slash'"""),
        ("[road ditch]", r"'\[road'"),
    ],
)
def test_what_is_cut_out_of_a_list_or_out_of_quotes_is_no_tag_however_many_others_are_whole(
    tmp_path: Path, cell: str, told: str
) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        whole = [("y", "a,z"), *((str(i), f"tag{i} other{i}") for i in range(20))]
        csv.writer(file).writerows([("image_name", "tags"), *whole, ("x", cell)])
    with pytest.raises(UserError, match=f"are like {told}: put spaces between tags and underscores within"):
        vocabulary_of(read_labels(str(tmp_path / "t.csv")))


@pytest.mark.parametrize(
    "tags",
    [
        *("'s-Gravenhage", "wheat[winter]", '55" a,z "x"', "a|z", "Land_use:forest", "&amp;", "[lane]"),
        *('"><b>x</b> "x" a,z', "<script>alert('x');</script>"),
    ],
)
def test_tags_that_only_look_a_little_like_pieces_are_tags(tmp_path: Path, tags: str) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image_name", "tags"), ("x", f"clear {tags} haze lake road")])
    assert {*tags.split()} <= {*vocabulary_of(read_labels(str(tmp_path / "t.csv")))}


def test_a_tag_may_hold_what_others_part_tags_with(tmp_path: Path) -> None:
    table = read_labels(write(tmp_path / "t.csv", 'image_name,tags\nx,"clear roads,paved"\n'))
    assert vocabulary_of(table) == ("clear", "roads,paved")
