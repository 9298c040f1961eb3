"""Which checks are made of which evidence, and what each of them is given."""

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
