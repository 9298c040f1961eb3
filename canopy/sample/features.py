"""Every land tag's drawing function, in the order in which a painter would lay them down.

Promises: `FEATURES` has one for every land tag but `primary`, which is the ground itself, and
later ones may build on what earlier ones noted in the `Scene`.
"""

from __future__ import annotations

from collections.abc import Callable

from canopy.sample import nature, people
from canopy.sample.brush import Rng
from canopy.sample.scene import Scene

# From the ground up: later ones lie on earlier ones, and what follows a river or a road comes after it.
FEATURES: dict[str, Callable[[Scene, Rng], None]] = {
    "blooming": nature.blooming,
    "agriculture": people.agriculture,
    "bare_ground": nature.bare_ground,
    "slash_burn": people.slash_burn,
    "blow_down": nature.blow_down,
    "selective_logging": people.selective_logging,
    "cultivation": people.cultivation,
    "water": nature.water,
    "artisinal_mine": people.artisinal_mine,
    "conventional_mine": people.conventional_mine,
    "road": people.road,
    "habitation": people.habitation,
}
