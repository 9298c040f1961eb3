"""What each land tag looks like from above, in the order in which a painter would lay it down. Pure.

Promises: `FEATURES` has one drawing function for every land tag but `primary`; each changes a `Scene`'s
picture in place, from a stream of its own, so that a chip with a tag and the same chip without it differ
by that tag alone. Measures are for a chip of 256 pixels and scale with the size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.sample.brush import (
    Floats,
    Rng,
    blob,
    blur,
    crossing,
    curve,
    lines,
    noise,
    paint,
    pick,
    place,
    polygons,
    ragged,
    relief,
    step,
    tint,
    turned,
)

FIELD_COLOURS = (
    (112, 128, 80),
    (150, 128, 100),
    (92, 112, 70),
    (164, 144, 112),
    (128, 106, 86),
    (122, 136, 96),
)
PATCH_COLOURS = ((124, 138, 76), (150, 128, 94), (104, 130, 70), (160, 136, 104))
WATER_COLOURS = ((140, 118, 96), (30, 36, 46), (44, 62, 64), (120, 108, 88), (62, 78, 72))
SAND_COLOURS = ((206, 184, 152), (190, 164, 132))
ROAD_COLOURS = ((208, 180, 146), (194, 146, 114), (200, 192, 180))
ROOF_COLOURS = ((226, 224, 218), (190, 126, 102), (204, 200, 206), (240, 236, 226))
BARE_COLOURS = ((190, 160, 132), (206, 184, 158), (186, 148, 126))
POOL_COLOURS = ((134, 178, 164), (160, 186, 150), (112, 158, 152), (186, 186, 146))
PIT_COLOURS = ((208, 142, 106), (196, 178, 158), (188, 122, 92))
BLOOM_COLOURS = ((232, 210, 92), (232, 228, 220), (226, 150, 182))


@dataclass
class Scene:
    """A picture in the making."""

    rgb: Floats  # float32[size, size, 3]
    river: NDArray[np.float64] | None = None  # its course, for what lies along it
    road: NDArray[np.float64] | None = None  # likewise

    @property
    def size(self) -> int:
        """Pixels a side."""
        return int(self.rgb.shape[0])

    @property
    def unit(self) -> float:
        """How many of this chip's pixels make one of a 256-pixel chip."""
        return self.size / 256


def agriculture(scene: Scene, rng: Rng) -> None:
    """Fields with straight edges and rows, or a pasture that follows the land."""
    size, unit = scene.size, scene.unit
    angle = rng.uniform(0, np.pi)
    centre = place(rng, size, 0.25)
    along, across = turned(size, angle, centre)
    wide, deep = size * rng.uniform(0.28, 0.6, 2)
    column = np.clip(np.floor(along / wide + 0.5), -3, 3).astype(int) + 3
    row = np.clip(np.floor(across / deep + 0.5), -3, 3).astype(int) + 3
    used = rng.random((7, 7)) < rng.uniform(0.3, 0.75)
    used[3, 3] = True
    colours = np.stack([pick(rng, FIELD_COLOURS, 0.07) for _ in range(49)]).reshape(7, 7, 3)
    if rng.random() < 0.4:
        colours[:] = colours[3, 3]
        reach = 12 * unit
    else:
        reach = 3 * unit
    mask = ragged(rng, used[column, row].astype(np.float32), max(reach, 1), 0.12)
    spacing = unit * rng.uniform(5, 9)
    rows = np.sin(2 * np.pi * (along if rng.random() < 0.5 else across) / spacing).astype(np.float32)
    soil = noise(rng, size, 6, octaves=5, gain=0.6)
    shade = 1 + 0.055 * soil + rng.uniform(0.015, 0.05) * rows
    fields = colours[column, row].astype(np.float32) * shade[..., None]
    paint(scene.rgb, fields, 0.96 * mask)
    trees = step(noise(rng, size, 36, octaves=2) - np.float32(rng.uniform(2.1, 2.9)), 0.6) * mask
    paint(scene.rgb, (52, 66, 44), 0.85 * trees)


def bare_ground(scene: Scene, rng: Rng) -> None:
    """Bright washed-out soil without rows, crossed by darker runnels."""
    size = scene.size
    shapes = [
        blob(rng, place(rng, size, 0.15), size * rng.uniform(0.14, 0.28)) for _ in range(rng.integers(1, 4))
    ]
    mask = ragged(rng, polygons(size, shapes), 10 * scene.unit, 0.2)
    stains = noise(rng, size, 8, octaves=4, gain=0.6)
    depth: Floats = np.abs(noise(rng, size, 7, octaves=3))
    runnels = step(0.12 - depth, 0.2)
    paint(scene.rgb, tint(pick(rng, BARE_COLOURS, 0.05), (0.06, stains), (-0.16, runnels)), 0.97 * mask)


