"""The checks: each disease has its verdict, health passes, and the sentence names what was found."""

import numpy as np
import pytest

from tests.trainer.report.making import TAGS, scored_rows
from trainer import metrics
from trainer.report import data_checks, model_checks, statistics

HALVES = ("left", "right")


def healthy():
    scores, labels = scored_rows()
    return scores, labels, metrics.apply_thresholds(scores, [0.4] * len(TAGS))


def beats_constant(rows, constant, default=None):
    return model_checks.beats_constant(rows, constant, rows if default is None else default)


def test_a_model_above_the_constant_answer_passes():
    found = beats_constant(np.linspace(0.8, 1, 100), np.linspace(0.5, 0.7, 100))
    assert found.verdict == "pass"
    assert "0.9000 against 0.6000" in found.sentence


@pytest.mark.parametrize("gain", [0.0, -0.1])
def test_a_model_not_above_the_constant_answer_fails(gain):
    constant = np.random.default_rng(0).random(100) * 0.5
    found = beats_constant(constant + gain, constant)
    assert found.verdict == "fail"
    assert "learned nothing" in found.sentence


def test_a_gain_within_chance_is_not_shown_by_few_images_and_none_by_many():
    rng = np.random.default_rng(0)
    few = beats_constant(rng.random(9) + 0.1, rng.random(9))
    assert few.verdict == "look"
    assert "9 images are too few" in few.sentence
    gains = np.tile([0.102, -0.098], 200)  # 0.002 ± 0.01
    assert beats_constant(0.5 + gains, [0.5] * 400).verdict == "fail"
    losses = np.tile([0.2, -0.3], 5)  # -0.05 ± 0.16
    assert beats_constant(0.5 + losses, [0.5] * 10).verdict == "fail"


def test_thresholds_that_spoil_good_scores_are_named_as_the_cause():
    found = beats_constant([0.3] * 50, np.linspace(0.5, 0.7, 50), [0.9] * 50)
    assert found.verdict == "fail"
    assert "0.9000 at threshold 0.2 for every tag" in found.sentence
    assert "learned nothing" not in found.sentence
    found = beats_constant([0.3] * 50, np.linspace(0.5, 0.7, 50), [0.5] * 50)
    assert "learned nothing" in found.sentence


@pytest.mark.parametrize(("images", "told"), [(1, "on 1 image:"), (4, "on 4 images:")])
def test_of_a_handful_of_images_a_model_is_neither_better_nor_worse_than_one_answer(images, told):
    for rows, constant in ((1.0, 0.5), (0.5, 1.0)):
        found = beats_constant([rows] * images, [constant] * images)
        assert found.verdict == "look"
        assert told in found.sentence
        assert beats_constant([rows] * 5, [constant] * 5).verdict != "look"


def test_where_one_answer_is_right_for_all_there_is_nothing_to_be_better_than():
    found = beats_constant(np.ones(9), np.ones(9))
    assert found.verdict == "look"
    assert "one answer is right for every image" in found.sentence
    assert beats_constant(np.linspace(0.5, 1, 9), np.ones(9)).verdict == "fail"
    assert beats_constant(np.ones(9), np.linspace(0.5, 1, 9)).verdict == "pass"


def test_of_one_image_no_tag_is_answered_for_all():
    assert model_checks.never_answered([[1, 1, 0]], [[1, 0, 0]], TAGS[:3]).verdict == "pass"


def test_tags_are_not_judged_by_a_handful_of_images():
    labels = [[1, 0, 0]] * 4 + [[0, 1, 0]] * 3
    answered = [[0, 0, 1]] * 7
    assert model_checks.never_answered(answered, labels, TAGS[:3]).verdict == "look"
    assert model_checks.never_answered(answered * 3, labels * 3, TAGS[:3]).verdict == "fail"
    varied = [[i % 2] * 3 for i in range(10)]
    assert model_checks.never_answered([[1, 1, row[0]] for row in varied], varied, TAGS[:3]).verdict == "fail"
    assert model_checks.never_answered([[0, 1]] * 10, [[1, 1]] * 5 + [[0, 1]] * 5, HALVES).verdict == "fail"
    assert model_checks.never_answered([[1]] * 22, [[1]] * 20 + [[0]] * 2, ("all_but_two",)).verdict == "look"


def test_a_tag_that_every_image_has_may_be_answered_for_all():
    answered = [[1, i % 2] for i in range(9)]
    assert model_checks.never_answered(answered, answered, HALVES).verdict == "pass"


def test_one_answer_for_all_images_fails_and_is_named():
    _, labels, _ = healthy()
    answered = np.zeros_like(labels)
    answered[:, [0, 3]] = 1
    found = model_checks.constant_answers(answered, labels, TAGS)
    assert found.verdict == "fail"
    assert "tag_a, tag_d" in found.sentence
    assert "100%" in found.sentence


