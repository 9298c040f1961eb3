"""Which tags stand together on a chip: a small model of the Amazon's land use. Pure.

Promises: every drawn set holds exactly one weather tag; a `cloudy` chip holds nothing else; any other chip
shows some ground. The chances are rounded and shaped after those of the real archive (roads lead
to fields and houses, fields to more roads, small mines lie at water), with the rare tags raised
until a thousand chips teach each of them.
"""

from __future__ import annotations

import numpy as np

WEATHER = ("clear", "cloudy", "haze", "partly_cloudy")
LAND = (
    "agriculture",
    "artisinal_mine",
    "bare_ground",
    "blooming",
    "blow_down",
    "conventional_mine",
    "cultivation",
    "habitation",
    "primary",
    "road",
    "selective_logging",
    "slash_burn",
    "water",
)
TAGS = tuple(sorted(WEATHER + LAND))  # the archive's own spelling, `artisinal` included

# What Kaggle's sample submission answers for every image.
CONSTANT_TAGS = ("primary", "clear", "agriculture", "road", "water")

OVERLOOKED = 0.06  # the share of shown land tags that a label leaves out

_WEATHER_CHANCES = {"clear": 0.66, "partly_cloudy": 0.18, "haze": 0.09, "cloudy": 0.07}

# Chances of what people do on a chip, given (road, agriculture).
_CULTIVATION = {(True, True): 0.25, (True, False): 0.08, (False, True): 0.32, (False, False): 0.05}
_HABITATION = {(True, True): 0.45, (True, False): 0.30, (False, True): 0.10, (False, False): 0.02}


def draw_tags(rng: np.random.Generator) -> tuple[str, ...]:
    """Draws one chip's tags.

    Args:
        rng: the stream to draw from.

    Returns:
        Tags, sorted.
    """
    weather = str(rng.choice(list(_WEATHER_CHANCES), p=list(_WEATHER_CHANCES.values())))
    if weather == "cloudy":
        return ("cloudy",)
    # One number a tag, needed or not: a chance that changes leaves the others' draws alone.
    dice = dict(zip(LAND, rng.random(len(LAND)), strict=True))

    def happens(tag: str, chance: float) -> bool:
        return bool(dice[tag] < chance)

    if not happens("primary", 0.95):
        return tuple(sorted({weather, *_open_ground(dice)}))
    agriculture = happens("agriculture", 0.36)
    road = happens("road", 0.50 if agriculture else 0.10)
    water = happens("water", 0.27)
    cultivation = happens("cultivation", _CULTIVATION[road, agriculture])
    wild = not agriculture and not road
    chances = {
        "artisinal_mine": 0.13 if water else 0.003,
        "bare_ground": 0.07 if road else 0.035,
        "blooming": 0.05 if wild else 0.01,
        "blow_down": 0.04 if wild else 0.015,
        "conventional_mine": 0.06 if road else 0.02,
        "habitation": _HABITATION[road, agriculture],
        "selective_logging": 0.04 if not agriculture else 0.02,
        "slash_burn": 0.06 if agriculture or cultivation else 0.015,
    }
    settled = {"agriculture": agriculture, "road": road, "water": water, "cultivation": cultivation}
    shown = {tag for tag, here in settled.items() if here}
    shown |= {tag for tag, chance in chances.items() if happens(tag, chance)}
    return tuple(sorted(shown | {weather, "primary"}))


def _open_ground(dice: dict[str, float]) -> set[str]:
    """Tags of a chip without primary forest: never none, for then there would be nothing to see."""
    chances = {"agriculture": 0.45, "bare_ground": 0.35, "habitation": 0.35, "road": 0.5, "water": 0.35}
    shown = {tag for tag, chance in chances.items() if dice[tag] < chance}
    return shown or {"bare_ground"}


def overlook(rng: np.random.Generator, tags: tuple[str, ...]) -> tuple[str, ...]:
    """Leaves out, now and then, what a hurried annotator misses, for real labels are never perfect.

    Args:
        rng: the stream to draw from.
        tags: what a chip shows.

    Returns:
        What its label says: the same weather and forest, and of the rest nearly all.
    """
    kept = [tag for tag in tags if rng.random() >= OVERLOOKED or tag in WEATHER or tag == "primary"]
    return tuple(kept) if set(kept) - set(WEATHER) else tags
