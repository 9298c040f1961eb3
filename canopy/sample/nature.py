"""What nature alone draws on the canopy: rivers, bare soil, windthrow, trees in flower. Pure.

Promises: each function changes a `Scene`'s picture in place and draws from the stream given to it. Measures
are for a chip of 256 pixels and scale with the size.
"""

from __future__ import annotations

import numpy as np

from canopy.sample.brush import (
    Floats,
    Rng,
    blob,
    crossing,
    lines,
    noise,
    paint,
    pick,
    place,
    polygons,
    ragged,
    shift,
    step,
    tint,
)
from canopy.sample.scene import Scene

WATER_COLOURS = ((140, 118, 96), (30, 36, 46), (44, 62, 64), (120, 108, 88), (62, 78, 72))
SAND_COLOURS = ((206, 184, 152), (190, 164, 132))
BARE_COLOURS = ((186, 158, 132), (200, 180, 156), (182, 148, 128))
BLOOM_COLOURS = ((232, 210, 92), (232, 228, 220), (226, 150, 182))


def water(scene: Scene, rng: Rng) -> None:
    """A river in bends, with sand here and there on its banks, or the shore of a wide one."""
    size, unit = scene.size, scene.unit
    colour = pick(rng, WATER_COLOURS, 0.08)
    course = crossing(rng, size, int(rng.integers(4, 8)), rng.uniform(0.06, 0.16))
    width = unit * float(rng.choice([rng.uniform(9, 15), rng.uniform(16, 40), rng.uniform(50, 110)]))
    scene.river, scene.river_width = course, width
    body = ragged(rng, lines(size, [course], width), max(min(3.5 * unit, width / 5), 1), 0.1)
    bank = ragged(rng, lines(size, [course], width + 9 * unit), max(4 * unit, 1), 0.2)
    sandy = step(noise(rng, size, 6, octaves=2) - rng.uniform(-0.6, 0.9), 0.6)
    paint(scene.rgb, (50, 62, 40), 0.5 * bank)
    paint(scene.rgb, pick(rng, SAND_COLOURS), 0.85 * bank * sandy)
    if width > 36 * unit and rng.random() < 0.5:
        island = blob(rng, tuple(course[len(course) // 2]), width * 0.3, 8)
        body = body * (1 - ragged(rng, polygons(size, [island]), max(3 * unit, 1), 0.15))
    paint(scene.rgb, tint(colour, (0.02, noise(rng, size, 5, octaves=4))), 0.97 * body)
    scene.taken = body


def bare_ground(scene: Scene, rng: Rng) -> None:
    """Bright washed-out soil without rows, crossed by darker runnels."""
    size = scene.size
    shapes = [
        blob(rng, place(rng, size, 0.15), size * rng.uniform(0.14, 0.28)) for _ in range(rng.integers(1, 4))
    ]
    mask = ragged(rng, polygons(size, shapes), 10 * scene.unit, 0.2)
    stains = noise(rng, size, 7, octaves=6, gain=0.75)
    depth: Floats = np.abs(noise(rng, size, 9, octaves=4, gain=0.6))
    runnels = step(0.1 - depth, 0.3) * np.clip(stains, 0, 1)
    paint(scene.rgb, tint(pick(rng, BARE_COLOURS, 0.05), (0.09, stains), (-0.16, runnels)), 0.97 * mask)


def blow_down(scene: Scene, rng: Rng) -> None:
    """Trees laid flat by one gust: a fan of pale trunks on brown litter."""
    size, unit = scene.size, scene.unit
    angle, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.7)
    length = size * rng.uniform(0.45, 0.7)
    middle = np.asarray(place(rng, size, 0.38))
    apex = middle - 0.55 * length * np.array([np.cos(angle), np.sin(angle)])
    turn = angle + np.linspace(-spread, spread, 7)
    rim = apex + length * rng.uniform(0.75, 1.15, 7)[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    mask = ragged(rng, polygons(size, [np.vstack([apex, rim])]), 11 * unit, 0.3)
    litter = tint(
        (120, 112, 86), (0.14, noise(rng, size, 50, octaves=2)), (0.1, noise(rng, size, 8, octaves=2))
    )
    paint(scene.rgb, litter, 0.78 * mask)
    count = 260
    turns = angle + rng.uniform(-spread, spread, count)
    near = length * np.sqrt(rng.uniform(0.02, 0.9, count))
    lean = turns + rng.normal(0, 0.12, count)
    ray, fallen = (np.stack([np.cos(way), np.sin(way)], 1) for way in (turns, lean))
    start = apex + near[:, None] * ray
    end = start + (size * rng.uniform(0.02, 0.06, count))[:, None] * fallen
    trunks = lines(size, list(np.stack([start, end], 1)), unit)
    paint(scene.rgb, (196, 188, 164), 0.7 * trunks * mask)
    paint(scene.rgb, (40, 46, 36), 0.5 * shift(trunks, 0, max(1, round(unit))) * (1 - trunks) * mask)


def blooming(scene: Scene, rng: Rng) -> None:
    """Single crowns in flower, yellow, white or pink, scattered over the canopy."""
    size, unit = scene.size, scene.unit
    colour = pick(rng, BLOOM_COLOURS, 0.04)
    crowns = [
        blob(rng, place(rng, size, 0.0), unit * rng.uniform(2.4, 4.2), 6) for _ in range(rng.integers(40, 90))
    ]
    paint(scene.rgb, colour, 0.85 * polygons(size, crowns))
