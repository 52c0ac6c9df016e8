"""Poisson sampling of units, from the operating system's randomness.

Each unit is included at each step independently with the same probability, which is the
sampling that the accountant's amplification is proved for. Shuffled or fixed-size batches
accounted as Poisson would claim an epsilon several times too small.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanError

_TWO_TO_64 = 1 << 64


def poisson_sample(units: int, sample_rate: float) -> NDArray[np.int64]:
    """Indices of the units in one Poisson batch, ascending; possibly none.

    The inclusion probability is floor(q 2^64) / 2^64, at most `sample_rate`, never above it.

    Args:
        units: How many units there are, >= 0.
        sample_rate: Inclusion probability, 0 < q <= 1.

    Returns:
        int64 array of shape (b,), b random with mean q x units.

    Raises:
        PlanError: An argument is out of range.
    """
    if units < 0:
        raise PlanError(f"units is {units}, expected at least 0")
    if not 0.0 < sample_rate <= 1.0:
        raise PlanError(f"sample_rate is {sample_rate}, expected 0 < q <= 1")
    threshold = int(sample_rate * _TWO_TO_64)  # a float times a power of two is exact
    if threshold >= _TWO_TO_64:
        return np.arange(units, dtype=np.int64)
    draws = np.frombuffer(os.urandom(8 * units), dtype=np.uint64)
    return np.flatnonzero(draws < np.uint64(threshold)).astype(np.int64)
