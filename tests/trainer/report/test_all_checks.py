"""Which checks are made of which evidence, and what each of them is given."""

import numpy as np

from tests.trainer.report.making import TAGS, facts, jpeg, looks, scored_rows
from trainer import metrics
from trainer.report import all_checks, statistics
from trainer.report.looks import Looks
from trainer.report.split import Scored

ROWS = 80
OF_TRAINING = {"duplicates", "near_duplicates", "tags_differ", "pixels_differ"}


def evidence(**changes):
    """Of a split and as many training pictures, from one archive."""
    scores, labels = scored_rows(rows=ROWS)
    thresholds = [0.4] * len(TAGS)
    return all_checks.Evidence(
        **{
            "split": "validation",
            "facts": facts(),
            "tags": TAGS,
            "trained_on": "0123456789abcdef",
            "thresholds": thresholds,
            "constant_tags": TAGS[:2],
            "scored": Scored(looks([jpeg(i) for i in range(ROWS)]), scores, labels.astype(bool)),
            "answered": metrics.apply_thresholds(scores, thresholds),
            "others": looks([jpeg(i) for i in range(ROWS, 2 * ROWS)]),
            "seen_by_others": [],
            "calibration": statistics.calibration(scores, labels),
            **changes,
        }
    )


def checks(given):
    return {check.name: check for check in all_checks.run(given)}


def test_a_split_is_compared_with_training():
    found = checks(evidence())
    assert set(found) > OF_TRAINING | {"dead_pictures_validation", "dead_pictures_train"}
    assert "occur in validation and in train" in found["absent_tags"].sentence


def test_a_data_set_without_a_train_split_is_not_said_to_lack_tags_there():
    known = facts()
    del known["splits"]["train"]
    found = checks(evidence(facts=known, others=Looks.empty(), trained_on="another"))
    assert not OF_TRAINING & set(found)
    assert found["absent_tags"].verdict == "pass"
    assert "has no train split" in found["known_data"].sentence


def test_the_training_split_is_not_compared_with_itself():
    found = checks(evidence(split="train", others=Looks.empty()))
    assert not OF_TRAINING & set(found)
    assert found["absent_tags"].sentence.startswith(f"All {len(TAGS)} tags occur in train, ")


def test_f2_is_that_of_the_answers_beside_the_constant_tags_and_the_usual_threshold():
    _, labels = scored_rows(rows=ROWS)
    right = labels.astype(bool)
    found = checks(evidence(answered=right, constant_tags=()))["beats_constant"]
    assert "F2 1.0000 against 0.0000" in found.sentence
    found = checks(evidence(answered=~right))["beats_constant"]
    assert "at threshold 0.2 for every tag: the thresholds of model.json spoil good scores" in found.sentence


def test_what_is_said_of_answers_is_said_of_those_given():
    found = checks(evidence(answered=np.ones((ROWS, len(TAGS)), bool)))
    assert "goes to 100% of the images" in found["constant_answers"].sentence
    assert "answered for every image: tag_a" in found["never_answered"].sentence


def test_a_threshold_is_judged_by_the_examples_of_the_split():
    scores, labels = scored_rows(rows=ROWS)
    labels[:, 3] = 0
    scored = Scored(evidence().scored.looks, scores, labels.astype(bool))
    found = checks(evidence(scored=scored, thresholds=[0.4] * 3 + [0.99] * (len(TAGS) - 3)))
    assert f"{len(TAGS) - 4} of {len(TAGS)} thresholds" in found["thresholds_at_edge"].sentence


def test_what_preprocessing_and_pillow_saw_is_told():
    given = evidence(facts=facts(suspicious=4, suspicious_names=["flat"]), seen_by_others=["image_0"])
    given.scored.looks.flat[0] = True
    found = checks(given)
    assert "4 of the 400 records" in found["suspicious_pictures"].sentence
    assert "(flat)" in found["suspicious_pictures"].sentence
    assert "Pillow sees a picture in image_0" in found["dead_pictures_validation"].sentence


def test_the_split_is_named_before_training_in_each_comparison():
    others = looks([*(jpeg(i) for i in range(ROWS, ROWS + 20)), jpeg(0)], [f"train_{i}" for i in range(21)])
    others.measures[:] = 0
    found = checks(evidence(others=others))
    assert f"1 of the {ROWS} pictures is the same file" in found["duplicates"].sentence
    assert "(image_0 is train_20)" in found["duplicates"].sentence
    assert found["near_duplicates"].sentence.endswith("(21 compared).")
    assert "against 4.5%" in found["tags_differ"].sentence
    assert "against 0.0" in found["pixels_differ"].sentence
