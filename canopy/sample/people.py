"""What people leave behind: fields, plots, burns, logging, mines, roads, houses. Pure.

Promises: each function changes a `Scene`'s picture in place and draws from the stream given to it. Measures
are for a chip of 256 pixels and scale with the size.
"""

from __future__ import annotations

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
    planes,
    polygons,
    ragged,
    relief,
    step,
    tint,
    turned,
    vary,
)
from canopy.sample.scene import Scene

FIELD_COLOURS = (
    (112, 128, 80),
    (150, 128, 100),
    (92, 112, 70),
    (164, 144, 112),
    (128, 106, 86),
    (122, 136, 96),
)
PATCH_COLOURS = ((120, 134, 84), (148, 128, 98), (166, 144, 114))
ROAD_COLOURS = ((208, 180, 146), (194, 146, 114), (200, 192, 180))
ROOF_COLOURS = ((228, 226, 220), (184, 126, 104), (180, 176, 176))
POOL_COLOURS = ((134, 178, 164), (160, 186, 150), (112, 158, 152), (186, 186, 146))
PIT_COLOURS = ((204, 144, 112), (196, 178, 158), (186, 128, 100))


def agriculture(scene: Scene, rng: Rng) -> None:
    """Fields with straight edges and rows, or a pasture whose edge follows the land."""
    size, unit = scene.size, scene.unit
    along, across = turned(size, rng.uniform(0, np.pi), place(rng, size, 0.25))
    wide, deep = size * rng.uniform(0.28, 0.6, 2)
    column = np.clip(np.floor(along / wide + 0.5), -3, 3).astype(int) + 3
    row = np.clip(np.floor(across / deep + 0.5), -3, 3).astype(int) + 3
    used = rng.random((7, 7)) < rng.uniform(0.3, 0.75)
    used[3, 3] = True
    colours = np.stack([pick(rng, FIELD_COLOURS, 0.07) for _ in range(49)])
    colours = colours[24] + np.float32(rng.uniform(0.2, 1.0)) * (colours - colours[24])
    fields = np.take(colours.T, 7 * column + row, axis=1)
    shore = noise(rng, size, 4, octaves=5, gain=0.6)
    if rng.random() < 0.45:
        fields[:] = planes(colours[24])
        reach = np.hypot(along / (size * rng.uniform(0.3, 0.6)), across / (size * rng.uniform(0.2, 0.4)))
        mask = step(1 - reach.astype(np.float32) + 0.28 * shore, 0.12)
    else:
        mask = ragged(rng, used[column, row].astype(np.float32), max(2.5 * unit, 1), 0.1)
    rows = np.sin(2 * np.pi * (along if rng.random() < 0.5 else across) / (unit * rng.uniform(5, 9)))
    soil = noise(rng, size, 8, octaves=5, gain=0.7)
    ploughed = np.clip(noise(rng, size, 3) + rng.uniform(-0.5, 1), 0, 1)
    fields *= 1 + 0.05 * soil + 0.05 * ploughed * rows.astype(np.float32)
    fields += shore * planes((3, 1, 0))
    paint(scene.rgb, fields, 0.96 * mask)
    trees = step(noise(rng, size, 44, octaves=2) - np.float32(rng.uniform(2.0, 3.2)), 0.6) * mask
    paint(scene.rgb, (56, 68, 48), 0.8 * trees)


def slash_burn(scene: Scene, rng: Rng) -> None:
    """A burnt clearing: scorched rim, black inside with grey ash, now and then still smoking."""
    size, unit = scene.size, scene.unit
    middle = place(rng, size, 0.25)
    shapes = [blob(rng, middle, size * rng.uniform(0.15, 0.26))]
    if rng.random() < 0.4:
        shapes.append(blob(rng, place(rng, size, 0.2), size * rng.uniform(0.08, 0.14)))
    shape = polygons(size, shapes)
    logs = noise(rng, size, 44, octaves=2)
    scorch = ragged(rng, np.clip(blur(shape, 5 * unit) * 1.8, 0, 1), 8 * unit, 0.2)
    paint(scene.rgb, tint((122, 90, 68), (0.1, logs)), 0.9 * scorch)
    burnt = ragged(rng, shape, 7 * unit, 0.22)
    paint(scene.rgb, tint((36, 30, 29), (0.2, logs)), 0.95 * burnt)
    ash = step(noise(rng, size, 18, octaves=4, gain=0.8) - 0.9, 1.2) * burnt
    paint(scene.rgb, (136, 132, 128), 0.75 * ash)
    if rng.random() < 0.5:
        along, across = turned(size, rng.uniform(0, 2 * np.pi), middle)
        away = np.clip(along / size, 0, 1)
        plume = np.exp(-((across / (size * (0.03 + 0.25 * away))) ** 2)) * np.clip(1 - 1.2 * away, 0, 1)
        wisps = np.clip(0.75 + 0.3 * noise(rng, size, 8, octaves=4), 0, 1)
        paint(scene.rgb, (190, 194, 198), (0.7 * plume * wisps * (along > 0)).astype(np.float32))


