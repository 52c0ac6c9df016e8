"""Epsilons that noise in shares asks of a grant: from sums, and from all other sites together."""

from __future__ import annotations

from privacy.accounting.events import PoissonSampledSkellam
from privacy.accounting.rdp import filter_delta, filter_orders, fits, rdp_cost
from privacy.errors import PlanError

# Beyond it, the samplers' own error is not accounted (`docs/distributed-noise.md`, section 3).
MAX_EPSILON = 40.0


def fits_alone(
    event: PoissonSampledSkellam, times: int, orders: tuple[int, int], epsilon: float, delta: float
) -> bool:
    """Whether so many of an event fit a fresh grant that permits shares."""
    cost = rdp_cost(event, orders)
    total = {order: None if c is None else c * times for order, c in cost.items()}
    return fits(total, epsilon, filter_delta(delta))


def insider_epsilon(event: PoissonSampledSkellam, times: int, delta: float, *, hint: str) -> float:
    """Finds the epsilon, in whole tenths, at which a grant allows all other sites `times` events.

    Raises:
        PlanError: It is above 40; says what to do with `hint`.
    """
    seen = event.seen_by_sites()
    low, high = 0, round(MAX_EPSILON * 10)

    def passes(tenths: int) -> bool:
        epsilon = tenths / 10
        return fits_alone(seen, times, filter_orders(epsilon, delta), epsilon, delta)

    if not passes(high):
        raise PlanError(
            f"all other sites together would learn more than epsilon {MAX_EPSILON:g}", hint=hint
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high / 10
