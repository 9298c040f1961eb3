"""The galleries: what is chosen, and how a picture gets into the page."""

import base64
import io
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.trainer.report.making import jpeg, scored_rows
from trainer import metrics
from trainer.report import pictures


def opened(address):
    head, _, data = address.partition(",")
    return head, Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_small_picture_goes_in_as_it_is():
    image = jpeg(1, quality=60)
    assert pictures.data_address(image) == "data:image/jpeg;base64," + base64.b64encode(image).decode()


def test_a_large_picture_is_made_small():
    head, image = opened(pictures.data_address(jpeg(1, size=1_024)))
    assert head == "data:image/jpeg;base64"
    assert image.size == (256, 256)


def test_a_picture_of_four_components_is_shown_as_rgb():
    out = io.BytesIO()
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(out, "JPEG")
    _, image = opened(pictures.data_address(out.getvalue()))
    assert image.mode == "RGB"


def test_a_small_picture_of_many_bytes_is_encoded_anew():
    out, noise = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    head, image = opened(pictures.data_address(out.getvalue()))
    assert head == "data:image/jpeg;base64"
    assert image.size == (128, 128)


def test_a_png_keeps_its_kind():
    out = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(out, "PNG")
    assert pictures.data_address(out.getvalue()).startswith("data:image/png;base64,")


@given(st.binary(max_size=200))
def test_bytes_that_are_no_picture_are_a_gap(noise):
    assert pictures.data_address(noise) == ""
    assert not pictures.pillow_sees(noise)


@pytest.mark.parametrize("kept", [400, -400])
def test_a_cut_picture_is_a_gap(kept):
    assert pictures.data_address(jpeg(1)[:kept]) == ""


def test_a_picture_too_large_for_pillow_is_a_gap(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)  # it refuses what is over twice that
    assert pictures.data_address(jpeg(1)) == ""
    assert not pictures.pillow_sees(jpeg(1))


def test_a_scene_that_pillow_would_warn_of_is_shown_without_a_word(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3_000)  # it warns from there on, and refuses twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pictures.data_address(jpeg(size=64))
        assert pictures.pillow_sees(jpeg(size=64))


def red_alone():
    """A picture in which only one channel varies."""
    pixels, out = np.zeros((16, 16, 3), np.uint8), io.BytesIO()
    pixels[:8, :, 0] = 255
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(("image", "seen"), [(jpeg(1), True), (jpeg(value=7), False), (red_alone(), True)])
def test_pillow_sees_more_than_one_value(image, seen):
    assert pictures.pillow_sees(image) == seen


def test_the_worst_come_first_and_hits_are_only_hits():
    scores, labels = scored_rows(rows=400, noise=0.15)
    answered = metrics.apply_thresholds(scores, [0.4] * scores.shape[1])
    rows = metrics.fbeta_rows(answered, labels)
    worst, best = pictures.galleries(rows, scores, labels)
    assert len(worst) == len(best) == pictures.GALLERY
    assert [rows[i] for i in worst] == sorted(rows)[: pictures.GALLERY]
    assert all(rows[i] == 1 for i in best)
    _, counts = np.unique(labels[best], axis=0, return_counts=True)
    assert counts.max() <= pictures.ALIKE


def test_of_mistakes_the_most_surprising_and_of_hits_the_least_come_first_with_two_of_a_kind():
    rows = np.array([0.5, 0.5, 1, 1, 1, 0.9])
    scores = np.array([[0.6, 0.4], [0.2, 0.4], [0.9, 0.1], [0.7, 0.3], [0.8, 0.2], [0.99, 0.01]], np.float32)
    labels = np.tile([[True, False]], (6, 1))
    assert pictures.galleries(rows, scores, labels) == ([1, 0, 5], [2, 4])


def test_a_perfect_model_has_no_mistakes_to_show():
    labels = np.eye(3, dtype=bool)
    worst, best = pictures.galleries(np.ones(3), labels.astype(np.float32), labels)
    assert worst == []
    assert len(best) == 3


def test_a_row_is_told_as_right_missed_and_wrong():
    found = pictures.picture(
        name="x",
        encoded=jpeg(1),
        f2=0.5,
        scores=np.array([0.9, 0.1, 0.8, 0.0, 0.95], np.float32),
        labels=np.array([1, 1, 0, 0, 1]),
        answered=np.array([True, False, True, False, True]),
        tags=("a", "b", "c", "d", "e"),
    )
    assert [tag for tag, _ in found.right] == ["e", "a"]  # the surest first
    assert [tag for tag, _ in found.missed] == ["b"]
    assert [tag for tag, _ in found.wrong] == ["c"]
