"""Resizing without TensorFlow gives what TensorFlow gives in training."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from beam_jobs import images
from beam_jobs.scoring.resize import MAX_PLANS, SCRATCH_FLOATS, Resizer, even_blocks, weights
from canopy import contract, machine
from tests.beam_jobs.making import noise
from tests.conftest import ROOT

SIDES = st.integers(1, 300)
SIZES = st.sampled_from([1, 16, 32, 75, 96, 224])


def ours(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    out = np.empty((size, size, 3), np.uint8)
    Resizer(size)([picture], out[np.newaxis])
    return out


def theirs(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """As the trainer does it."""
    from trainer.decoding import resize

    return np.asarray(resize(picture, size))


def exact(picture: NDArray[np.uint8], size: int) -> NDArray[np.float64]:
    """Bilinear, antialiased where it shrinks to less than two thirds, by its definition."""
    antialias = max(picture.shape[:2]) > 1.5 * size

    def along(inputs: int) -> NDArray[np.float64]:
        reach = max(inputs / size, 1) if antialias else 1
        centres = (np.arange(size) + 0.5) * inputs / size
        near = np.maximum(1 - abs(np.arange(inputs) + 0.5 - centres[:, None]) / reach, 0)
        scaled: NDArray[np.float64] = near / near.sum(axis=1, keepdims=True)
        return scaled

    height, width, _ = picture.shape
    planes = picture.astype(float).transpose(2, 0, 1)
    result: NDArray[np.float64] = (along(height) @ planes @ along(width).T).transpose(1, 2, 0)
    return result


def agree(found: NDArray[Any], wanted: NDArray[Any], picture: NDArray[np.uint8]) -> None:
    """Equal, but for values so near where rounding changes that the order of the sum's terms decides."""
    apart = np.abs(found.astype(int) - wanted)
    assert apart.max() <= 1
    value = exact(picture, len(found))[apart > 0]
    assert np.abs((value + contract.ROUNDING + 0.5) % 1 - 0.5).max(initial=0) < 0.004


@settings(max_examples=60)
@given(height=SIDES, width=SIDES, size=SIZES, seed=st.integers(0, 2**32))
@example(height=256, width=256, size=224, seed=0)
@example(height=32, width=32, size=96, seed=0)
@example(height=64, width=64, size=32, seed=0)
@example(height=144, width=40, size=96, seed=0)
@example(height=40, width=145, size=96, seed=0)
@example(height=1, width=1, size=96, seed=0)
@example(height=1, width=300, size=96, seed=0)
def test_any_picture_of_any_size_comes_out_as_from_tensorflow(
    height: int, width: int, size: int, seed: int
) -> None:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    agree(ours(picture, size), theirs(picture, size), picture)


@pytest.mark.parametrize(
    ("side", "size"),
    [
        (64, 96),
        (32, 96),
        (32, 64),
        (64, 32),
        (256, 224),
        (64, 224),
        (256, 96),
        (512, 192),
        (120, 224),
        (100, 96),
        (187, 96),
    ],
)
def test_values_which_are_common_at_simple_ratios_are_rounded_alike(side: int, size: int) -> None:
    pictures = np.random.default_rng(side).integers(0, 256, (8, side, side, 3), np.uint8)
    apart = [np.count_nonzero(ours(each, size) != theirs(each, size)) for each in pictures]
    assert sum(apart) <= 2e-5 * len(pictures) * 3 * size**2


def test_a_large_picture_comes_out_as_from_tensorflow() -> None:
    picture = noise(3, 1500, 2100)
    agree(ours(picture, 96), theirs(picture, 96), picture)


@pytest.mark.parametrize("size", [64, 96, 128, 160, 192, 224])
def test_the_original_chips_come_out_as_from_tensorflow(real_data: Path, size: int) -> None:
    chips = sorted((real_data / "planet" / "chips256" / "train-jpg").glob("*.jpg"))
    assert chips
    for chip in chips:
        picture = images.to_rgb(chip.read_bytes())
        assert np.array_equal(ours(picture, size), theirs(picture, size)), chip.name


def test_a_picture_of_the_right_size_is_left_as_it_is() -> None:
    picture = noise(1, 32, 32)
    assert np.array_equal(ours(picture, 32), picture)


@given(height=SIDES, width=SIDES, turns=st.integers(1, 3), flip=st.booleans())
@settings(max_examples=40)
def test_turning_the_result_is_resizing_the_turned_picture(
    height: int, width: int, turns: int, flip: bool
) -> None:
    picture = noise(height, height, width)

    def turned(pixels: NDArray[Any]) -> NDArray[Any]:
        result = np.rot90(pixels, turns)
        return np.ascontiguousarray(result[:, ::-1] if flip else result)

    agree(ours(turned(picture), 64), turned(ours(picture, 64)), turned(picture))


@given(inputs=st.integers(1, 2000), results=st.integers(1, 300), antialias=st.booleans())
def test_the_weights_of_each_result_add_up_to_one(inputs: int, results: int, antialias: bool) -> None:
    found = weights(inputs, results, antialias)
    assert found.dtype == np.float32
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)


