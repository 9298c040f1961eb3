"""Why a score might not be what it seems: the checks of pictures, labels and splits.

Promises: every check is a pure function over arrays and counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from canopy.phrases import named
from trainer.report import statistics
from trainer.report.check import LEVEL, Check, Verdict
from trainer.report.looks import MEASURES

SHARED = 0.01  # share of pictures known from training above which the score is not to be trusted
NEARLY_SHARED = 0.05  # of nearly known ones: neighbouring views of one place may be among them
DEAD = 0.01  # share of one-value pictures above which something is wrong with the data
MOVED = 0.3  # Kolmogorov-Smirnov distance from which on two splits look like two archives


def dead_pictures(
    flat: npt.ArrayLike, names: Sequence[str], split: str, seen_by_others: Sequence[str] = ()
) -> Check:
    """Whether pictures are one value throughout as training decodes them.

    Args:
        flat: bool[rows].
        names: the images' names.
        split: which one.
        seen_by_others: names of those flat ones in which Pillow does see a picture.
    """
    dead = np.flatnonzero(np.asarray(flat, bool)).tolist()
    name = f"dead_pictures_{split}"
    title = f"Pictures that show something ({split})"
    if not dead:
        told = f"None of the {len(names):,} pictures looked at is one value throughout."
        return Check(name, title, "pass", told)
    some = named([names[i] for i in dead])
    found = (
        f"{len(dead):,} of the {len(names):,} pictures looked at are one value throughout as training "
        f"decodes them ({some})"
    )
    if seen_by_others:
        told = (
            f"{found}, while Pillow sees a picture in {named(seen_by_others)}: the records hold JPEGs that "
            "TensorFlow decodes to black (4 components and no Adobe marker), so preprocess again with "
            "beam_jobs.preprocess and train on that."
        )
        return Check(name, title, "fail", told)
    if len(dead) / len(names) < DEAD:
        told = f"{found}: look at them in the archive, and remove them if they are not meant to be so."
        return Check(name, title, "look", told)
    return Check(
        name,
        title,
        "fail",
        f"{found}: a model cannot learn from them, so mend the archive and preprocess again.",
    )


def suspicious_pictures(count: int, written: int, names: Sequence[str]) -> Check:
    """Whether preprocessing found pictures of one value throughout in the data set.

    Args:
        count: of suspicious pictures in canopy.json.
        written: records in the data set.
        names: of the first of them.
    """
    title = "Pictures that preprocessing suspects"
    if not count:
        return Check(
            "suspicious_pictures", title, "pass", f"None of the {written:,} records was one value throughout."
        )
    shown = f" ({named(names)})" if names else ""
    return Check(
        "suspicious_pictures",
        title,
        "fail" if count >= DEAD * written else "look",
        f"{count:,} of the {written:,} records were one value throughout when preprocessing read "
        f"them{shown}: look at these files in the archive, and mend or remove them.",
    )


def tags_differ(
    counts: Sequence[int], rows: int, other_counts: Sequence[int], other_rows: int, tags: Sequence[str]
) -> Check:
    """Whether tags are as frequent in the split as in training: Fisher's exact test, Holm's correction.

    Args:
        counts: records of the split with each tag.
        rows: records of the split.
        other_counts: of the training split.
        other_rows: of the training split.
        tags: the class names.
    """
    title = "Tags as frequent as in training"
    p_values = statistics.holm(
        [
            statistics.fisher_exact(hits, rows, others, other_rows)
            for hits, others in zip(counts, other_counts, strict=True)
        ]
    )
    differing = sorted(np.flatnonzero(p_values < LEVEL).tolist(), key=lambda i: float(p_values[i]))
    if not differing:
        told = (
            f"No tag's frequency differs from training's by more than chance (Fisher's exact test with "
            f"Holm's correction for {len(tags)} tags, smallest corrected p {p_values.min():.2g})."
        )
        return Check("tags_differ", title, "pass", told)
    shown = [
        f"{tags[i]} {counts[i] / rows:.1%} against {other_counts[i] / other_rows:.1%}" for i in differing
    ]
    return Check(
        "tags_differ",
        title,
        "fail" if len(differing) > len(tags) / 2 else "look",
        f"{len(differing)} of {len(tags)} tags are not as frequent as in training ({named(shown, 3)}; "
        f"Fisher's exact test with Holm's correction, p < {LEVEL}): split the archive at random, or read "
        "this score as one on other data.",
    )


def pixels_differ(measures: npt.ArrayLike, other_measures: npt.ArrayLike) -> Check:
    """Whether the pictures look like training's: Kolmogorov-Smirnov a measure, Holm's correction.

    Args:
        measures: float[rows, 7], `looks.MEASURES` of each picture.
        other_measures: float[rows, 7], of training pictures.
    """
    given, others = np.asarray(measures, np.float64), np.asarray(other_measures, np.float64)
    title = "Pictures as bright, as rich in contrast and as sharp as in training"
    if not len(others):
        return Check(
            "pixels_differ", title, "look", "No training picture was looked at: use --train_records."
        )
    found = [statistics.kolmogorov_smirnov(given[:, i], others[:, i]) for i in range(len(MEASURES))]
    p_values = statistics.holm([p for _, p in found])
    differing = sorted(np.flatnonzero(p_values < LEVEL).tolist(), key=lambda i: -found[i][0])
    if not differing:
        told = (
            "Brightness, contrast and sharpness are those of training (Kolmogorov-Smirnov tests with Holm's "
            f"correction for {len(MEASURES)} measures, smallest corrected p {p_values.min():.2g})."
        )
        return Check("pixels_differ", title, "pass", told)
    shown = [f"{MEASURES[i]} {given[:, i].mean():.1f} against {others[:, i].mean():.1f}" for i in differing]
    far = found[differing[0]][0]
    return Check(
        "pixels_differ",
        title,
        "fail" if far >= MOVED else "look",
        f"The pictures do not look like training's (on average {named(shown, 3)}, of 255; Kolmogorov-Smirnov "
        f"distance {far:.2f}, corrected p < {LEVEL}): check that both splits come from one archive and one "
        "conversion.",
    )


def duplicates(
    exact: Sequence[tuple[str, str]], near: Sequence[tuple[str, str]], rows: int, looked_at: int
) -> list[Check]:
    """Whether pictures of the split were trained on.

    Args:
        exact: names here and in training with the same bytes.
        near: names here and in training that look the same.
        rows: pictures of the split.
        looked_at: training pictures compared.
    """
    among = f"of the {rows:,} pictures"
    checks = []
    same = ("duplicates", "No picture known from training", "the same file as a training picture")
    alike = ("near_duplicates", "No picture nearly known from training", "nearly a training picture")
    for (name, title, what), found, most in ((same, exact, SHARED), (alike, near, NEARLY_SHARED)):
        verdict: Verdict = "look"
        if not looked_at:
            told = "No training picture was looked at, so nothing is known: use --train_records."
        elif not found:
            verdict, told = "pass", f"None {among} is {what} ({looked_at:,} compared)."
        else:
            verdict = "fail" if len(found) / rows >= most else "look"
            pairs = named([f"{here} is {there}" for here, there in found], 3)
            told = (
                f"{len(found):,} {among} {'is' if len(found) == 1 else 'are each'} {what} ({pairs}): the "
                "score counts them as known, so keep one of each in the archive and preprocess again."
            )
        checks.append(Check(name, title, verdict, told))
    return checks


def absent_tags(
    counts: Sequence[int], other_counts: Sequence[int] | None, tags: Sequence[str], split: str
) -> Check:
    """Whether every tag occurs in the split and in training.

    Args:
        counts: records of the split with each tag.
        other_counts: of the training split; None where there is none beside this one.
        tags: the class names.
        split: which one.
    """

    def lacking(found: Sequence[int]) -> list[str]:
        return [tag for tag, count in zip(tags, found, strict=True) if not count]

    here, there = lacking(counts), lacking(other_counts) if other_counts else []
    title = "Every tag in both splits" if other_counts else "Every tag in the split"
    if not here and not there:
        rarest = min(range(len(tags)), key=lambda i: counts[i])
        where = f"{split} and in train" if other_counts else split
        told = f"All {len(tags)} tags occur in {where}, {tags[rarest]} least ({counts[rarest]:,})."
        return Check("absent_tags", title, "pass", told)
    parts = [f"{split} lacks {named(here)}"] if here else []
    parts += [f"train lacks {named(there)}"] if there else []
    told = (
        f"{' and '.join(parts)}: figures for these tags mean nothing, so collect more images of them "
        "or take these tags out of the labels and preprocess again."
    )
    return Check("absent_tags", title, "look", told)


def known_data(split: str, trained_on: str, evaluated: str, has_train: bool) -> Check:
    """Whether the figures are of pictures that the model was not trained on.

    Args:
        split: the one evaluated.
        trained_on: fingerprint of the data set in model.json, "" where it names none.
        evaluated: fingerprint of this data set.
        has_train: whether this data set has training pictures to compare with.
    """
    title = "Pictures kept from training"
    if split == "train":
        told = (
            "This is the training split, so its figures flatter: evaluate --split validation before you "
            "believe them."
        )
        return Check("known_data", title, "look", told)
    if not trained_on:
        told = (
            "model.json names no data set, so nothing shows that the model never saw these pictures: "
            "its figures may flatter."
        )
        return Check("known_data", title, "look", told)
    if trained_on != evaluated:
        told = f"The model was trained on another data set ({trained_on[:12]}, this is {evaluated[:12]})"
        told += (
            ": what is compared with training here is this data set's train split, which may not be what it "
            "saw."
            if has_train
            else " and this one has no train split to compare with, so nothing shows that the model never "
            "saw these pictures: its figures may flatter."
        )
        return Check("known_data", title, "look", told)
    told = f"The split {split} of the data set that the model was trained on, apart from its train split."
    return Check("known_data", title, "pass", told)
