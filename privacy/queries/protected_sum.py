"""A site's units' vectors as integers that may leave it under secure aggregation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from privacy.errors import TrainingError
from privacy.mechanism.noise import GaussianSource
from privacy.mechanism.rounding import RandomizedRounding
from privacy.mechanism.skellam import SkellamSource
from privacy.queries.plan import QueryPlan, SkellamShares

_STEPS = 2.0**36  # to 1; 2^26 units of a bound of 1 stay below 2^63


def exact_sum(joint: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums units' joint vectors so that each moves the sum by itself and by nothing else.

    In floating point a unit would also change how all others are rounded.

    Args:
        joint: Values of at most 1 + `PROJECTION_TOLERANCE`, shape (units, d).

    Returns:
        float64, shape (d,): the sum of the values, each rounded to a multiple of 2^-36.

    Raises:
        TrainingError: There are more than 2^26 units.
    """
    if len(joint) > 1 << 26:
        raise TrainingError(f"{len(joint)} units are more than 2^26")
    total: NDArray[np.float64] = np.rint(joint * _STEPS).astype(np.int64).sum(axis=0) / _STEPS
    return total


class ProtectedSum:
    """Sums units' vectors and adds this site's noise.

    **Guarantee.** With noise of the site's own, what comes out is one `plan.event()`, to everyone.
    With shares, a released sum of at least `min_cohort` such vectors is, at most `colluding_sites`
    of them from sites that gave their noise away; one vector alone is that event at
    `own_variance`.

    Args:
        plan: What to do.
    """

    def __init__(self, plan: QueryPlan) -> None:
        self._plan = plan

    def __repr__(self) -> str:
        return f"ProtectedSum(dimension={self._plan.release.dimension})"

    def integers(self, joint: NDArray[np.float64]) -> NDArray[np.int64]:
        """One answer's integers. The caller has charged the answer to the ledger before.

        Args:
            joint: The units' vectors as `Release.joint` gives them, shape (units, d).

        Returns:
            int64, shape (d,), absolute values at most `plan.largest_value`.

        Raises:
            TrainingError: The vectors are not the release's.
        """
        plan = self._plan
        if joint.ndim != 2 or joint.shape[1] != plan.release.dimension:
            raise TrainingError(
                f"vectors have shape {joint.shape}, expected (units, {plan.release.dimension})"
            )
        total = exact_sum(joint)
        if isinstance(plan.noise, SkellamShares):
            rounding = RandomizedRounding(granularity=plan.granularity, clamp=plan.clamp)
            share = SkellamSource(plan.noise.share_variance).integers(len(total))
            return rounding.integers(total) + share
        noised = total + plan.noise_stddev * GaussianSource().normal(len(total))
        # Private already: rounding and clamping it cost nothing more.
        steps = np.rint(noised / plan.granularity)
        largest = plan.largest_value
        integers: NDArray[np.int64] = np.clip(steps, -largest, largest).astype(np.int64)
        return integers
