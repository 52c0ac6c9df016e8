"""Groups records into privacy units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

IndexArray: TypeAlias = npt.NDArray[np.int64]


def record_units(n: int) -> tuple[IndexArray, ...]:
    """Returns n units of one record each."""
    return tuple(np.arange(n, dtype=np.int64).reshape(n, 1))


def grouped_units(values: Sequence[str]) -> tuple[IndexArray, ...]:
    """Groups record indices by value.

    Args:
        values: The unit column, one value per record.

    Returns:
        One int64 array of ascending indices per distinct value, in order of first appearance.
    """
    groups: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    return tuple(np.array(indices, dtype=np.int64) for indices in groups.values())
