"""Pictures of more than 8 bits in 8: by the range that a file declares, or by a window.

The scale depends on the file's format and header alone, never on its pixels: one drawn from the
brightest pixel would make two pictures of different exposure the same, and clipping makes both
white.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

# What becomes black, and what white.
Window: TypeAlias = tuple[float, float]
# Whoever has 12 bits in 16 keeps their order and proportions, in the lowest sixteenth, unless a
# window says where white is.
SIXTEEN_BITS: Window = (0.0, 65535.0)
_BLOCK = 1 << 20  # values turned into floats at a time


def to_8_bits(values: NDArray[Any], window: Window) -> NDArray[np.uint8] | None:
    """Numbers as shades; those beyond the window are black or white.

    Args:
        values: Any shape.
        window: The values that become 0 and 255.

    Returns:
        The same shape. None where one is no number.
    """
    low, high = window
    shades = np.empty(values.shape, np.uint8)
    for rows in _blocks(values):
        part = values[rows].astype(np.float64)
        if not np.isfinite(part).all():
            return None
        part = np.clip((part - low) * (255.0 / (high - low)), 0.0, 255.0)
        shades[rows] = np.rint(part)
    return shades


def lay_on_white(shades: NDArray[np.uint8], opacity: NDArray[np.uint8]) -> None:
    """Lay colours of shape (h, w, channels) on white by their opacity, shape (h, w), in place."""
    for rows in _blocks(shades):
        alpha = opacity[rows][..., None].astype(np.float64) / 255.0
        shades[rows] = np.rint(shades[rows] * alpha + 255.0 * (1.0 - alpha))


def _blocks(values: NDArray[Any]) -> Iterator[slice]:
    """Rows of an array, a few at a time: all of them as floats would be many times as large."""
    step = max(1, _BLOCK * len(values) // max(1, values.size))
    return (slice(start, start + step) for start in range(0, len(values), step))