@pytest.mark.parametrize(("images", "verdict"), [(1, "pass"), (4, "look"), (5, "fail")])
def test_one_answer_for_a_handful_of_images_is_worth_a_look(images, verdict):
    labels, answered = np.eye(5)[:images], np.ones((images, 5))
    assert model_checks.constant_answers(answered, labels, TAGS[:5]).verdict == verdict


@pytest.mark.parametrize(
    ("same", "due", "verdict"),
    [(96, 1, "fail"), (94, 1, "look"), (51, 1, "look"), (50, 1, "pass"), (60, 40, "pass"), (100, 96, "pass")],
)
def test_one_answer_is_held_against_how_frequent_the_most_frequent_labels_are(same, due, verdict):
    def varied(alike):
        rows = np.unpackbits(np.arange(1, 101, dtype=np.uint8)[:, None], axis=1)
        rows[:alike] = 1
        return rows

    assert model_checks.constant_answers(varied(same), varied(due), TAGS[:8]).verdict == verdict


def test_one_answer_for_most_images_is_worth_a_look():
    _, labels, answered = healthy()
    answered[: len(answered) * 7 // 10] = answered[0]
    assert model_checks.constant_answers(answered, labels, TAGS).verdict == "look"


@pytest.mark.parametrize(("found", "verdict"), [(400, "pass"), (0, "fail")])
def test_where_nine_tenths_of_the_labels_are_one_set_the_others_tell_whether_the_model_is_constant(
    found, verdict
):
    labels = np.zeros((10_000, 2), int)
    labels[:, 0], labels[:1_000, 1] = 1, 1
    answered = labels.copy()
    answered[found:, 1] = 0
    assert model_checks.constant_answers(answered, labels, HALVES).verdict == verdict


def test_answers_as_varied_as_the_labels_pass():
    _, labels, answered = healthy()
    assert model_checks.constant_answers(answered, labels, TAGS).verdict == "pass"


def test_one_answer_is_right_where_all_labels_are_the_same():
    same = np.ones((30, 2), int)
    assert model_checks.constant_answers(same, same, HALVES).verdict == "pass"


def test_scores_without_variance_fail():
    _, labels, _ = healthy()
    found = model_checks.constant_scores(np.full(labels.shape, 0.3), labels, TAGS)
    assert found.verdict == "fail"
    assert "17 of 17 tags" in found.sentence
    assert "the network sees no difference between pictures" in found.sentence


def test_one_tag_without_variance_is_worth_a_look_and_named():
    scores, labels, _ = healthy()
    scores[:, 2] = 0.1
    found = model_checks.constant_scores(scores, labels, TAGS)
    assert found.verdict == "look"
    assert "tag_c" in found.sentence


def test_scores_are_held_against_how_much_the_labels_of_their_tag_vary():
    half, none = np.tile([0, 1], 50), np.zeros(100, int)
    labels = np.stack([half, half, none, none], axis=1)
    scores = np.stack([0.5 + 0.024 * half, 0.5 + 0.016 * half, none, none], axis=1)
    found = model_checks.constant_scores(scores, labels, TAGS[:4])
    assert found.verdict == "look"
    assert "of 1 of 2 tags hardly changes from image to image (tag_b)" in found.sentence
    assert model_checks.constant_scores(scores[:, 1:], labels[:, 1:], TAGS[:3]).verdict == "fail"
    found = model_checks.constant_scores(scores[:, 2:], labels[:, 2:], TAGS[:2])
    assert found.verdict == "look"
    assert "nothing to compare" in found.sentence


def test_tags_that_hardly_any_image_has_do_not_condemn_a_network_that_knows_the_others():
    rng = np.random.default_rng(0)
    labels = rng.random((1000, 70)) < [0.3] * 10 + [0.002] * 60  # a long tail
    scores = np.where(np.arange(70) < 10, 0.1 + 0.8 * labels, 0.002)
    tags = [f"tag_{i}" for i in range(70)]
    found = model_checks.constant_scores(scores, labels, tags)
    assert found.verdict == "look"
    assert "more examples" in found.sentence
    scores[:, :6] = 0.3
    assert model_checks.constant_scores(scores, labels, tags).verdict == "fail"


def test_scores_are_not_judged_by_a_handful_of_images():
    labels = np.eye(3)[[0, 1]]
    assert model_checks.constant_scores(np.full((2, 3), 0.3), labels, TAGS[:3]).verdict == "look"


def test_scores_that_move_pass():
    scores, labels, _ = healthy()
    assert model_checks.constant_scores(scores, labels, TAGS).verdict == "pass"


def test_a_tag_never_answered_or_always_answered_is_named():
    _, labels, answered = healthy()
    answered[:, 1], answered[:, 4] = False, True
    found = model_checks.never_answered(answered, labels, TAGS)
    assert found.verdict == "look"
    assert "(never answered: tag_b; answered for every image: tag_e)" in found.sentence
    answered[:, 4] = labels[:, 4]
    assert "(never answered: tag_b)" in model_checks.never_answered(answered, labels, TAGS).sentence
    answered[:] = True
    found = model_checks.never_answered(answered, labels, TAGS)
    assert found.verdict == "fail"
    assert "(answered for every image: tag_a, " in found.sentence


def test_thresholds_at_the_grids_ends_are_named_unless_the_tag_is_absent():
    found = model_checks.thresholds_at_edge([0.01, 0.5, 0.99, 0.99], [5, 5, 5, 0], ("a", "b", "c", "d"))
    assert found.verdict == "look"
    assert "a 0.01, c 0.99)" in found.sentence
    assert model_checks.thresholds_at_edge([0.2, 0.5], [5, 5], HALVES).verdict == "pass"


@pytest.mark.parametrize(("score", "verdict"), [(0.11, "look"), (0.09, "pass")])
def test_scores_far_from_what_comes_true_are_worth_a_look(score, verdict):
    found = statistics.calibration(np.full((100, 1), score), np.zeros((100, 1), int))
    assert model_checks.calibrated(found).verdict == verdict


@pytest.mark.parametrize(("dead", "verdict"), [(0, "pass"), (1, "look"), (2, "fail"), (200, "fail")])
def test_pictures_of_one_value_are_counted_and_named(dead, verdict):
    names = [f"image_{i}" for i in range(200)]
    found = data_checks.dead_pictures(np.arange(200) < dead, names, "validation")
    assert found.verdict == verdict
    assert ("image_0" in found.sentence) == bool(dead)


def test_pictures_that_only_tensorflow_sees_black_name_the_marker():
    found = data_checks.dead_pictures([True] + [False] * 999, [str(i) for i in range(1000)], "train", ["0"])
    assert found.verdict == "fail"
    assert "Adobe marker" in found.sentence


@pytest.mark.parametrize(("count", "verdict"), [(0, "pass"), (9, "look"), (10, "fail")])
def test_suspicious_pictures_are_preprocessings_own_count(count, verdict):
    found = data_checks.suspicious_pictures(count, 1_000, ["flat"] * count)
    assert found.verdict == verdict
    assert ("flat" in found.sentence) == bool(count)
    assert "()" not in data_checks.suspicious_pictures(count, 1_000, []).sentence


def test_suspicious_pictures_of_a_data_set_that_says_it_has_no_records_fail():
    assert data_checks.suspicious_pictures(2, 0, []).verdict == "fail"


def test_tags_of_a_random_split_pass():
    rng = np.random.default_rng(0)
    shares = np.linspace(0.01, 0.9, 17)
    verdicts = []
    for _ in range(50):
        counts, others = rng.binomial(500, shares), rng.binomial(4_500, shares)
        verdicts.append(
            data_checks.tags_differ(counts.tolist(), 500, others.tolist(), 4_500, TAGS).verdict == "pass"
        )
    assert sum(verdicts) >= 48


def test_a_tag_of_another_frequency_is_worth_a_look_and_all_of_them_fail():
    others = [450] * 17
    found = data_checks.tags_differ([150] + [50] * 16, 500, others, 4_500, TAGS)
    assert found.verdict == "look"
    assert "tag_a 30.0% against 10.0%" in found.sentence
    assert data_checks.tags_differ([150] * 17, 500, others, 4_500, TAGS).verdict == "fail"


@pytest.mark.parametrize(("differing", "verdict"), [(8, "look"), (9, "fail")])
def test_more_than_half_of_the_tags_that_differ_fail_and_the_surest_is_named_first(differing, verdict):
    counts = [50] * (17 - differing) + [100] * (differing - 1) + [200]
    found = data_checks.tags_differ(counts, 500, [450] * 17, 4_500, TAGS)
    assert found.verdict == verdict
    assert f"{differing} of 17 tags are not as frequent as in training (tag_q 40.0%" in found.sentence


def pictures(rows, seed, brightness=80.0, contrast=20.0, sharpness=6.0):
    """Measures of pictures of one archive."""
    rng = np.random.default_rng(seed)
    typical = [*[brightness] * 3, *[contrast] * 3, sharpness]
    return rng.normal(typical, [*[10] * 3, *[4] * 3, 1.5], (rows, 7))


def test_pictures_of_another_archive_fail_and_of_the_same_pass():
    train = pictures(2_000, 0)
    far = data_checks.pixels_differ(pictures(300, 1, brightness=120), train)
    assert far.verdict == "fail"
    assert "brightness of " in far.sentence
    assert data_checks.pixels_differ(pictures(300, 1, brightness=90), train).verdict == "fail"
    assert data_checks.pixels_differ(pictures(300, 1, brightness=83), train).verdict == "look"
    assert data_checks.pixels_differ(train, np.zeros((0, 7))).verdict == "look"
    verdicts = [data_checks.pixels_differ(pictures(300, seed), train).verdict for seed in range(1, 51)]
    assert verdicts.count("pass") >= 48


@pytest.mark.parametrize(("what", "value"), [("contrast", 10.0), ("sharpness", 2.0)])
def test_pictures_as_bright_but_duller_or_blurred_fail_and_the_measure_is_named(what, value):
    found = data_checks.pixels_differ(pictures(300, 1, **{what: value}), pictures(2_000, 0))
    assert found.verdict == "fail"
    assert what in found.sentence


def test_the_measure_that_differs_most_is_named_first():
    found = data_checks.pixels_differ(pictures(300, 1, brightness=85, sharpness=2), pictures(2_000, 0))
    assert "(on average sharpness 1.9 against 6.0, brightness" in found.sentence


def test_shared_pictures_fail_from_a_hundredth_on_and_nearly_shared_ones_from_a_twentieth_on():
    exact, near = data_checks.duplicates([("a", "b")] * 10, [("c", "d")] * 49, 1_000, 5_000)
    assert (exact.verdict, near.verdict) == ("fail", "look")
    assert exact.sentence.startswith(
        "10 of the 1,000 pictures are each the same file as a training picture ("
    )
    exact, near = data_checks.duplicates([("a", "b")] * 9, [("c", "d")] * 50, 1_000, 5_000)
    assert (exact.verdict, near.verdict) == ("look", "fail")
    exact, near = data_checks.duplicates([("a", "b")], [], 1_000, 5_000)
    assert exact.sentence.startswith(
        "1 of the 1,000 pictures is the same file as a training picture (a is b)"
    )
    assert near.verdict == "pass"


def test_duplicates_nobody_looked_for_are_not_passed():
    assert {check.verdict for check in data_checks.duplicates([], [], 1_000, 0)} == {"look"}


def test_absent_tags_are_named_with_their_split():
    found = data_checks.absent_tags([3, 0], [0, 4], HALVES, "validation")
    assert "take these tags out of the labels" in found.sentence  # --vocabulary alone would reject images
    assert found.verdict == "look"
    assert "validation lacks right and train lacks left" in found.sentence
    found = data_checks.absent_tags([3, 0], [5, 4], HALVES, "validation")
    assert found.sentence.startswith("validation lacks right: ")
    found = data_checks.absent_tags([3, 1], [0, 4], HALVES, "validation")
    assert found.sentence.startswith("train lacks left: ")
    found = data_checks.absent_tags([3, 1], [5, 4], HALVES, "validation")
    assert found.sentence == "All 2 tags occur in validation and in train, right least (1)."


def test_without_another_train_split_no_tag_is_missing_from_it():
    found = data_checks.absent_tags([3, 1], None, HALVES, "train")
    assert found.sentence == "All 2 tags occur in train, right least (1)."
    found = data_checks.absent_tags([3, 0], None, HALVES, "train")
    assert found.sentence.startswith("train lacks right: ")


@pytest.mark.parametrize(
    ("split", "trained_on", "has_train", "verdict", "told"),
    [
        ("train", "f", False, "look", "the training split"),
        ("validation", "other", True, "look", "compared with training here is this data set's train split"),
        ("validation", "other", False, "look", "has no train split to compare with"),
        ("validation", "f", True, "pass", "apart from its train split"),
        ("validation", "", True, "look", "names no data set"),
    ],
)
def test_the_training_split_and_other_data_are_said_to_be_so(split, trained_on, has_train, verdict, told):
    found = data_checks.known_data(split, trained_on, "f", has_train)
    assert found.verdict == verdict
    assert told in found.sentence


def test_every_sentence_is_one():
    scores, labels, answered = healthy()
    counts = labels.sum(axis=0).tolist()
    checks = [
        model_checks.constant_answers(answered, labels, TAGS),
        model_checks.constant_scores(scores, labels, TAGS),
        model_checks.never_answered(answered, labels, TAGS),
        model_checks.thresholds_at_edge([0.01] * 17, counts, TAGS),
        data_checks.tags_differ(counts, 200, [1] * 17, 4_000, TAGS),
        *data_checks.duplicates([("a", "b")], [("c", "d")], 10, 10),
    ]
    for check in checks:
        assert check.sentence.endswith(".")
        assert ". " not in check.sentence
