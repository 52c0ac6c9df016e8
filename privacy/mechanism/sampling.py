"""Poisson sampling of units, from the operating system's randomness.

Each unit is included at each step independently with the same probability, which is the
sampling that the accountant's amplification is proved for. Shuffled or fixed-size batches
accounted as Poisson would claim an epsilon several times too small.

A cap on the records that a unit contributes is drawn for each unit alone, too: which of its
records are taken then depends on that unit and on coins of its own, and removing another unit
changes nothing. One draw over all records would tie units together.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

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


def sampled_units(
    units: Sequence[NDArray[np.int64]],
    sample_rate: float,
    record_cost: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """The units of one Poisson batch, in the order in which to process them.

    Args:
        units: Record indices of each unit.
        sample_rate: Inclusion probability, 0 < q <= 1.
        record_cost: Optional, shape (records,): relative cost of a record (its length). Units
            come in the order of it, so that records padded together are alike.
    """
    sampled = [units[i] for i in poisson_sample(len(units), sample_rate)]
    if record_cost is not None:
        sampled.sort(key=lambda unit: int(record_cost[unit].max(initial=0)))
    return sampled


def cap_contributions(units: Sequence[NDArray[np.int64]], at_most: int) -> list[NDArray[np.int64]]:
    """At most so many records of each unit, a uniformly random subset of its own.

    Args:
        units: Record indices of each unit, each of shape (n,).
        at_most: Most records kept of one, >= 1.

    Returns:
        Units in the same order, each of shape (min(n, at_most),), in the order they had.

    Raises:
        PlanError: `at_most` is out of range.
    """
    if at_most < 1:
        raise PlanError(f"at_most is {at_most}, expected at least 1")
    coins = random.SystemRandom()
    return [
        unit
        if len(unit) <= at_most
        else unit[np.sort(np.array(coins.sample(range(len(unit)), at_most), dtype=np.int64))]
        for unit in units
    ]