def selective_logging(scene: Scene, rng: Rng) -> None:
    """Thin winding skid tracks through standing forest, and small gaps where trees were felled."""
    size, unit = scene.size, scene.unit
    trunk = crossing(rng, size, 4, 0.12)
    tracks, gaps = [trunk], []
    for at in rng.choice(np.arange(len(trunk) // 5, len(trunk) * 4 // 5), 8, replace=False):
        heading, end = rng.uniform(0, 2 * np.pi), trunk[at]
        points = [end]
        for _ in range(3):
            heading += rng.normal(0, 0.6)
            end = end + size * rng.uniform(0.04, 0.09) * np.array([np.cos(heading), np.sin(heading)])
            points.append(end)
            x, y = end + size * rng.normal(0, 0.015, 2)
            gaps.append(blob(rng, (x, y), unit * rng.uniform(3.5, 7.5), 7))
        tracks.append(curve(points, 6))
    soil = pick(rng, ((168, 136, 104), (150, 124, 96)))
    worn = np.clip(0.75 + 0.3 * noise(rng, size, 20, octaves=2), 0.3, 1)
    opened = ragged(rng, lines(size, tracks, 9 * unit), max(3 * unit, 1), 0.25)
    paint(scene.rgb, (88, 96, 64), 0.5 * opened)
    paint(scene.rgb, soil, 0.9 * worn * lines(size, tracks, 2.2 * unit))
    felled = ragged(rng, polygons(size, gaps), max(2.5 * unit, 1), 0.25)
    paint(scene.rgb, tint(soil, (0.12, noise(rng, size, 60))), 0.85 * felled)


def cultivation(scene: Scene, rng: Rng) -> None:
    """Smallholders' plots: a loose group of little irregular clearings, each of its own age."""
    size, unit = scene.size, scene.unit
    x, y = place(rng, size, 0.3)
    weeds = noise(rng, size, 50, octaves=2)
    for colour in PATCH_COLOURS:
        centres = np.array([x, y]) + size * rng.normal(0, 0.2, (int(rng.integers(1, 4)), 2))
        plots = [blob(rng, (cx, cy), unit * rng.uniform(9, 20), 6) for cx, cy in centres]
        mask = ragged(rng, polygons(size, plots), max(3 * unit, 1), 0.18)
        paint(scene.rgb, tint(vary(rng, colour, 0.1), (0.09, weeds)), 0.9 * mask)


def artisinal_mine(scene: Scene, rng: Rng) -> None:
    """Diggings along a river: churned pale soil full of small milky pools."""
    size, unit = scene.size, scene.unit
    course = scene.river if scene.river is not None else crossing(rng, size, 5, 0.1)
    inside = course[np.all((course > 0.15 * size) & (course < 0.85 * size), axis=1)]
    anchor = inside if len(inside) else np.asarray([place(rng, size, 0.3)])
    begin = int(rng.integers(max(1, len(anchor) // 2)))
    anchor = anchor[begin : begin + max(3, len(anchor) // 2)]
    # Gold lies in the gravel of the banks: keep most of the digging out of a wide river's middle.
    bank = rng.uniform(0, 2 * np.pi)
    ashore = 0.5 * scene.river_width * np.array([np.cos(bank), np.sin(bank)])
    spots = anchor[rng.integers(len(anchor), size=18)] + ashore + size * rng.normal(0, 0.06, (18, 2))
    soil = polygons(size, [blob(rng, (x, y), unit * rng.uniform(10, 20), 7) for x, y in spots[:12]])
    soil = ragged(rng, soil, 6 * unit, 0.3)
    churned = noise(rng, size, 24, octaves=3, gain=0.7)
    paint(scene.rgb, tint((200, 174, 132), (0.13, churned), (0.1, relief(churned, 1))), 0.93 * soil)
    dug = [blob(rng, (x, y), unit * rng.uniform(4, 9), 7) for x, y in spots]
    paint(scene.rgb, (140, 116, 82), 0.6 * blur(polygons(size, dug), 2 * unit))
    for index in range(3):
        pools = ragged(rng, polygons(size, dug[index::3]), max(1.5 * unit, 1), 0.12)
        paint(scene.rgb, pick(rng, POOL_COLOURS), 0.95 * pools)


def conventional_mine(scene: Scene, rng: Rng) -> None:
    """One large pit, cut in terraces, in a waste of bright spoil with its haul roads."""
    size, unit = scene.size, scene.unit
    middle = place(rng, size, 0.35)
    along, across = turned(size, rng.uniform(0, np.pi), middle)
    far = np.hypot(along / (size * rng.uniform(0.26, 0.42)), across / (size * rng.uniform(0.2, 0.32)))
    far = (far + 0.13 * noise(rng, size, 5, octaves=4)).astype(np.float32)
    colour = pick(rng, PIT_COLOURS, 0.05)
    rubble = noise(rng, size, 16, octaves=4, gain=0.8)
    spoil = step(1.12 - far + 0.12 * rubble, 0.1)
    scene.taken = spoil if scene.taken is None else np.maximum(spoil, scene.taken)
    paint(scene.rgb, tint(0.92 * colour, (0.08, rubble), (0.1, relief(rubble, 1))), 0.95 * spoil)
    # Benches are cut where the ore is: uneven in width, and lost under rubble in places.
    benches = far * rng.uniform(4, 6) + 0.35 * noise(rng, size, 3)
    depth = np.clip(np.ceil(benches) / 5, 0, 1.2)
    riser: Floats = np.abs(benches - np.round(benches))
    worn = np.clip(0.7 + 0.5 * noise(rng, size, 6, octaves=2), 0, 1)
    walls = step(0.15 - riser, 0.2) * worn
    pit = tint(colour, (0.3, (depth - 0.6).astype(np.float32)), (-0.26, walls), (0.04, rubble))
    paint(scene.rgb, pit, 0.97 * step(0.9 - far, 0.1))
    hauls = [curve([middle, place(rng, size, 0.2), place(rng, size, -0.2)]) for _ in range(2)]
    paint(scene.rgb, 1.08 * colour, 0.85 * lines(size, hauls, 4 * unit))
    if rng.random() < 0.5:
        paint(scene.rgb, pick(rng, POOL_COLOURS), 0.9 * step(0.25 - far, 0.06))


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
    verge = ragged(rng, lines(size, paths, unit * rng.uniform(9, 14)), max(3 * unit, 1), 0.2)
    paint(scene.rgb, pick(rng, ((104, 108, 78), (128, 116, 90))), 0.5 * verge)
    dust = np.clip(0.88 + 0.12 * noise(rng, size, 16, octaves=2), 0.5, 1)
    paint(scene.rgb, pick(rng, ROAD_COLOURS), dust * lines(size, paths, unit * rng.uniform(3.4, 5.2)))


def habitation(scene: Scene, rng: Rng) -> None:
    """A settlement: bright little roofs in loose rows on dry land, along the road where there is one."""
    size, unit = scene.size, scene.unit
    free = np.ones((size, size), np.float32) if scene.taken is None else 1 - scene.taken

    def buildable(places: NDArray[np.float64]) -> NDArray[np.bool_]:
        x, y = np.clip(places.astype(int), 0, size - 1).T
        dry: NDArray[np.bool_] = free[y, x] > 0.5
        return dry

    centres = np.asarray([place(rng, size, 0.25) for _ in range(24)])
    angle = rng.uniform(0, np.pi)
    if scene.road is not None:
        along = scene.road[np.all((scene.road > 0.2 * size) & (scene.road < 0.8 * size), axis=1)]
        if len(along) > 1:
            centres, (ahead_x, ahead_y) = along, along[-1] - along[0]
            angle = float(np.arctan2(ahead_y, ahead_x))
    good = centres[buildable(centres)]
    middle = rng.choice(good if len(good) else centres)
    radius = size * rng.uniform(0.12, 0.28)
    outline = polygons(size, [blob(rng, (middle[0], middle[1]), radius)])
    yard = ragged(rng, outline, 8 * unit, 0.25) * free
    paint(scene.rgb, tint((150, 134, 110), (0.12, noise(rng, size, 40, octaves=3))), 0.75 * yard)
    pitch = unit * rng.uniform(8, 13)
    spots = np.stack(np.meshgrid(np.arange(-9, 10), np.arange(-9, 10)), -1).reshape(-1, 2) * pitch
    # Every third row is a street.
    spots = spots[(spots[:, 1] / pitch).astype(int) % 3 != 0]
    spots = spots + rng.normal(0, 0.22, spots.shape) * pitch
    spots = spots[np.hypot(spots[:, 0] / 1.3, spots[:, 1]) < radius * rng.uniform(0.5, 1.15, len(spots))]
    spots = spots[rng.random(len(spots)) < 0.85]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    half = unit * rng.gamma(9, 0.27, (len(spots), 1, 2))
    corners = half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) + spots[:, None, :]
    roofs = list((corners @ turn + middle)[buildable(spots @ turn + middle)])
    paint(scene.rgb, (44, 46, 42), 0.6 * polygons(size, [roof + 1.5 * unit for roof in roofs]))
    dye = rng.integers(len(ROOF_COLOURS), size=len(roofs))
    for index, colour in enumerate(ROOF_COLOURS):
        same = [roof for roof, which in zip(roofs, dye, strict=True) if which == index]
        paint(scene.rgb, vary(rng, colour, 0.05), 0.95 * polygons(size, same))