@given(inputs=st.integers(1, 2000), results=st.integers(1, 300))
@example(inputs=256, results=224)
@example(inputs=300, results=200)
def test_no_pixel_is_passed_over_wherever_a_picture_shrinks(inputs: int, results: int) -> None:
    found = weights(inputs, results, antialias=inputs > contract.PLAIN_TO * results)
    # As a share of what each would count for if all counted alike.
    assert found.sum(axis=0).min() * inputs / results > 0.24


@given(inputs=st.integers(1, 600), results=st.integers(1, 300))
@example(inputs=256, results=224)
@example(inputs=256, results=192)
def test_equal_blocks_are_found_only_where_no_weight_lies_outside_them(inputs: int, results: int) -> None:
    matrix = weights(inputs, results, antialias=inputs > contract.PLAIN_TO * results)
    blocks = even_blocks(matrix)
    if blocks is None:
        return
    count, high, wide = blocks.shape
    assert count > 1
    whole = np.zeros_like(matrix)
    for i, block in enumerate(blocks):
        whole[i * high : (i + 1) * high, i * wide : (i + 1) * wide] = block
    assert np.array_equal(whole, matrix)


@pytest.mark.parametrize(("inputs", "results", "shape"), [(256, 224, (32, 7, 8)), (256, 192, (32, 6, 8))])
def test_a_chip_at_the_networks_usual_sizes_is_cut_into_small_equal_blocks(
    inputs: int, results: int, shape: tuple[int, int, int]
) -> None:
    blocks = even_blocks(weights(inputs, results, antialias=False))
    assert blocks is not None
    assert blocks.shape == shape


def test_many_sizes_in_turn_change_no_result_and_are_not_all_remembered() -> None:
    resizer = Resizer(16)
    sizes = [(8 + i, 60 - i) for i in range(MAX_PLANS + 8)]
    for height, width in sizes * 2:
        picture = noise(height, height, width)
        out = np.empty((1, 16, 16, 3), np.uint8)
        resizer([picture], out)
        assert np.array_equal(out[0], ours(picture, 16))
    assert len(resizer._plans) <= MAX_PLANS


def test_the_memory_that_a_wide_picture_takes_is_given_back() -> None:
    picture, out = np.zeros((40, 9000, 3), np.uint8), np.empty((1, 224, 224, 3), np.uint8)
    resizer = Resizer(224)
    tracemalloc.start()
    try:
        resizer([picture], out)
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 4 * SCRATCH_FLOATS < most


SHAPES = st.sampled_from([(8, 8), (16, 16), (32, 32), (32, 40), (256, 256), (700, 900)])


@given(shapes=st.lists(st.tuples(SHAPES, st.integers(1, 20)), max_size=4))
@settings(max_examples=30)
@example(shapes=[((32, 32), 64)])
@example(shapes=[((32, 32), 3), ((16, 16), 3), ((32, 32), 3)])
def test_a_picture_comes_out_the_same_to_the_bit_whatever_stands_beside_it(
    shapes: list[tuple[tuple[int, int], int]],
) -> None:
    sizes = [shape for shape, count in shapes for _ in range(count)]
    pictures = [noise(i, *shape) for i, shape in enumerate(sizes)]
    out = np.full((len(pictures) + 1, 16, 16, 3), 7, np.uint8)
    Resizer(16)(iter(pictures), out)
    for picture, result in zip(pictures, out[:-1], strict=True):
        assert np.array_equal(result, ours(picture, 16))
    assert (out[-1] == 7).all()


@pytest.mark.parametrize(("side", "at_once"), [(600, 1), (32, 20)])
def test_only_of_small_pictures_are_several_taken_before_the_first_is_resized(
    side: int, at_once: int
) -> None:
    out = np.zeros((40, 96, 96, 3), np.uint8)
    waiting = []

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for taken in range(40):
            resized = np.count_nonzero(out.any(axis=(1, 2, 3)))
            waiting.append(taken - resized)
            yield noise(taken, side, side)

    Resizer(96)(pictures(), out)
    assert max(waiting) == at_once - 1
    assert out.any(axis=(1, 2, 3)).all()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not list threads")
def test_a_large_picture_is_resized_by_the_thread_that_has_it_unless_the_user_wants_more() -> None:
    program = (
        "from beam_jobs.scoring.resize import Resizer\n"
        "import os, numpy as np\n"
        "out = np.zeros((1, 96, 96, 3), np.uint8)\n"
        "Resizer(96)([np.zeros((2000, 3000, 3), np.uint8)], out)\n"
        "print(len(os.listdir('/proc/self/task')))\n"
    )
    for wanted in (1, 2) if machine.cores() > 1 else (1,):
        environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
        if wanted > 1:
            environment["OPENBLAS_NUM_THREADS"] = str(wanted)
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True
        )
        assert int(done.stdout) == wanted
