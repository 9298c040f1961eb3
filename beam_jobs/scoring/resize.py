"""Pictures brought to the model's size with NumPy alone, as TensorFlow does it in training.

Promises: the pixels of `trainer.dataset.resize`, but for the few values that the order of a sum's terms puts
on another side of where rounding changes, which are one apart. Workers that score with TensorFlow Lite need
it: importing TensorFlow costs a process seconds and half a gigabyte.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from canopy import contract

# Results a matrix product gives at once. Each needs only the inputs near it: small blocks compute fewer
# zeros, large ones call less often. Measured at 256 to 224 and at 32 to 96 pixels.
SHRINKING_BLOCK, GROWING_BLOCK = 12, 16
LEAST_RESULTS = 6  # of the blocks that one call computes together
MAX_PLANS = 32  # sizes remembered
SCRATCH_FLOATS = 4_000_000  # kept from picture to picture: fresh memory costs more than the arithmetic
TOGETHER_FLOATS = 250_000  # of small pictures at a time, a cache full: a call costs what one sum does


@dataclass(frozen=True)
class _Block:
    """A few neighbouring results along one axis, in values (pixels times channels)."""

    results: slice
    inputs: slice
    weights: NDArray[np.float32]  # results by inputs for rows, inputs by results for columns


def weights(inputs: int, results: int, antialias: bool) -> NDArray[np.float32]:
    """How much each input pixel counts for each result, along one axis.

    The triangle kernel of TensorFlow's ResizeBilinear, or of its ScaleAndTranslate, which widens it where the
    picture shrinks; centres of pixels at halves, cut off and made to add up to 1 at the edges; in float32.

    Args:
        inputs: pixels there are.
        results: pixels wanted.
        antialias: whether to widen it.

    Returns:
        float32[results, inputs].
    """
    one, half = np.float32(1), np.float32(0.5)
    # TensorFlow's two kernels come to this by different ways: a last bit, but multiplied by the position.
    there, wanted = np.float32(inputs), np.float32(results)
    step = one / (wanted / there) if antialias else there / wanted
    reach = max(step, one) if antialias else one
    centres = (np.arange(results, dtype=np.float32) + half) * step
    places = np.arange(inputs, dtype=np.float32) + half
    distance = np.abs((places - centres[:, np.newaxis]) * (one / reach))
    found = np.maximum(one - distance, np.float32(0))
    scaled: NDArray[np.float32] = found * (one / found.sum(axis=1, keepdims=True))
    return scaled


def _blocks(inputs: int, results: int, antialias: bool) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """The weights cut into blocks of neighbouring results, each with the inputs that it needs."""
    matrix = weights(inputs, results, antialias)
    size = SHRINKING_BLOCK if inputs > results else GROWING_BLOCK
    cut = []
    for begin in range(0, results, size):
        part = matrix[begin : begin + size]
        used = np.flatnonzero(part.any(axis=0))
        near = slice(int(used[0]), int(used[-1]) + 1)
        cut.append((slice(begin, begin + len(part)), near, np.ascontiguousarray(part[:, near])))
    return cut


def even_blocks(matrix: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Weights cut into equal blocks that share no input, as at 256 to 224 pixels: of each 8 inputs 7 results.

    Args:
        matrix: float32[results, inputs].

    Returns:
        float32[blocks, results a block, inputs a block], of few results each; None: they cannot be cut so.
    """
    results, inputs = matrix.shape
    most = math.gcd(results, inputs)
    for count in range(most, 1, -1):
        if most % count or results // count < LEAST_RESULTS:
            continue
        parts = matrix.reshape(count, results // count, count, inputs // count)
        own = np.arange(count)
        blocks: NDArray[np.float32] = parts[own, :, own]
        if np.count_nonzero(blocks) == np.count_nonzero(matrix):
            return blocks
    return None


@dataclass(frozen=True)
class _Plan:
    """All that depends on a picture's shape."""

    rows: list[_Block]
    columns: list[_Block]
    even: tuple[NDArray[np.float32], NDArray[np.float32]] | None  # rows' and columns' blocks, if both are

    @staticmethod
    def of(shape: tuple[int, ...], size: int) -> _Plan:
        """Plans for a shape of height, width and three channels."""
        height, width, _ = shape
        antialias = max(height, width) > contract.PLAIN_TO * size
        spread = np.eye(3, dtype=np.float32)
        down, across = (even_blocks(weights(inputs, size, antialias)) for inputs in (height, width))
        if down is not None and across is not None:
            return _Plan([], [], (down, np.stack([np.kron(block.T, spread) for block in across])))
        return _Plan(
            [_Block(*block) for block in _blocks(height, size, antialias)],
            [
                _Block(
                    slice(3 * results.start, 3 * results.stop),
                    slice(3 * inputs.start, 3 * inputs.stop),
                    np.ascontiguousarray(np.kron(part.T, spread)),
                )
                for results, inputs, part in _blocks(width, size, antialias)
            ],
            None,
        )


class Resizer:
    """Brings pictures of any size to one. Not to be used by two threads at a time."""

    def __init__(self, size: int) -> None:
        """Prepares.

        Args:
            size: side of the results, pixels.
        """
        self.size = size
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self._scratch = np.empty(0, np.float32)

    def __call__(self, pictures: Iterable[NDArray[np.uint8]], out: NDArray[np.uint8]) -> None:
        """Resizes pictures; small ones of one size that follow each other at once, to the same bits as alone.

        Args:
            pictures: uint8[height, width, 3] each. Of large ones no more than one is taken at a time.
            out: uint8[as many or more, size, size, 3], contiguous, gets them.
        """
        done = 0
        for run in self._runs(pictures):
            self._resize(run, out[done : done + len(run)])
            done += len(run)

    def _runs(self, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
        """Neighbours of one shape, as many as fit into the cache."""
        run: list[NDArray[np.uint8]] = []
        for picture in pictures:
            if run and picture.shape != run[0].shape:
                yield run
                run = []
            run.append(picture)
            height, width, _ = picture.shape
            if (len(run) + 1) * (height + self.size) * width * 3 > TOGETHER_FLOATS:
                yield run
                run = []
        if run:
            yield run

    def _resize(self, run: Sequence[NDArray[np.uint8]], out: NDArray[np.uint8]) -> None:
        count, (height, width, _) = len(run), run[0].shape
        together = np.stack(run) if count > 1 else run[0][np.newaxis]
        if height == width == self.size:
            out[...] = together
            return
        plan = self._plan(run[0].shape)
        flat = together.reshape(count, height, width * 3)
        most = max((block.inputs.stop - block.inputs.start for block in plan.rows), default=height)
        numbers, middle, result = self._rooms(
            (count, most, width * 3), (count, self.size, width * 3), (count, self.size, self.size * 3)
        )
        if plan.even:
            numbers[...] = flat
            _evenly(*plan.even, numbers, middle, result)
        for block in plan.rows:
            taken = numbers[:, : block.inputs.stop - block.inputs.start]
            taken[...] = flat[:, block.inputs]
            np.matmul(block.weights, taken, out=middle[:, block.results])
        for block in plan.columns:
            np.matmul(middle[:, :, block.inputs], block.weights, out=result[:, :, block.results])
        # Becoming bytes cuts off the fraction; the kernel is nowhere negative, so nothing leaves 0 to 255.
        np.add(result, np.float32(contract.ROUNDING), out=out.reshape(result.shape), casting="unsafe")

    def _plan(self, shape: tuple[int, ...]) -> _Plan:
        if shape not in self._plans:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[shape] = _Plan.of(shape, self.size)
        return self._plans[shape]

    def _rooms(self, *shapes: tuple[int, int, int]) -> list[NDArray[np.float32]]:
        """A stack of matrices of each shape, uninitialised, one behind the other."""
        ends = list(accumulate(map(math.prod, shapes)))
        scratch = self._scratch
        if scratch.size < ends[-1]:
            scratch = np.empty(ends[-1], np.float32)
            if scratch.size <= SCRATCH_FLOATS:
                self._scratch = scratch
        cut = np.split(scratch[: ends[-1]], ends[:-1])
        return [part.reshape(shape) for part, shape in zip(cut, shapes, strict=True)]


def _evenly(
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    numbers: NDArray[np.float32],
    middle: NDArray[np.float32],
    result: NDArray[np.float32],
) -> None:
    """All equal blocks of an axis by one call, in place.

    Args:
        rows: float32[blocks, results, inputs].
        columns: float32[blocks, inputs, results], in values.
        numbers: float32[count, height, width times 3].
        middle: float32[count, size, width times 3], written.
        result: float32[count, size, size times 3], written.
    """
    count, size, width = middle.shape
    blocks = len(rows)
    np.matmul(rows, numbers.reshape(count, blocks, -1, width), out=middle.reshape(count, blocks, -1, width))
    blocks = len(columns)
    beside = (cut.reshape(count, size, blocks, -1).swapaxes(1, 2) for cut in (middle, result))
    np.matmul(next(beside), columns, out=next(beside))
