"""Pictures of more than 8 bits in 8: by the range that a file declares, or by a window.

The scale depends on the file's format and header alone, never on its pixels: one drawn from the
brightest pixel would make two pictures of different exposure the same, and clipping makes both
white.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# What becomes black, and what white.
Window: TypeAlias = tuple[float, float]
# Whoever has 12 bits in 16 keeps their order and proportions, in the lowest sixteenth, unless a
# window says where white is.
SIXTEEN_BITS: Window = (0.0, 65535.0)


def to_8_bits(values: NDArray[Any], window: Window) -> NDArray[np.uint8] | None:
    """Numbers as shades; those beyond the window are black or white.

    Args:
        values: Any shape.
        window: The values that become 0 and 255.

    Returns:
        The same shape. None where one is no number.
    """
    low, high = window
    shades = values.astype(np.float64)
    if not np.isfinite(shades).all():
        return None
    shades -= low
    shades *= 255.0 / (high - low)
    np.clip(shades, 0.0, 255.0, out=shades)
    return np.rint(shades, out=shades).astype(np.uint8)


def on_white(shades: NDArray[np.uint8], opacity: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours of shape (h, w, channels) laid on white by their opacity, shape (h, w)."""
    alpha = opacity[..., None].astype(np.float64) / 255.0
    return np.rint(shades * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
