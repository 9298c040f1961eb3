"""From images to scores: rejects, order, batches, the eight views."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from beam_jobs.images import DEFAULT_MAX_PIXELS, to_rgb
from beam_jobs.runners import processes
from beam_jobs.scoring import pictures, scorer
from beam_jobs.scoring.engines import Engines
from beam_jobs.scoring.resize import Resizer
from beam_jobs.scoring.scorer import Scorer
from beam_jobs.scoring.worklist import Scored
from beam_jobs.sources import Reader, Source
from beam_jobs.work import Reject
from canopy.cli import UserError
from canopy.model_info import ModelInfo
from tests.beam_jobs.making import jpeg, noise, planet

SIZE = 16
BATCH = 8


@pytest.fixture(autouse=True)
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches a group: so small are the pictures here that a group would hold thousands."""
    monkeypatch.setattr(pictures, "GROUP_PIXELS", 2 * BATCH * SIZE * SIZE)


class Mean:
    """An engine in plain Python: the mean of each channel, which tells every picture from the others."""

    batch = BATCH
    at_once = 2

    def __init__(self, broken: bool = False) -> None:
        self.calls: list[int] = []  # by thread
        self._broken = broken

    def scores(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert pictures.shape == (BATCH, SIZE, SIZE, 3)
        self.calls.append(threading.get_ident())
        mean: NDArray[np.float32] = pictures.mean(axis=(1, 2)) / np.float32(255)
        return mean * np.float32(np.nan) if self._broken else mean


Put = Callable[..., Source]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes an image and says where it is: `put("name", data)`."""

    def put(name: str, data: bytes) -> Source:
        (tmp_path / f"{name}.jpg").write_bytes(data)
        return Source(str(tmp_path), f"{name}.jpg")

    return put


def run(
    sources: Sequence[Source],
    engine: Mean | None = None,
    threads: int = 2,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    count: Callable[[int], None] = lambda _: None,
    document: dict[str, bool] | None = None,
) -> Scored:
    loaded = Engines("Mean", "export", [engine or Mean()] * threads)
    model = ModelInfo("export", ("red", "green", "blue"), (0.5, 0.5, 0.5), (), SIZE, document or {})
    with closing(Scorer(loaded, model, 1, max_pixels)) as scorer:
        return scorer.score(sources, count)


@pytest.mark.parametrize(("document", "least_side"), [({}, 0), ({"decodes_reduced": True}, SIZE)])
def test_a_large_picture_is_decoded_as_the_export_decodes_it(
    put: Put, monkeypatch: pytest.MonkeyPatch, document: dict[str, bool], least_side: int
) -> None:
    data = jpeg(noise(0, 4 * SIZE, 5 * SIZE))
    given: list[NDArray[np.uint8]] = []
    resized = Resizer.__call__

    def noted(self: Resizer, pictures: Iterable[NDArray[np.uint8]], out: NDArray[np.uint8]) -> None:
        given.extend(pictures)
        resized(self, given, out)

    monkeypatch.setattr(Resizer, "__call__", noted)
    run([put("chip", data)], document=document)
    assert np.array_equal(given, [to_rgb(data, least_side=least_side)])


def test_every_image_gets_its_own_score_whatever_its_size_in_the_lists_order(put: Put) -> None:
    sizes = [(16, 16), (16, 32), (32, 16)]
    files = {f"chip_{i}": planet(noise(i, *sizes[i % 3])) for i in range(90)}
    counted: list[int] = []
    result = run([put(name, data) for name, data in files.items()], count=counted.append)
    assert result.names == list(files)
    assert (result.rejects, result.engine, result.error) == ([], "Mean", "")
    for name, scores in zip(result.names, result.scores, strict=True):
        # Halving keeps a mean but for the weights at the edges and the rounding.
        np.testing.assert_allclose(scores, to_rgb(files[name]).mean(axis=(0, 1)) / 255, atol=0.02)
    assert sum(counted) == 90
    assert max(counted) == 2 * BATCH


def test_of_pictures_of_which_a_batch_is_more_than_a_group_may_hold_a_group_is_a_batch(
    put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "GROUP_PIXELS", 1)
    counted: list[int] = []
    run([put(f"chip_{i}", jpeg(noise(i, 8, 8))) for i in range(3 * BATCH)], count=counted.append)
    assert counted == [BATCH] * 3


def test_its_threads_end_with_it(put: Put) -> None:
    before = set(threading.enumerate())
    run([put("chip", jpeg(noise(1)))])
    assert set(threading.enumerate()) <= before


def test_batches_are_full_but_for_the_last_and_every_thread_has_its_share(put: Put) -> None:
    engine = Mean()
    sources = [put(f"chip_{i}", jpeg(noise(i, 8, 8))) for i in range(20 * BATCH + 5)]
    assert run(sources, engine).names == [source.name for source in sources]
    assert len(engine.calls) == 21
    assert len(set(engine.calls)) == 2


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


def test_images_of_which_none_can_be_used_are_never_put_through_the_model(put: Put) -> None:
    engine = Mean(broken=True)
    result = run([put(f"nothing_{i}", b"") for i in range(20)], engine)
    assert (len(result.rejects), result.names, engine.calls) == (20, [], [])


def test_a_picture_over_the_limit_of_pixels_is_rejected_by_its_header(put: Put) -> None:
    result = run([put("large", jpeg(noise(1, 40, 40)))], max_pixels=1_599)
    assert [reject.reason for reject in result.rejects] == ["too_large"]


def test_no_more_than_a_few_batches_are_begun_ahead(put: Put) -> None:
    sources = [put(f"chip_{i}", jpeg(noise(i, 8, 8))) for i in range(30 * BATCH)]
    done: list[int] = []
    ahead: list[int] = []

    class Watching(Sequence[Source]):
        """The list of work, noting how many images were scored when each batch is asked for."""

        def __len__(self) -> int:
            return len(sources)

        def __getitem__(self, index):
            ahead.append(index.start - sum(done))
            return sources[index]

    assert len(run(Watching(), count=done.append).names) == len(sources)
    assert max(ahead) <= processes.AHEAD * 2 * 2 * BATCH


@pytest.mark.parametrize(("files", "most"), [(0.5, 1), (3, 3), (2 * BATCH - 1, BATCH)])
def test_of_large_files_a_group_holds_fewer_whole_batches_if_it_can_be(
    files: float, most: int, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = jpeg(noise(1, 40, 40))
    monkeypatch.setattr(scorer, "GROUP_BYTES", int(files * len(data)))
    counted: list[int] = []
    sources = [put(f"chip_{i}", data) for i in range(72)]
    assert len(run(sources, threads=1, count=counted.append).names) == 72
    first = processes.AHEAD * BATCH  # begun before the first file's size is known
    assert counted == [BATCH] * processes.AHEAD + [most] * ((72 - first) // most)


def test_files_are_read_while_the_model_computes(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a slow disk's latency hides behind the model's time."""
    sources = [put(f"chip_{i}", jpeg(noise(i, 8, 8))) for i in range(20 * BATCH)]
    read = threading.Semaphore(0)
    whole = Reader.read

    def reading(self: Reader, source: Source) -> bytes:
        read.release()
        return whole(self, source)

    class Waiting(Mean):
        """It computes once all of its batch, and an image that is none of its batch, have been read."""

        def scores(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
            last = len(self.calls) == 19
            for _ in range(BATCH + (not self.calls) - last):
                assert read.acquire(timeout=20), "nothing is read ahead"
            return super().scores(pictures)

    monkeypatch.setattr(Reader, "read", reading)
    assert len(run(sources, Waiting(), threads=1).names) == len(sources)


def test_objects_of_a_store_are_read_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    together, data = threading.Barrier(BATCH), jpeg(noise(1))

    def reading(self: Reader, source: Source) -> bytes:
        together.wait(timeout=20)
        return data

    monkeypatch.setattr(Reader, "read", reading)
    sources = [Source("gs://here/chips", f"chip_{i}.jpg") for i in range(BATCH)]
    assert len(run(sources).names) == BATCH


def test_scores_that_are_no_numbers_end_the_work(put: Put) -> None:
    sources = [put(f"chip_{i}", jpeg(noise(1))) for i in range(50)]
    with pytest.raises(UserError, match="--model export gives scores that are no numbers"):
        run(sources, Mean(broken=True))


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_one_score_that_is_no_number_ends_the_work_as_all_do(wrong: float, put: Put) -> None:
    class Almost(Mean):
        def scores(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
            found = super().scores(pictures)
            found[0, 0] = wrong
            return found

    with pytest.raises(UserError, match="scores that are no numbers"):
        run([put("chip", jpeg(noise(1)))], Almost())


def test_images_that_cannot_be_used_are_counted_as_done_too(put: Put) -> None:
    done: list[int] = []
    bad = [put("nothing", b""), put("text", b"no picture")]
    good = [put(f"chip_{i}", jpeg(noise(i))) for i in range(2)]
    run([*bad, *good], count=done.append)
    assert sum(done) == 4


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
    found = run([])
    assert (found.names, found.scores.size, found.rejects) == ([], 0, [])


def views(pictures: NDArray[np.uint8], count: int = 8) -> list[NDArray[np.uint8]]:
    return list(scorer._views(pictures, count))


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


@given(seed=st.integers(0, 2**32), which=st.integers(0, 7))
def test_averaged_over_the_views_a_flipped_or_turned_input_scores_the_same(seed: int, which: int) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 256, (1, 9, 9, 3), np.uint8)
    weights = rng.random((9, 9, 3))

    def mean(pictures: NDArray[np.uint8]) -> float:
        """Of a scorer that looks at every pixel's place."""
        return float(np.mean([(view[0] * weights).sum() for view in views(pictures)]))

    assert mean(views(picture)[which]) == pytest.approx(mean(picture), rel=1e-9)
