"""From tags to pixels: lays ground, features, weather and light over one another. Pure.

Promises: the same tags, key and size give the same pixels in any process; a tag added or left out
changes only what that tag shows (and where the houses and small mines lie that keep to a road or a river),
for each layer draws from a stream of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from canopy.sample import scenery
from canopy.sample.brush import Rng
from canopy.sample.features import FEATURES
from canopy.sample.scene import Scene
from canopy.sample.tags import TAGS

# Roads grow over, burns green again: not all is plain to see. But one never sees trees through a river.
FAINT_SHARE = 0.3
FAINT_STRENGTH = (0.12, 0.6)
NEVER_FAINT = {"water", "conventional_mine"}

_GROUND, _LIGHT, _SENSOR = range(len(TAGS), len(TAGS) + 3)  # streams after those of the tags


def draw_chip(tags: tuple[str, ...], key: tuple[int, ...], size: int) -> NDArray[np.uint8]:
    """Draws the chip that shows some tags.

    Args:
        tags: tags as `canopy.sample.tags.draw_tags` gives them.
        key: numbers (0 or more) that tell this chip from every other.
        size: pixels a side.

    Returns:
        uint8[size, size, 3], RGB.
    """

    def stream(part: int) -> Rng:
        return np.random.default_rng((*key, part))

    shown = set(tags)
    ground = scenery.rainforest if "primary" in shown or "cloudy" in shown else scenery.grassland
    scene = Scene(ground(stream(_GROUND), size))
    for tag, feature in FEATURES.items():
        if tag in shown:
            rng = stream(TAGS.index(tag))
            below = scene.rgb.copy()
            feature(scene, rng)
            if tag not in NEVER_FAINT and rng.random() < FAINT_SHARE:
                scene.rgb = below + np.float32(rng.uniform(*FAINT_STRENGTH)) * (scene.rgb - below)
    scenery.light(stream(_LIGHT), scene.rgb)
    for tag, weather in scenery.WEATHER_LAYERS.items():
        if tag in shown:
            weather(stream(TAGS.index(tag)), scene.rgb)
    return scenery.sensor(stream(_SENSOR), scene.rgb)
