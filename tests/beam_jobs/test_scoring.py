"""From pictures to scores: the export's description, batches of one size, the eight views."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from beam_jobs import scoring
from beam_jobs.images import DEFAULT_MAX_PIXELS, to_rgb
from beam_jobs.scoring import BATCH, Scored, pack, read_model_info, score_all, unpack
from beam_jobs.sources import Source
from beam_jobs.work import Reject
from canopy.cli import UserError
from tests.beam_jobs.making import jpeg, noise, planet

DESCRIBED = {
    "format_version": 1,
    "classes": ["clear", "primary", "water"],
    "thresholds": [0.2, 0.25, 0.1],
    "image_size": 16,
    "metrics": {"constant_tags": ["clear", "primary"]},
}


def described(folder: Path, **changes: Any) -> str:
    """An export's folder with a model.json."""
    (folder / "model.json").write_text(json.dumps({**DESCRIBED, **changes}))
    return str(folder)


def test_the_models_description_is_read(tmp_path: Path) -> None:
    info = read_model_info(described(tmp_path))
    assert info.classes == ("clear", "primary", "water")
    assert info.thresholds == (0.2, 0.25, 0.1)
    assert info.constant == ("clear", "primary")


def test_a_folder_without_model_json_is_no_export(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--model .*there is no model\.json"):
        read_model_info(str(tmp_path))


@pytest.mark.parametrize("damage", ["missing", "empty", "noise"])
def test_a_missing_or_damaged_saved_model_is_one_sentence(tmp_path: Path, damage: str) -> None:
    if damage != "missing":
        (tmp_path / "saved_model.pb").write_bytes(b"" if damage == "empty" else bytes(range(256)))
    info = read_model_info(described(tmp_path))
    with pytest.raises(UserError, match="cannot be loaded") as caught:
        scoring.Scorer(info, 1)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


class Mean:
    """A scorer in plain Python: the mean of each channel, which tells every picture from the others."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.shapes.append(pictures.shape)
        mean: NDArray[np.float32] = (pictures.mean(axis=(1, 2)) / 255).astype(np.float32)
        return mean


Put = Callable[..., Source]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes an image and says where it is: `put("name", data)`."""

    def put(name: str, data: bytes) -> Source:
        (tmp_path / f"{name}.jpg").write_bytes(data)
        return Source(str(tmp_path), f"{name}.jpg")

    return put


def run(sources: Sequence[Source], scorer: Mean | None = None, threads: int = 2) -> Scored:
    return score_all(sources, scorer or Mean(), DEFAULT_MAX_PIXELS, threads)


def test_every_image_gets_its_own_score_once_and_batches_hold_one_size(put: Put) -> None:
    sizes = [(16, 16), (16, 24), (24, 16)]
    files = {f"chip_{i}": planet(noise(i, *sizes[i % 3])) for i in range(90)}
    scorer = Mean()
    result = run([put(name, data) for name, data in files.items()], scorer)
    assert sorted(result.names) == sorted(files)
    assert result.rejects == []
    for name, scores in zip(result.names, result.scores, strict=True):
        np.testing.assert_allclose(scores, to_rgb(files[name]).mean(axis=(0, 1)) / 255, atol=1e-6)
    assert sorted(scorer.shapes) == [(30, 16, 16, 3), (30, 16, 24, 3), (30, 24, 16, 3)]


def test_images_of_one_size_go_in_full_batches(put: Put) -> None:
    scorer = Mean()
    sources = [put(f"chip_{i}", jpeg(noise(i, 8, 8))) for i in range(2 * BATCH + 5)]
    assert run(sources, scorer).names == [source.name for source in sources]
    assert [shape[0] for shape in scorer.shapes] == [BATCH, BATCH, 5]


def test_broken_bytes_are_rejects_with_their_reason_and_never_scores(put: Put) -> None:
    good = jpeg(noise(1))
    sources = [
        put("good", good),
        put("cut", planet(noise(2))[:300]),
        put("nothing", b""),
        put("text", b"no picture"),
        Source(str(Path(put("here", good).container)), "gone.jpg"),
    ]
    result = run(sources)
    assert result.names == ["good"]
    assert {reject.name: reject.reason for reject in result.rejects} == {
        "cut": "undecodable",
        "nothing": "empty",
        "text": "not_jpeg",
        "gone": "unreadable",
    }
    assert all(reject.detail for reject in result.rejects)


def test_a_picture_over_the_limit_of_pixels_is_rejected_by_its_header(put: Put) -> None:
    result = score_all([put("large", jpeg(noise(1, 40, 40)))], Mean(), 1_599, 2)
    assert [reject.reason for reject in result.rejects] == ["too_large"]


def test_with_as_many_sizes_as_images_no_more_than_a_few_batches_wait(put: Put) -> None:
    count = 4 * BATCH + 40
    sources = [put(f"chip_{i}", jpeg(noise(i, 8, 8 + i))) for i in range(count)]
    seen: list[int] = []
    scorer = Mean()

    def watched(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(pictures))
        return scorer(pictures)

    started = []

    class Watching(Sequence[Source]):
        """The list of work, noting how many images were scored when each is asked for."""

        def __len__(self) -> int:
            return count

        def __getitem__(self, index: Any) -> Any:
            if index < count:
                started.append(sum(seen))
            return sources[index]

    result = score_all(Watching(), watched, DEFAULT_MAX_PIXELS, 2)
    assert sorted(result.names) == sorted(source.name for source in sources)
    ahead = [asked - scored for asked, scored in enumerate(started)]
    assert max(ahead) <= 4 * BATCH + 2 * BATCH + 1


def test_large_pictures_go_in_smaller_batches(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "BATCH_BYTES", 3 * 64 * 64 * 3)
    scorer = Mean()
    assert len(run([put(f"chip_{i}", jpeg(noise(i, 64, 64))) for i in range(10)], scorer).names) == 10
    assert [shape[0] for shape in scorer.shapes] == [3, 3, 3, 1]


def test_a_failing_scorer_ends_the_work(put: Put) -> None:
    def broken(_: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise UserError("no numbers")

    with pytest.raises(UserError, match="no numbers"):
        score_all([put("chip", jpeg(noise(1)))], broken, DEFAULT_MAX_PIXELS, 2)


def test_the_order_of_the_work_and_the_number_of_threads_change_no_score(put: Put) -> None:
    sources = [put(f"chip_{i}", jpeg(noise(i, 8 + 8 * (i % 4), 16))) for i in range(50)]
    sources.insert(20, put("broken", b"\xff\xd8\xff"))

    def outcome(result: Scored) -> tuple[dict[str, bytes], list[Reject]]:
        return {name: row.tobytes() for name, row in zip(result.names, result.scores, strict=True)}, (
            result.rejects
        )

    wanted = outcome(run(sources, threads=1))
    assert outcome(run(sources[::-1], threads=5)) == wanted
    assert outcome(run(sources, threads=3)) == wanted


def test_no_images_are_no_scores() -> None:
    assert run([]) == Scored()


@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5),
    rejects=st.lists(st.builds(Reject, st.text(), st.sampled_from(["empty"]), st.text()), max_size=3),
)
def test_a_lists_outcome_survives_its_file(names: list[str], rejects: list[Reject]) -> None:
    rng = np.random.default_rng(len(names))
    scored = Scored(names, list(rng.random((len(names), 3), np.float32)), rejects, "".join(names))
    found = unpack(pack(scored))
    assert (found.names, found.rejects, found.error) == (names, rejects, "".join(names))
    assert [row.tobytes() for row in found.scores] == [row.tobytes() for row in scored.scores]


