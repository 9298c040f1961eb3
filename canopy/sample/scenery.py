"""The ground before anyone touched it, and the sky above: canopy, grassland, cloud, haze, light.

Promises: each function draws from the generator given to it and returns or changes a float32[3, size, size]
picture; nothing here knows of tags or files. Colours and contrast follow what chips of the Amazon at 3 m a
pixel look like: dark, low in contrast, seldom saturated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from canopy.sample.brush import (
    Floats,
    Rng,
    blur,
    noise,
    paint,
    pick,
    place,
    planes,
    relief,
    shift,
    step,
    tint,
    turned,
)

CANOPY_COLOURS = ((42, 58, 42), (36, 56, 50), (52, 64, 40), (50, 56, 44), (34, 48, 38), (58, 76, 50))
GRASS_COLOURS = ((128, 116, 92), (108, 112, 78), (140, 120, 100), (96, 104, 70))
CLOUD_SHADES = ((226, 228, 226), (216, 218, 214), (232, 228, 230))
DECK_COLOURS = ((170, 182, 176), (150, 156, 146), (190, 196, 192), (168, 160, 148), (128, 132, 128))
HAZE_COLOURS = ((146, 152, 144), (158, 164, 164), (132, 132, 116), (140, 150, 152))


def rainforest(rng: Rng, size: int) -> Floats:
    """Closed canopy: crowns of 3 to 6 pixels lit from the upper left, over gentle hills."""
    base = pick(rng, CANOPY_COLOURS, 0.10)
    crowns = noise(rng, size, size / rng.uniform(3.6, 5.6), octaves=2, gain=0.7)
    hills = noise(rng, size, rng.uniform(3, 7), octaves=2, gain=0.4)
    contrast = rng.uniform(0.6, 1.1)
    picture = tint(
        base,
        (0.10 * contrast, crowns),
        (0.13 * contrast, relief(crowns, 1)),
        (0.05, hills),
        (rng.uniform(0.0, 0.22), relief(hills, max(1, size // 64))),
    )
    # Stands differ in species: patches lean to yellow-green, others to blue-green.
    stands = noise(rng, size, 4, octaves=4)
    picture += stands * planes((2.2, 1.4, -0.8))
    return picture


def grassland(rng: Rng, size: int) -> Floats:
    """Ground with no primary forest: dry grass, bare in places, a few bushes."""
    base = pick(rng, GRASS_COLOURS, 0.08)
    swells = noise(rng, size, 4, octaves=5, gain=0.6)
    fine = noise(rng, size, size / 2.5)
    picture = tint(base, (0.07, swells), (0.03, fine))
    picture += noise(rng, size, 3, octaves=4) * planes((2.5, 1, -1))
    bushes = step(noise(rng, size, size / 7, octaves=2) - 2.1, 0.8)
    paint(picture, (56, 64, 46), 0.8 * bushes)
    return picture


def partly_cloudy(rng: Rng, rgb: Floats) -> None:
    """Puts white billows with their shadows over a part of the picture."""
    size = rgb.shape[1]
    shape = noise(rng, size, rng.uniform(2.0, 4.5), octaves=7, gain=0.6)
    if rng.random() < 0.5:
        # Fair weather: a few clouds near one another, and open sky around.
        along, across = turned(size, rng.uniform(0, np.pi), place(rng, size, 0.1))
        shape = shape - 1.6 * np.hypot(along / (0.5 * size), across / (0.3 * size))
    cover = 0.30 * rng.uniform(0.08, 1.0)
    thickness = (shape - np.float32(np.quantile(shape, 1 - cover))) / np.float32(rng.uniform(0.7, 1.3))
    cloud = np.clip(thickness + 0.25, 0, 1)
    # The sun stands where the relief of every layer has it: upper left.
    away = size * rng.uniform(0.05, 0.16)
    shadow = blur(shift(cloud, round(away), round(away * rng.uniform(0.5, 1.3))), size / 90)
    rgb *= 1 - 0.5 * shadow
    paint(rgb, (176, 184, 184), 0.4 * blur(cloud, size / 24))
    tops = _billows(rng, size) * (0.82 + 0.18 * np.clip(thickness, 0, 1))
    paint(rgb, tops, 0.97 * cloud)


def cloudy(rng: Rng, rgb: Floats) -> None:
    """Hides nearly all ground: under billows, or under one flat deck."""
    size = rgb.shape[1]
    deck = pick(rng, DECK_COLOURS, 0.06)
    swells = noise(rng, size, rng.uniform(2, 4), octaves=4, gain=0.45)
    if rng.random() < 0.45:
        paint(rgb, tint(deck, (rng.uniform(0.01, 0.04), swells)), np.full((size, size), 0.96, np.float32))
        return
    paint(rgb, tint(deck, (0.05, swells)), np.full((size, size), rng.uniform(0.78, 0.92), np.float32))
    shape = noise(rng, size, rng.uniform(2.5, 8), octaves=6, gain=0.6)
    cover = step(shape - np.float32(np.quantile(shape, rng.uniform(0.15, 0.55))), rng.uniform(1.2, 2.4))
    paint(rgb, _billows(rng, size), rng.uniform(0.7, 0.97) * cover)


def haze(rng: Rng, rgb: Floats) -> None:
    """Lays a veil over the whole picture: it pales, and contrast sinks to about a half."""
    size = rgb.shape[1]
    colour = pick(rng, HAZE_COLOURS, 0.06)
    thickness = rng.uniform(0.42, 0.68) + 0.03 * noise(rng, size, 2, octaves=2)
    paint(rgb, colour, np.clip(thickness, 0.35, 0.80).astype(np.float32))


def light(rng: Rng, rgb: Floats) -> None:
    """The day's light and air: brightness, a slight cast, a thin veil. Changes `rgb` in place."""
    grey = rgb.mean(axis=0)
    faded = np.float32(rng.uniform(0.1, 0.4))
    warm, green = rng.standard_normal(2) * (0.06, 0.02)
    cast = planes((1 + warm, 1 + green, 1 - warm))
    gain = np.float32(rng.uniform(0.8, 1.15)) * cast
    veil = np.float32(0.4 * rng.beta(1.4, 3))
    rgb *= (1 - faded) * (1 - veil) * gain
    rgb += (faded * (1 - veil) * gain) * grey + veil * planes((112, 118, 114))


