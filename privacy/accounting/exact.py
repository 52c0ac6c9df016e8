"""The price of a run that was fixed beforehand: its privacy loss distribution, by dp-accounting.

Valid where sample rate, noise, steps and the number of trainings were fixed before data were used,
for then every history is dominated by one product of fixed pairs (`docs/ledger.md`, exact grants).
Noise of a site's own alone: of a vector of Skellam noise no dominating scalar pair is known.
"""

from __future__ import annotations

import functools
import math

from privacy.accounting.events import Event, PoissonSampledGaussian, repeated
from privacy.accounting.pld import pld_epsilon
from privacy.accounting.rdp import (
    MAX_ORDER,
    add_costs,
    calibrate_noise_multiplier,
    epsilon_of_rdp,
    least_noise,
    rdp_cost,
    zero_cost,
)
from privacy.errors import PlanError

_SHARE = 0.8  # of the filter's noise, which is too little in all but odd cases
_TOLERANCE = 1e-4  # relative, of a calibrated noise multiplier


def require_exact(event: Event) -> PoissonSampledGaussian:
    """An event that has an exact price.

    Raises:
        PlanError: It has none.
    """
    if not isinstance(event, PoissonSampledGaussian):
        raise PlanError(
            "an exact grant is for Gaussian noise of a site's own",
            hint="Noise in shares is charged by the filter of a grant of the other kind.",
        )
    return event


def exact_epsilon(event: Event, rounds: int, delta: float) -> float:
    """Epsilon of so many of an event, fixed beforehand, in the worse direction.

    Raises:
        PlanError: The event has no exact price.
    """
    return pld_epsilon([repeated(require_exact(event), rounds)], delta)


@functools.lru_cache(maxsize=64)
def exact_noise_multiplier(
    *, epsilon: float, delta: float, sample_rate: float, steps: int
) -> float:
    """The least noise multiplier, to a ten-thousandth, whose steps cost no more than epsilon.

    Raises:
        PlanError: Even very large noise does not suffice.
    """

    def passes(noise_multiplier: float) -> bool:
        event = PoissonSampledGaussian(sample_rate, noise_multiplier, steps)
        return exact_epsilon(event, 1, delta) <= epsilon

    # The filter asks for more, and by how much is known to about a tenth.
    high = calibrate_noise_multiplier(
        epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps
    )
    low = _SHARE * high
    if passes(low) or not passes(high):
        found = least_noise(passes, tolerance=_TOLERANCE)
        if found is None:
            raise PlanError(f"no noise gives epsilon {epsilon} at delta {delta}")
        return found
    while high / low > 1.0 + _TOLERANCE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


@functools.lru_cache(maxsize=4096)
def renyi_epsilon(event: PoissonSampledGaussian, rounds: int, delta: float) -> float:
    """A quick upper bound on `exact_epsilon`: by Renyi DP, over all orders up to 256."""
    orders = range(2, MAX_ORDER + 1)
    cost = add_costs(zero_cost(orders), rdp_cost(event, orders), rounds)
    bounds = (epsilon_of_rdp(o, c, delta) for o, c in cost.items() if c is not None)
    return max(0.0, min(bounds, default=math.inf))
