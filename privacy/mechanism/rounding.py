"""Real vectors to integers, without bias and with a bound on what one unit can move.

A coordinate v becomes floor(v + u) with u secret and uniform in [0, 1). It runs in fixed point,
32 bits after the point, so that the law is exactly the one analysed (`docs/distributed-noise.md`,
section 2): no floating-point addition decides a rounding.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanError, TrainingError
from privacy.mechanism.keystream import KeyStream

FRACTION_BITS = 32
MAX_CLAMP = 1 << 20  # times 2^32 is 2^52, which float64 holds exactly


class RandomizedRounding:
    """Rounds vectors in steps of `granularity`, clamped to `clamp` steps.

    **Guarantee.** For vectors at L2 distance at most D, and the same secret uniforms, the outputs
    differ by at most `squared_sensitivity(D / granularity, ...)` in squared L2 norm, with
    probability at least 1 - beta over the uniforms. Clamping moves nothing apart.

    Args:
        granularity: Size gamma of a step, > 0.
        clamp: Largest absolute integer, 1 to 2^20.

    Raises:
        PlanError: An argument is out of range.
    """

    __slots__ = ("_clamp", "_granularity", "_words")

    def __init__(self, *, granularity: float, clamp: int) -> None:
        if not (math.isfinite(granularity) and granularity > 0.0):
            raise PlanError(f"granularity is {granularity}, expected a positive finite number")
        if type(clamp) is not int or not 1 <= clamp <= MAX_CLAMP:
            raise PlanError(f"clamp is {clamp}, expected a whole number of 1 to 2^20")
        self._granularity = granularity
        self._clamp = clamp
        self._words = KeyStream()

    def __repr__(self) -> str:
        return f"RandomizedRounding(granularity={self._granularity}, clamp={self._clamp})"

    def integers(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Round a vector.

        Args:
            values: float64, shape (d,), finite.

        Returns:
            int64, shape (d,), absolute values at most `clamp`; unbiased inside of it.

        Raises:
            TrainingError: Another dtype, or a value is not finite.
        """
        if values.dtype != np.float64 or not np.isfinite(values).all():
            raise TrainingError("only finite float64 values can be rounded")
        steps = np.clip(values / self._granularity, -float(self._clamp), float(self._clamp))
        fixed = np.rint(steps * 2.0**FRACTION_BITS).astype(np.int64)
        fraction = (self._words.words(len(values)) >> np.uint64(32)).astype(np.int64)
        return (fixed + fraction) >> FRACTION_BITS  # an arithmetic shift: floor, below 0 too


def squared_sensitivity(norm: float, dimension: int, beta: float) -> float:
    """How far in squared L2 norm rounding leaves two vectors, at distance `norm` in steps.

    Holds with probability at least 1 - beta over the secret uniforms (Kairouz, Liu and Steinke
    2021, arXiv 2102.06387, Prop. 26; proof in `docs/distributed-noise.md`, section 2).

    Args:
        norm: L2 distance before rounding, in steps of the granularity, >= 0.
        dimension: Coordinates d.
        beta: Failure probability, 0 < beta < 1.

    Returns:
        The bound, fixed point's own error included.
    """
    # Scaling and rounding to 2^-32 move each coordinate of either vector by 2^-32 at most.
    norm += 2.0 * math.sqrt(dimension) * 2.0**-FRACTION_BITS
    likely = (
        norm**2
        + dimension / 4.0
        + math.sqrt(2.0 * math.log(1.0 / beta)) * (norm + math.sqrt(dimension) / 2.0)
    )
    return min(likely, (norm + math.sqrt(dimension)) ** 2)