def sensor(rng: Rng, rgb: Floats) -> NDArray[np.uint8]:
    """A camera's part: the optics' softness and the noise of its pixels.

    Args:
        rng: the stream to draw from.
        rgb: float32[3, size, size], 0 to 255, more or less.

    Returns:
        uint8[size, size, 3].
    """
    size = rgb.shape[1]
    images = [Image.fromarray(plane) for plane in np.clip(rgb, 0, 255).astype(np.uint8)]
    # A Gaussian of this width has nothing beyond the next pixel.
    beside = float(np.exp(-0.5 / rng.uniform(0.35, 0.6) ** 2))
    corner = beside**2
    weights = (corner, beside, corner, beside, 1, beside, corner, beside, corner)
    lens = ImageFilter.Kernel((3, 3), weights)
    grain = np.float32(rng.uniform(0.3, 1.0)) * rng.standard_normal((size, size), np.float32)
    # One field of noise, moved far for each channel, looks like three and costs a third.
    seen = np.empty((size, size, 3), np.uint8)
    for channel, image in enumerate(images):
        soft = image.filter(lens) + np.roll(grain, channel * size // 3, axis=channel % 2)
        seen[..., channel] = np.clip(np.rint(soft), 0, 255)
    return seen


def _billows(rng: Rng, size: int) -> Floats:
    """White cloud tops, lit from the upper left."""
    puffs = noise(rng, size, 7, octaves=4, gain=0.6)
    return tint(pick(rng, CLOUD_SHADES, 0.03), (0.045, puffs), (0.08, relief(puffs, max(1, size // 128))))


# Clear sky has no layer.
WEATHER_LAYERS: dict[str, Callable[[Rng, Floats], None]] = {
    "partly_cloudy": partly_cloudy,
    "cloudy": cloudy,
    "haze": haze,
}
