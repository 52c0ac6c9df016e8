"""Which values of a common layout a site of a smaller rank trains (`models.ranks` truncates)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.vectors.layout import FlatLayout


def rank_mask(layout: FlatLayout, rank: int) -> NDArray[np.float64]:
    """1 for each value that a site of this rank trains, 0 for the others; shape (size,)."""
    parts = []
    for slot in layout.slots:
        mask = np.ones(slot.shape)
        if "lora_A" in slot.name:
            mask[rank:] = 0.0
        elif "lora_B" in slot.name:
            mask[:, rank:] = 0.0
        parts.append(mask.reshape(-1))
    return np.concatenate(parts)
