"""The page as text: its verdict, what it says of little and of much, and that it names no address."""

import dataclasses
import re

import numpy as np
import pytest

from tests.trainer.report.making import findings
from trainer import metrics
from trainer.report import page, statistics
from trainer.report.check import Check, Verdict
from trainer.report.training import Curves


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


def section(text, name):
    """What stands between a section's heading and its end, without tags."""
    found = text[text.index(f'<h2 id="{name}">') :]
    return " ".join(re.sub(r"<[^>]*>", " ", found[: found.index("</section>")]).split())


def test_the_table_of_confusions_has_what_was_missed_in_rows_and_what_was_wrong_in_columns():
    labels = np.array([[1, 0, 0]] * 5 + [[0, 1, 0]] * 2 + [[0, 0, 1]] * 9, bool)
    answered = np.array([[0, 1, 0]] * 4 + [[0, 0, 0]] + [[0, 0, 1]] * 2 + [[0, 1, 1]] * 9, bool)
    found = findings(tags=("road", "water", "haze"), confusions=statistics.confusions(answered, labels))
    told = section(page.render(found), "confusions")
    assert "Most often: water where road was missed (4), haze where water was missed (2)." in told
    # 9 of the 13 wrong answers "water" are in images in which nothing is missed.
    assert told.endswith(
        "missed images nothing wrong water haze (nothing missed) 9 9 · road 5 1 4 · water 2 0 · 2"
    )


def test_of_tags_never_missed_and_never_wrong_the_table_has_neither_row_nor_column():
    nothing = np.zeros((4, 3), bool)
    found = findings(tags=("road", "water", "haze"), confusions=statistics.confusions(nothing, nothing))
    assert "No tag was missed or answered wrongly" in section(page.render(found), "confusions")
    strays = np.array([[0, 0, 1]] * 4, bool)
    found = dataclasses.replace(found, confusions=statistics.confusions(strays, nothing))
    told = section(page.render(found), "confusions")
    assert told.endswith("missed images nothing wrong haze (nothing missed) 4 4")
    assert "Most often" not in told


def test_checks_that_failed_come_first_then_those_to_look_at_and_passed_ones_are_folded():
    verdicts: list[Verdict] = ["pass", "look", "fail"]
    checks = [Check(verdict, f"Title {verdict}", verdict, "Told.") for verdict in verdicts]
    told = section(page.render(findings(tags=("road",), checks=checks)), "checks")
    places = [told.index(each) for each in ("Title fail", "Title look", "1 check passed", "Title pass")]
    assert places == sorted(places)


def test_a_tag_that_no_image_has_has_a_dash_and_no_plot_of_precision():
    found = findings(tags=("road", "water"))
    found.labels[:, 1] = 0
    found.document["tags"]["water"]["average_precision"] = None
    text = page.render(found)
    assert " - 0.40" in section(text, "tags")
    assert "water" in section(text, "thresholds")
    assert "water" not in section(text, "precision")


def test_a_panel_tells_the_best_of_its_curve():
    found = findings(tags=("road",))
    curve = statistics.fbeta_over_thresholds(found.scores[:, 0], found.labels[:, 0])
    best = f"at most {curve.max():.3f} at {metrics.GRID[curve.argmax()]:.2f}"
    assert best in page.render(found)


def test_a_bin_without_scores_has_dashes_and_a_run_without_validation_no_curve_of_it():
    calibration = statistics.calibration([[0.05]], [[0]])
    curves = Curves([1, 2], [0.7, 0.6], [], [], [], 1)
    found = dataclasses.replace(findings(tags=("road",)), calibration=calibration, training=curves)
    text = page.render(found)
    assert "0.9 to 1.0 0 - -" in section(text, "calibration")
    assert "Validation F2" not in section(text, "training")


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
    assert "tag_0 " in section(text, "thresholds")  # it is the most frequent, and the last the rarest
    assert "tag_44 " not in section(text, "thresholds")


def test_a_loss_of_thousands_of_rare_tags_is_told_in_digits_that_tell():
    found = findings()
    curves = dataclasses.replace(found.training, losses=[0.69312, 0.02, 0.0109876])
    document = {**found.document, "loss": 0.0109123}
    text = page.render(dataclasses.replace(found, document=document, training=curves))
    assert "<dt>loss</dt><dd>0.01091</dd>" in text
    assert "training loss from 0.693 to 0.0110" in text


def test_of_a_constant_answer_of_hundreds_of_tags_some_are_listed_and_the_others_counted():
    tags = tuple(f"tag_{i}" for i in range(120))
    found = findings(tags=tags)
    text = page.render(dataclasses.replace(found, document={**found.document, "constant_tags": list(tags)}))
    assert "<bdi>tag_19</bdi> and 100 more, see metrics.json. A model" in text
    assert "The table scrolls through all 120 tags." in text


def test_of_hundreds_of_wrong_tags_below_a_picture_the_surest_are_listed_and_the_others_counted():
    tags = tuple(f"tag_{i:03d}" for i in range(60))
    found = findings(tags)
    wrong = [(tag, 0.99 - i / 100) for i, tag in enumerate(tags[:25])]
    shown = [dataclasses.replace(found.worst[0], right=[], missed=[], wrong=wrong)]
    text = page.render(dataclasses.replace(found, worst=shown, best=[]))
    gallery = text[text.index('<h2 id="worst">') : text.index('<h2 id="best">')]
    assert [tag for tag in tags if f"<bdi>{tag}</bdi>" in gallery] == list(tags[:20])
    assert "</em> 5 more</li>" in gallery


def test_figures_have_captions_and_no_other_role_as_html_wants_it():
    figures = re.findall(r"<figure\b([^>]*)>(.*?)</figure>", page.render(findings()), re.DOTALL)
    assert len(figures) > 10
    assert all("role=" not in attributes and "<figcaption>" in inner for attributes, inner in figures)


def test_nothing_in_it_is_an_address():
    assert not re.search(
        r"https?:|//[a-z]", re.sub(r"data:image/\w+;base64,[\w+/=]+", "", page.render(findings()))
    )