def slash_burn(scene: Scene, rng: Rng) -> None:
    """A burnt clearing: scorched rim, black inside with grey ash, now and then still smoking."""
    size, unit = scene.size, scene.unit
    middle = place(rng, size, 0.25)
    shapes = [blob(rng, middle, size * rng.uniform(0.14, 0.24))]
    if rng.random() < 0.4:
        shapes.append(blob(rng, place(rng, size, 0.2), size * rng.uniform(0.08, 0.14)))
    shape = polygons(size, shapes)
    scorch = ragged(rng, blur(shape, 5 * unit) * 1.8, 8 * unit, 0.2)
    paint(scene.rgb, tint((112, 78, 56), (0.12, noise(rng, size, 30, octaves=2))), 0.9 * scorch)
    burnt = ragged(rng, shape, 7 * unit, 0.22)
    paint(scene.rgb, tint((34, 28, 27), (0.2, noise(rng, size, 40, octaves=2))), 0.95 * burnt)
    ash = step(noise(rng, size, 26, octaves=3, gain=0.7) - 1.0, 0.7) * burnt
    paint(scene.rgb, (146, 142, 138), 0.85 * ash)
    if rng.random() < 0.5:
        along, across = turned(size, rng.uniform(0, 2 * np.pi), middle)
        away = np.clip(along / size, 0, 1)
        plume = np.exp(-((across / (size * (0.03 + 0.25 * away))) ** 2)) * np.clip(1 - 1.2 * away, 0, 1)
        wisps = np.clip(0.75 + 0.3 * noise(rng, size, 8, octaves=4), 0, 1)
        paint(scene.rgb, (196, 198, 202), (0.75 * plume * wisps * (along > 0)).astype(np.float32))


