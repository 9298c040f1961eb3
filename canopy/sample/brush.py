"""What every picture is drawn with: noise, masks, winding lines, and paint. Pure functions.

Promises: the same generator state gives the same array; nothing here touches a file or a global. Pictures
are float32[3, size, size], 0 to 255: planes, for numpy is slow where the last axis is short. Masks are
float32[size, size] from 0 (leave) to 1 (cover); places are in pixels, x to the right and y down.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float32]
Rng = np.random.Generator


def noise(rng: Rng, size: int, cells: float, octaves: int = 1, gain: float = 0.5) -> Floats:
    """Draws smooth random values, coarse to fine, as clouds and tree cover have them.

    Each octave is white noise on a grid twice as fine as the last, added to the coarser ones stretched to it:
    only the last stretch is at full size, so that octaves cost little.

    Args:
        rng: the stream to draw from.
        size: pixels a side.
        cells: blobs a side in the coarsest octave.
        octaves: how many, each twice as fine as the last; those finer than pixels are left out.
        gain: the strength of an octave relative to the last.

    Returns:
        float32[size, size], mean 0, standard deviation 1.
    """
    side = min(size, max(2, round(cells)))
    total = rng.standard_normal((side, side), np.float32)
    strength = 1.0
    for _ in range(octaves - 1):
        if 2 * side > size:
            break
        side, strength = 2 * side, strength * gain
        total = stretch(total, side) + np.float32(strength) * rng.standard_normal((side, side), np.float32)
    if side < size:
        total = stretch(total, size)
    centred: Floats = total - total.mean()
    centred /= np.float32(max(float(centred.std()), 1e-6))
    return centred


def stretch(values: Floats, size: int) -> Floats:
    """Resizes a float32[h, w] field to float32[size, size], bicubically."""
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BICUBIC), np.float32)


def blur(field: Floats, radius: float) -> Floats:
    """Softens a mask (0 to 1) by about `radius` pixels."""
    image = Image.fromarray(np.clip(field * 255, 0, 255).astype(np.uint8))
    if radius < 3:
        image = image.filter(ImageFilter.GaussianBlur(radius))
    else:
        # Blurred that far, a copy of half the size holds all there is to see, at a quarter of the cost.
        small = image.reduce(2).filter(ImageFilter.GaussianBlur(radius / 2))
        image = small.resize(image.size, Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32) / np.float32(255)


def step(field: Floats, softness: float) -> Floats:
    """A soft threshold at 0: 0 below -softness / 2, 1 above softness / 2, straight between."""
    mask: Floats = np.clip(field / np.float32(softness) + np.float32(0.5), 0, 1)
    return mask


def ragged(rng: Rng, mask: Floats, reach: float, amount: float) -> Floats:
    """Gives a mask natural, irregular edges.

    Args:
        rng: the stream to draw from.
        mask: what to fray.
        reach: how many pixels the edge may wander.
        amount: how strongly it wanders, 0 for not at all.

    Returns:
        A mask of the same shape.
    """
    size = mask.shape[0]
    wander = noise(rng, size, max(2.0, size / (2.5 * reach)), octaves=3, gain=0.6)
    # Unclipped, the noise's far ends would leave specks where there is no mask at all.
    wander = np.clip(np.float32(amount) * wander, -0.36, 0.36)
    return step(blur(mask, reach) - 0.5 + wander, 0.25)


def planes(colour: ArrayLike) -> Floats:
    """A colour, or any 3 values, shaped [3, 1, 1] to go with a picture's planes."""
    return np.asarray(colour, np.float32)[:, None, None]


def paint(rgb: Floats, colour: ArrayLike, mask: Floats) -> None:
    """Covers `rgb`, in place, with `colour` (3 values, or a whole picture) as far as `mask` says."""
    cover = np.asarray(colour, np.float32)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    # Most masks cover a corner of the picture: work on no more than that.
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    strength = mask[box]
    for plane, above in zip(rgb, cover, strict=True):
        part = plane[box]
        part += ((above[box] if above.ndim else above) - part) * strength


def tint(colour: ArrayLike, *fields: tuple[float, Floats]) -> Floats:
    """Makes a picture of one colour whose brightness follows fields, each with its strength."""
    brightness = np.ones_like(fields[0][1])
    for strength, field in fields:
        brightness += np.float32(strength) * field
    return planes(colour) * np.clip(brightness, 0.2, 2.5)


def vary(rng: Rng, colour: ArrayLike, spread: float) -> Floats:
    """A colour near `colour`: a little brighter or darker, and a little to one side in hue."""
    brightness = 1 + spread * rng.standard_normal()
    hue = 1 + 0.25 * spread * rng.standard_normal(3)
    return (np.asarray(colour) * np.clip(brightness * hue, 0.6, 1.5)).astype(np.float32)


def pick(rng: Rng, colours: ArrayLike, spread: float = 0.06) -> Floats:
    """One of `colours` ([n, 3]), varied."""
    choices = np.asarray(colours, np.float32)
    return vary(rng, choices[rng.integers(len(choices))], spread)


