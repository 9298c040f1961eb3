"""The page as text: its verdict, what it says of little and of much, and that it names no address."""

import dataclasses
import re

import pytest

from tests.trainer.report.making import findings
from trainer.report import page
from trainer.report.check import Check


def test_a_sentence_is_marked_up_only_where_words_run_from_right_to_left():
    assert page.isolated("<b> & (train_1 is train_2).") == "&lt;b&gt; &amp; (train_1 is train_2)."
    assert page.isolated("(مرحبا بالعالم is a)") == "(<bdi>مرحبا بالعالم</bdi> is a)"


@pytest.mark.parametrize(
    ("checks", "headline"),
    [
        ([("a", "pass")], "every check passed"),
        ([("a", "look"), ("b", "look")], "with 2 things to look at"),
        ([("a", "fail"), ("b", "look")], "Do not trust this score yet: 1 check failed"),
        ([("beats_constant", "fail")], "No better than one answer for all"),
        (
            [("beats_constant", "look"), ("b", "look")],
            "Not shown to be better than one answer for all: 2 things",
        ),
        ([("beats_constant", "look"), ("b", "fail")], "Do not trust this score yet: 1 check failed"),
    ],
)
def test_the_verdict_is_that_of_the_worst_check(checks, headline):
    assert headline in page.headline([Check(name, "", verdict, "") for name, verdict in checks])


def test_without_curves_and_pictures_it_says_so():
    text = page.render(findings(training=False, worst=[], best=[]))
    assert "There is no metrics.jsonl beside the export" in text
    assert "Every image got exactly its tags." in text
    assert "No image got exactly its tags." in text


def test_many_tags_and_thousands_of_images_stay_a_small_page():
    tags = tuple(f"tag_{i}" for i in range(45))
    text = page.render(findings(tags=tags, rows=3_000, gallery=12))
    assert len(text) < 5_000_000
    assert f"The {page.MOST_PANELS} most frequent of 45 tags are drawn" in text


def test_of_hundreds_of_wrong_tags_below_a_picture_the_surest_are_listed_and_the_others_counted():
    tags = tuple(f"tag_{i:03d}" for i in range(60))
    found = findings(tags)
    wrong = [(tag, 0.99 - i / 100) for i, tag in enumerate(tags[:25])]
    shown = [dataclasses.replace(found.worst[0], right=[], missed=[], wrong=wrong)]
    text = page.render(dataclasses.replace(found, worst=shown, best=[]))
    gallery = text[text.index('<h2 id="worst">') : text.index('<h2 id="best">')]
    assert [tag for tag in tags if f"<bdi>{tag}</bdi>" in gallery] == list(tags[:20])
    assert "</em> 5 more</li>" in gallery


def test_nothing_in_it_is_an_address():
    assert not re.search(
        r"https?:|//[a-z]", re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page.render(findings()))
    )
