"""What every picture is drawn with: noise, masks, winding lines, and paint. Pure functions.

Promises: the same generator state gives the same array; nothing here touches a file or a global. Pictures
are float32[size, size, 3] with 0 to 255 a channel, masks are float32[size, size] from 0 (leave) to 1 (cover),
and places are in pixels, x to the right and y down.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float32]
Rng = np.random.Generator


def noise(rng: Rng, size: int, cells: float, octaves: int = 1, gain: float = 0.5) -> Floats:
    """Draws smooth random values, coarse to fine, as clouds and tree cover have them.

    Each octave is white noise on a small grid, stretched bicubically: cheap, for the grid is small.

    Args:
        rng: the stream to draw from.
        size: pixels a side.
        cells: blobs a side in the coarsest octave.
        octaves: how many, each twice as fine as the last.
        gain: the strength of an octave relative to the last.

    Returns:
        float32[size, size], mean about 0, standard deviation 1.
    """
    total = np.zeros((size, size), np.float32)
    strength = 1.0
    for octave in range(octaves):
        grid = min(size, max(2, round(cells * 2**octave)))
        values = rng.standard_normal((grid, grid), np.float32)
        layer = values if grid == size else stretch(values, size)
        total += np.float32(strength) * layer
        strength *= gain
    total -= total.mean()
    total /= np.float32(max(float(total.std()), 1e-6))
    return total


def stretch(values: Floats, size: int) -> Floats:
    """Resizes a float32[h, w] field to float32[size, size], bicubically."""
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BICUBIC), np.float32)


def blur(field: Floats, radius: float) -> Floats:
    """Softens a mask (0 to 1) by about `radius` pixels, by a reduced copy where the radius is large."""
    size = field.shape[0]
    image = Image.fromarray(np.clip(field * 255, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(min(radius, size / 2)))
    return np.asarray(image, np.float32) / np.float32(255)


def step(field: Floats, softness: float) -> Floats:
    """A soft threshold at 0: 0 below -softness / 2, 1 above softness / 2, straight between."""
    mask: Floats = np.clip(field / np.float32(softness) + np.float32(0.5), 0, 1)
    return mask


def ragged(rng: Rng, mask: Floats, reach: float, amount: float = 0.22) -> Floats:
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


def paint(rgb: Floats, colour: ArrayLike, mask: Floats) -> None:
    """Covers `rgb`, in place, with `colour` (3 values, or a whole picture) as far as `mask` says."""
    paint_over = np.asarray(colour, np.float32)
    rgb += (paint_over - rgb) * mask[..., None]


def tint(colour: ArrayLike, *fields: tuple[float, Floats]) -> Floats:
    """Makes a picture of one colour whose brightness follows fields, each with its strength."""
    brightness = np.ones_like(fields[0][1])
    for strength, field in fields:
        brightness += np.float32(strength) * field
    picture: Floats = np.asarray(colour, np.float32) * np.clip(brightness, 0.2, 2.5)[..., None]
    return picture


def vary(rng: Rng, colour: ArrayLike, spread: float = 0.06) -> Floats:
    """A colour near `colour`: a little brighter or darker, and a little to one side in hue."""
    brightness = 1 + spread * rng.standard_normal()
    hue = 1 + 0.4 * spread * rng.standard_normal(3)
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
    for path in paths:
        points = [(float(x), float(y)) for x, y in 2 * path]
        draw.line(points, fill=255, width=max(1, round(2 * width)), joint="curve")
    return np.asarray(image.reduce(2), np.float32) / np.float32(255)


def polygons(size: int, shapes: list[NDArray[np.float64]]) -> Floats:
    """A mask of filled polygons, each [n, 2]."""
    image = Image.new("L", (2 * size, 2 * size))
    draw = ImageDraw.Draw(image)
    for shape in shapes:
        draw.polygon([(float(x), float(y)) for x, y in 2 * shape], fill=255)
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


def place(rng: Rng, size: int, margin: float = 0.2) -> tuple[float, float]:
    """A place at least `margin` (a share of the size) away from the edges."""
    x, y = size * rng.uniform(margin, 1 - margin, 2)
    return float(x), float(y)