def blow_down(scene: Scene, rng: Rng) -> None:
    """Trees laid flat by one gust: a fan of pale trunks on brown litter."""
    size, unit = scene.size, scene.unit
    angle, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 0.65)
    length = size * rng.uniform(0.42, 0.62)
    middle = np.asarray(place(rng, size, 0.38))
    apex = middle - 0.55 * length * np.array([np.cos(angle), np.sin(angle)])
    turn = angle + np.linspace(-spread, spread, 9)
    rim = apex + length * rng.uniform(0.85, 1.1, 9)[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    mask = ragged(rng, polygons(size, [np.vstack([apex, rim])]), 9 * unit, 0.24)
    litter = tint((116, 106, 78), (0.12, noise(rng, size, 40, octaves=2)), (0.08, noise(rng, size, 8)))
    paint(scene.rgb, litter, 0.8 * mask)
    count = 150
    turns = angle + rng.uniform(-spread, spread, count)
    near = length * np.sqrt(rng.uniform(0.02, 0.8, count))
    ray = np.stack([np.cos(turns), np.sin(turns)], 1)
    start = apex + near[:, None] * ray
    end = start + (size * rng.uniform(0.04, 0.09, count))[:, None] * ray
    trunks = lines(size, list(np.stack([start, end], 1)), 1.3 * unit)
    paint(scene.rgb, (188, 178, 150), 0.75 * trunks * np.clip(mask + 0.2, 0, 1))


def selective_logging(scene: Scene, rng: Rng) -> None:
    """Thin winding skid tracks through standing forest, each ending in small gaps."""
    size, unit = scene.size, scene.unit
    trunk = crossing(rng, size, 4, 0.12)
    tracks, gaps = [trunk], []
    for at in rng.choice(np.arange(len(trunk) // 5, len(trunk) * 4 // 5), 7, replace=False):
        start = trunk[at]
        heading, end = rng.uniform(0, 2 * np.pi), start
        points = [start]
        for _ in range(3):
            heading += rng.normal(0, 0.5)
            end = end + size * rng.uniform(0.05, 0.09) * np.array([np.cos(heading), np.sin(heading)])
            points.append(end)
        tracks.append(curve(points, 6))
        gaps += [blob(rng, (x, y), unit * rng.uniform(4, 8), 7) for x, y in points[1::2]]
    soil = pick(rng, ((168, 132, 98), (150, 122, 92)))
    opened = blur(lines(size, tracks, 7 * unit), 2 * unit)
    paint(scene.rgb, (84, 92, 58), 0.5 * opened)
    paint(scene.rgb, soil, 0.85 * lines(size, tracks, 2.4 * unit))
    paint(scene.rgb, soil, 0.9 * ragged(rng, polygons(size, gaps), max(2 * unit, 1), 0.15))


def cultivation(scene: Scene, rng: Rng) -> None:
    """Smallholders' plots: a loose group of little irregular clearings, each of its own age."""
    size, unit = scene.size, scene.unit
    x, y = place(rng, size, 0.3)
    for _ in range(rng.integers(5, 10)):
        centre = (x + size * rng.normal(0, 0.2), y + size * rng.normal(0, 0.2))
        shape = polygons(size, [blob(rng, centre, unit * rng.uniform(10, 20), 6)])
        mask = ragged(rng, shape, max(3 * unit, 1), 0.15)
        texture = noise(rng, size, 60, octaves=1)
        paint(scene.rgb, tint(pick(rng, PATCH_COLOURS, 0.1), (0.1, texture)), 0.9 * mask)


def water(scene: Scene, rng: Rng) -> None:
    """A river in bends, with sand here and there on its banks, or the shore of a wide one."""
    size, unit = scene.size, scene.unit
    colour = pick(rng, WATER_COLOURS, 0.08)
    course = crossing(rng, size, int(rng.integers(4, 8)), rng.uniform(0.06, 0.16))
    scene.river = course
    width = unit * float(rng.choice([rng.uniform(8, 14), rng.uniform(16, 40), rng.uniform(50, 110)]))
    body = ragged(rng, lines(size, [course], width), max(3.5 * unit, 1), 0.1)
    bank = ragged(rng, lines(size, [course], width + 9 * unit), max(4 * unit, 1), 0.2)
    sandy = step(noise(rng, size, 6, octaves=2) - rng.uniform(-0.6, 0.9), 0.6)
    paint(scene.rgb, (50, 62, 40), 0.5 * bank)
    paint(scene.rgb, pick(rng, SAND_COLOURS), 0.85 * bank * sandy)
    if width > 36 * unit and rng.random() < 0.5:
        island = blob(rng, tuple(course[len(course) // 2]), width * 0.3, 8)
        body = body * (1 - ragged(rng, polygons(size, [island]), max(3 * unit, 1), 0.15))
    paint(scene.rgb, tint(colour, (0.02, noise(rng, size, 5, octaves=4))), 0.97 * body)


def artisinal_mine(scene: Scene, rng: Rng) -> None:
    """Diggings along a river: churned pale soil full of small milky pools."""
    size, unit = scene.size, scene.unit
    course = scene.river if scene.river is not None else crossing(rng, size, 5, 0.1)
    inside = course[np.all((course > 0.15 * size) & (course < 0.85 * size), axis=1)]
    anchor = inside if len(inside) else np.asarray([place(rng, size, 0.3)])
    begin = int(rng.integers(max(1, len(anchor) // 2)))
    anchor = anchor[begin : begin + max(3, len(anchor) // 2)]
    spots = anchor[rng.integers(len(anchor), size=16)] + size * rng.normal(0, 0.05, (16, 2))
    soil = polygons(size, [blob(rng, (x, y), unit * rng.uniform(12, 22), 7) for x, y in spots[:10]])
    soil = ragged(rng, soil, 6 * unit, 0.25)
    churned = noise(rng, size, 24, octaves=3, gain=0.7)
    paint(scene.rgb, tint((206, 178, 134), (0.12, churned), (0.1, relief(churned, 1))), 0.93 * soil)
    for x, y in spots:
        pool = polygons(size, [blob(rng, (x, y), unit * rng.uniform(5, 10), 7)])
        paint(scene.rgb, (150, 126, 88), 0.5 * blur(pool, 1.5 * unit))
        paint(scene.rgb, pick(rng, POOL_COLOURS), 0.95 * pool)


def conventional_mine(scene: Scene, rng: Rng) -> None:
    """One large pit, cut in terraces, bright against everything around it."""
    size, unit = scene.size, scene.unit
    along, across = turned(size, rng.uniform(0, np.pi), place(rng, size, 0.35))
    far = np.hypot(along / (size * rng.uniform(0.26, 0.42)), across / (size * rng.uniform(0.2, 0.32)))
    far = far + 0.07 * noise(rng, size, 5, octaves=3)
    steps = rng.uniform(5, 7)
    level = np.floor(far * steps) / steps
    riser = step(0.16 - np.abs(far * steps - np.round(far * steps)), 0.2)
    colour = pick(rng, PIT_COLOURS, 0.05)
    pit = tint(
        colour, (0.35, (level - 0.5).astype(np.float32)), (-0.3, riser), (0.05, noise(rng, size, 30, 2))
    )
    paint(scene.rgb, pit, 0.97 * step((1 - far).astype(np.float32), 0.06))
    ramp = [np.asarray([place(rng, size, 0.3), place(rng, size, -0.2)])]
    paint(scene.rgb, 1.1 * colour, 0.9 * lines(size, ramp, 5 * unit))
    if rng.random() < 0.5:
        paint(scene.rgb, pick(rng, POOL_COLOURS), 0.9 * step((0.22 - far).astype(np.float32), 0.05))


def road(scene: Scene, rng: Rng) -> None:
    """One or two thin bright lines from side to side, straight or gently bent, on a cleared verge."""
    size, unit = scene.size, scene.unit
    straight = rng.random() < 0.5
    paths = [crossing(rng, size, 1 if straight else 3, 0.01 if straight else 0.1)]
    scene.road = paths[0]
    if rng.random() < 0.35:
        fork = paths[0][len(paths[0]) // 2]
        heading = rng.uniform(0, 2 * np.pi)
        end = fork + size * np.array([np.cos(heading), np.sin(heading)])
        paths.append(curve([fork, (fork + end) / 2 + size * rng.normal(0, 0.04, 2), end]))
    verge = blur(lines(size, paths, unit * rng.uniform(10, 16)), 2 * unit)
    paint(scene.rgb, (112, 114, 82), 0.55 * verge)
    paint(scene.rgb, pick(rng, ROAD_COLOURS), 0.92 * lines(size, paths, unit * rng.uniform(3.4, 5.2)))


def habitation(scene: Scene, rng: Rng) -> None:
    """A settlement: bright little roofs in loose rows, along the road where there is one."""
    size, unit = scene.size, scene.unit
    inside = None
    if scene.road is not None:
        inside = scene.road[np.all((scene.road > 0.2 * size) & (scene.road < 0.8 * size), axis=1)]
    if inside is not None and len(inside) > 1:
        at = int(rng.integers(len(inside) - 1))
        middle = inside[at]
        ahead = inside[at + 1] - inside[at]
        angle = float(np.arctan2(ahead[1], ahead[0]))
    else:
        middle, angle = np.asarray(place(rng, size, 0.25)), rng.uniform(0, np.pi)
    radius = size * rng.uniform(0.12, 0.26)
    yard = ragged(rng, polygons(size, [blob(rng, (middle[0], middle[1]), radius)]), 6 * unit, 0.2)
    paint(scene.rgb, tint((146, 132, 106), (0.1, noise(rng, size, 40, octaves=2))), 0.7 * yard)
    pitch = unit * rng.uniform(10, 14)
    spots = np.stack(np.meshgrid(np.arange(-7, 8), np.arange(-7, 8)), -1).reshape(-1, 2) * pitch
    spots = spots + rng.normal(0, 0.16, spots.shape) * pitch
    spots = spots[np.hypot(spots[:, 0] / 1.3, spots[:, 1]) < radius]
    spots = spots[rng.random(len(spots)) < 0.75]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    half = unit * rng.uniform(2.0, 3.6, (len(spots), 1, 2))
    corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + spots[:, None, :]
    roofs = list(corners @ turn + middle)
    paint(scene.rgb, (40, 42, 38), 0.6 * polygons(size, [roof + 1.6 * unit for roof in roofs]))
    dye = rng.integers(len(ROOF_COLOURS), size=len(roofs))
    for index, colour in enumerate(ROOF_COLOURS):
        same = [roof for roof, which in zip(roofs, dye, strict=True) if which == index]
        paint(scene.rgb, colour, 0.95 * polygons(size, same))


def blooming(scene: Scene, rng: Rng) -> None:
    """Single crowns in flower, yellow, white or pink, scattered over the canopy."""
    size, unit = scene.size, scene.unit
    colour = pick(rng, BLOOM_COLOURS, 0.04)
    crowns = [
        blob(rng, place(rng, size, 0.0), unit * rng.uniform(2.4, 4.2), 6) for _ in range(rng.integers(40, 90))
    ]
    paint(scene.rgb, colour, 0.85 * polygons(size, crowns))


# From the ground up: later ones lie on earlier ones, and what needs a river or a road comes after it.
FEATURES: dict[str, Callable[[Scene, Rng], None]] = {
    "agriculture": agriculture,
    "bare_ground": bare_ground,
    "slash_burn": slash_burn,
    "blow_down": blow_down,
    "selective_logging": selective_logging,
    "cultivation": cultivation,
    "water": water,
    "artisinal_mine": artisinal_mine,
    "conventional_mine": conventional_mine,
    "road": road,
    "habitation": habitation,
    "blooming": blooming,
}