def relief(field: Floats, pixels: int) -> Floats:
    """Light from the upper left on `field` as heights: lit slopes positive, shaded ones negative."""
    moved = np.roll(field, (pixels, pixels), axis=(0, 1))
    moved[:pixels], moved[:, :pixels] = field[:pixels], field[:, :pixels]
    return field - moved


def shift(field: Floats, right: int, down: int) -> Floats:
    """Moves a mask; what comes in from outside is 0."""
    size = field.shape[0]
    moved = np.zeros_like(field)
    to_y, to_x = (slice(max(0, by), size + min(0, by)) for by in (down, right))
    from_y, from_x = (slice(max(0, -by), size + min(0, -by)) for by in (down, right))
    moved[to_y, to_x] = field[from_y, from_x]
    return moved


def grid(size: int) -> tuple[Floats, Floats]:
    """The x and y of every pixel, each float32[size, size]."""
    line = np.arange(size, dtype=np.float32)
    return np.broadcast_to(line, (size, size)), np.broadcast_to(line[:, None], (size, size))


def turned(size: int, angle: float, centre: tuple[float, float]) -> tuple[Floats, Floats]:
    """Coordinates along and across `angle` (radians), in pixels from `centre`."""
    x, y = grid(size)
    along, across = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    return x * along + y * across, y * along - x * across


def curve(points: ArrayLike, samples: int = 12) -> NDArray[np.float64]:
    """A smooth line through points (Catmull-Rom, uniform).

    Args:
        points: [n, 2] with n at least 2.
        samples: points to put between two given ones.

    Returns:
        float64[(n - 1) * samples + 1, 2], starting and ending on the first and last point.
    """
    given = np.asarray(points, np.float64)
    p = np.vstack([2 * given[0] - given[1], given, 2 * given[-1] - given[-2]])
    t = np.arange(samples)[None, :, None] / samples
    p0, p1, p2, p3 = (p[i : len(p) - 3 + i, None, :] for i in range(4))
    between = 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return np.vstack([between.reshape(-1, 2), given[-1:]])


def crossing(rng: Rng, size: int, bends: int, swing: float) -> NDArray[np.float64]:
    """A winding path that enters the picture at one side and leaves it at another.

    Args:
        rng: the stream to draw from.
        size: pixels a side.
        bends: control points between the two ends.
        swing: how far they stray from the straight line, as a share of the size.

    Returns:
        float64[n, 2], points of the path, a few of them outside the picture.
    """
    angle = rng.uniform(0, 2 * np.pi)
    forward = np.array([np.cos(angle), np.sin(angle)])
    sideways = np.array([-forward[1], forward[0]])
    middle = size * (0.5 + rng.uniform(-0.22, 0.22, 2))
    along = np.linspace(-0.85, 0.85, bends + 2)
    stray = swing * rng.uniform(-1, 1, bends + 2)
    # Bends to alternate sides are what makes a line meander instead of drift.
    stray = 0.45 * stray + 0.55 * np.abs(stray) * np.where(np.arange(bends + 2) % 2, 1, -1)
    return curve(middle + size * (along[:, None] * forward + stray[:, None] * sideways))


def lines(size: int, paths: list[NDArray[np.float64]], width: float) -> Floats:
    """A mask of lines `width` pixels wide (fractions are honoured: drawn at twice the size)."""
    image = Image.new("L", (2 * size, 2 * size))
    draw = ImageDraw.Draw(image)
    drawn = max(1, round(2 * width))
    for path in paths:
        # Only on wide lines do the wedges show that a bend leaves open, and filling them is slow.
        draw.line((2 * path).ravel().tolist(), fill=255, width=drawn, joint="curve" if drawn > 30 else None)
    return np.asarray(image.reduce(2), np.float32) / np.float32(255)


def polygons(size: int, shapes: list[NDArray[np.float64]]) -> Floats:
    """A mask of filled polygons, each [n, 2]."""
    image = Image.new("L", (2 * size, 2 * size))
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        draw.polygon((2 * shape).ravel().tolist(), fill=255)
    return np.asarray(image.reduce(2), np.float32) / np.float32(255)


def blob(rng: Rng, centre: tuple[float, float], radius: float, corners: int = 9) -> NDArray[np.float64]:
    """An irregular closed outline about `centre`, as [n, 2]."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    # Angles left to chance may leave a half empty: pull them half way to even spacing.
    angles = 0.4 * angles + 0.6 * np.linspace(0, 2 * np.pi, corners, endpoint=False)
    reach = radius * rng.uniform(0.65, 1.3, corners)
    stretched = np.array([1.0, rng.uniform(0.6, 1.0)])
    turn = rng.uniform(0, np.pi)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * reach[:, None] * stretched
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outline: NDArray[np.float64] = points @ rotate.T + np.asarray(centre)
    return outline


def place(rng: Rng, size: int, margin: float) -> tuple[float, float]:
    """A place at least `margin` (a share of the size) away from the edges."""
    x, y = size * rng.uniform(margin, 1 - margin, 2)
    return float(x), float(y)
