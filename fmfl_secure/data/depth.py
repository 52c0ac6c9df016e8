"""Pictures of more than 8 bits as grey values of 8: by the range that a file declares, or not.

The scale depends on the file's format and header alone, never on its pixels: one drawn from the
brightest pixel would make two pictures of different exposure the same, and clipping makes both
white.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image

# What stands for black and for white: the range of the format. Whoever has 12 bits in 16 keeps
# their order and proportions, in the lowest sixteenth, unless a window says where white is.
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "I;16": (0.0, 65535.0),
        "I;16B": (0.0, 65535.0),
        "I;16L": (0.0, 65535.0),
    }
)
# Modes that say nothing of what is white: read with a declared window alone.
WITHOUT_RANGE: tuple[str, ...] = ("I", "F")


def to_grey(image: Image.Image, window: tuple[float, float] | None) -> Image.Image | None:
    """An image of one deep channel in 8 bits.

    Args:
        image: Of a mode in `RANGES` or `WITHOUT_RANGE`.
        window: The values that become black and white; None takes the format's range.

    Returns:
        Mode `L`; values beyond the window are black or white. None where it has no range, or holds
        what is no number.
    """
    bounds = window or RANGES.get(image.mode)
    if bounds is None:
        return None
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        return None
    low, high = bounds
    grey = np.clip((values - low) / (high - low), 0.0, 1.0) * 255.0
    return Image.fromarray(np.rint(grey).astype(np.uint8))
