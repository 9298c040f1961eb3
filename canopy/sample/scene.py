"""A picture in the making, and what later features need to know of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from canopy.sample.brush import Floats


@dataclass
class Scene:
    """A picture in the making."""

    rgb: Floats  # float32[3, size, size]
    river: NDArray[np.float64] | None = None  # its course, for what lies along it
    river_width: float = 0.0  # pixels
    taken: Floats | None = None  # mask of water and pits, where nobody builds
    road: NDArray[np.float64] | None = None  # likewise

    @property
    def size(self) -> int:
        """Pixels a side."""
        return int(self.rgb.shape[1])

    @property
    def unit(self) -> float:
        """How many of this chip's pixels make one of a 256-pixel chip."""
        return self.size / 256