def views(pictures: NDArray[np.uint8], count: int = 8) -> list[NDArray[np.uint8]]:
    return list(scoring._views(pictures, count))


def test_one_view_is_the_pictures_as_they_are() -> None:
    pictures = np.stack([noise(1), noise(2)])
    (only,) = views(pictures, 1)
    assert np.array_equal(only, pictures)


def test_the_eight_views_are_the_eight_flips_and_turns_each_once() -> None:
    picture = noise(1, 12, 12)
    turned = picture.transpose(1, 0, 2)
    wanted = {
        flipped.tobytes()
        for start in (picture, turned)
        for flipped in (start, start[::-1], start[:, ::-1], start[::-1, ::-1])
    }
    assert len(wanted) == 8
    found = views(picture[np.newaxis])
    assert len(found) == 8
    assert {view[0].tobytes() for view in found} == wanted


def test_of_an_oblong_picture_four_views_lie_and_four_stand() -> None:
    shapes = [view.shape for view in views(noise(1, 8, 16)[np.newaxis])]
    assert sorted(shapes) == [(1, 8, 16, 3)] * 4 + [(1, 16, 8, 3)] * 4


@given(seed=st.integers(0, 2**32), which=st.integers(0, 7))
def test_averaged_over_the_views_a_flipped_or_turned_input_scores_the_same(seed: int, which: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (1, 9, 9, 3), np.uint8)
    weights = rng.random((9, 9, 3))

    def mean(pictures: NDArray[np.uint8]) -> float:
        """Of a scorer that looks at every pixel's place."""
        return float(np.mean([(view[0] * weights).sum() for view in views(pictures)]))

    assert mean(views(picture)[which]) == pytest.approx(mean(picture), rel=1e-9)
