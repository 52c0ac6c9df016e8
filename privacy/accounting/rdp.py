"""From events to what they cost: Renyi DP for enforcement, PLD for comparison.

Enforcement works on integers. A Renyi cost is kept in units of 10^-12 nat (`RDP_UNIT`), every
cost rounded up and every bound rounded down, so that adding them is exact, does not depend on
the order, and can only over-count. The Renyi divergences themselves are dp-accounting's.

**The filter** (Feldman and Zrnic 2021, arXiv 2008.11193; Lecuyer 2021, arXiv 2103.01379). A grant
of (epsilon, delta) fixes a few integer orders A before any data are used. With
delta_a = delta / |A|, a history is admitted as long as for *some* order a in A its summed cost
stays below

    rho_max(a) = epsilon + ln(a / (a - 1)) + (ln delta_a + ln a) / (a - 1)

the conversion of Canonne, Kamath and Steinke (arXiv 2004.00010, Prop. 12). This holds under
fully adaptive choice of every later mechanism, which a PLD bound does not: **the guarantee is
the grant**, and PLD is shown beside it as what fixed-in-advance parameters would have given.

Divergences of distributed noise hold but for a small probability, which adds to delta. A grant
that admits such noise sets `FAILURE_SHARE` of its delta apart for that from the start, and is
filtered at `filter_delta`, the rest.

`mechanism.plan` and `queries.plan` calibrate noise of a site's own with
`calibrate_noise_multiplier`. `ledger.admissions` and `accounting.affordability` add costs up and
ask `fits`; reports show `epsilon_spent`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from privacy.accounting.events import (
    Event,
    NonPrivate,
    PoissonSampledGaussian,
    PoissonSampledSkellam,
)
from privacy.accounting.skellam_rdp import skellam_divergence, subsampled_divergence
from privacy.errors import PlanError
from privacy.limits import check_delta, check_epsilon

if TYPE_CHECKING:
    import dp_accounting

RDP_UNIT = 10**12  # one nat is this many units
# dp-accounting sums in float64; margins far above its rounding keep "rounded up" true. A step's
# cost is a logarithm near 0 at small rates, so its error is absolute, not relative.
_FLOAT_MARGIN = 1e-10
_STEP_MARGIN = 1e-14  # nat

# (sample_rate, steps) of ordinary fine-tuning runs; the orders of a grant are those that need
# the least noise on these. Public constants: orders must not depend on the data or the run.
_REFERENCE_WORKLOADS = ((0.01, 1000), (0.05, 200), (0.1, 100), (0.2, 40), (0.25, 100))
MAX_ORDER = 256
_PATIENCE = 4  # orders
_MAX_NOISE_MULTIPLIER = 10_000.0

FAILURE_SHARE = 2.0**-10

RdpCost = Mapping[int, int | None]  # order -> cost in RDP_UNIT, None for infinite


def rdp_bound(order: int, epsilon: float, delta: float, *, margin: float = _FLOAT_MARGIN) -> int:
    """rho_max(order) for (epsilon, delta), in RDP_UNIT, rounded down; negative if unusable.

    Args:
        order: Renyi order, at least 2.
        epsilon: Granted.
        delta: The order's share of the granted delta.
        margin: Relative allowance for float64's rounding.
    """
    bound = (
        epsilon + math.log(order / (order - 1)) + (math.log(delta) + math.log(order)) / (order - 1)
    )
    return math.floor((bound - abs(bound) * margin) * RDP_UNIT)


def epsilon_of_rdp(order: int, cost: int, delta: float) -> float:
    """The epsilon that a cost in RDP_UNIT at one order converts to at `delta`; at least 0."""
    if cost == 0:
        return 0.0
    rho = cost / RDP_UNIT
    return max(
        0.0,
        rho - math.log(order / (order - 1)) - (math.log(delta) + math.log(order)) / (order - 1),
    )


@functools.lru_cache(maxsize=4096)
def _cost_at(event: Event, order: int) -> int | None:
    if isinstance(event, NonPrivate):
        return None
    try:
        if isinstance(event, PoissonSampledSkellam):
            cost = _with_margins(_skellam_cost(event, order), event.steps)
        else:
            cost = _renyi_costs(event, [order])[0]
    except ArithmeticError:  # noise or steps whose cost float64 cannot hold
        return None
    return math.ceil(cost) if math.isfinite(cost) else None


def _renyi_costs(event: PoissonSampledGaussian, orders: Sequence[int]) -> list[float]:
    # In RDP_UNIT, margins included, not yet rounded up to a whole number.
    from dp_accounting.rdp import RdpAccountant  # noqa: PLC0415 - see dp_event

    accountant = RdpAccountant(list(orders))
    with np.errstate(divide="ignore", over="ignore"):
        accountant.compose(dp_event(event))
    return [_with_margins(float(rho), event.steps) for rho in accountant.rdp]


def _skellam_cost(event: PoissonSampledSkellam, order: int) -> float:
    divergence = functools.partial(
        skellam_divergence, squared_l2=event.squared_l2, l1=event.l1, variance=event.variance
    )
    return event.steps * subsampled_divergence(order, event.sample_rate, divergence)


def _with_margins(rho: float, steps: int) -> float:
    return (rho * (1.0 + _FLOAT_MARGIN) + steps * _STEP_MARGIN) * RDP_UNIT


def filter_delta(delta: float) -> float:
    """Returns the part of `delta` that the filter gets: all but the share `FAILURE_SHARE`."""
    return delta * (1.0 - FAILURE_SHARE)


def rdp_cost(event: Event, orders: Sequence[int]) -> dict[int, int | None]:
    """Renyi cost of one event at each order, in RDP_UNIT, rounded up; None where infinite."""
    return {order: _cost_at(event, order) for order in orders}


def epsilon_spent(costs: RdpCost, delta: float) -> float:
    """The smallest epsilon over a grant's orders; infinite when every order is.

    Args:
        costs: Summed cost by order, in RDP_UNIT.
        delta: The grant's delta, shared equally by its orders.
    """
    delta_each = delta / len(costs)
    return min(
        (
            epsilon_of_rdp(order, cost, delta_each)
            for order, cost in costs.items()
            if cost is not None
        ),
        default=math.inf,
    )


def fits(costs: RdpCost, epsilon: float, delta: float, *, margin: float = _FLOAT_MARGIN) -> bool:
    """Whether a summed cost stays within (epsilon, delta) at some order: the filter itself.

    Args:
        costs: Summed cost by order, in RDP_UNIT, at orders fixed before any data were used.
        epsilon: Granted.
        delta: Granted, shared equally by the orders.
        margin: See `rdp_bound`.
    """
    delta_each = delta / len(costs)
    return any(
        cost is not None and cost <= rdp_bound(order, epsilon, delta_each, margin=margin)
        for order, cost in costs.items()
    )


def add_costs(left: RdpCost, right: RdpCost, times: int = 1) -> dict[int, int | None]:
    """Add `left` and `times` x `right`, order by order; infinite stays infinite.

    None of it is nothing, at whatever orders it is: a run that was closed before it began may hold
    costs at orders that its grant had before it was lowered.
    """
    if times == 0:
        return dict(left)
    total: dict[int, int | None] = {}
    for order, cost in left.items():
        other = right[order]
        total[order] = None if cost is None or other is None else cost + times * other
    return total


def zero_cost(orders: Sequence[int]) -> dict[int, int | None]:
    """No cost, at each order."""
    return dict.fromkeys(orders, 0)


def max_repetitions(
    spent: RdpCost, event: Event, epsilon: float, delta: float, *, at_most: int = 1_000_000
) -> int:
    """The largest number of times `event` still fits on top of `spent`."""
    delta_each = delta / len(spent)
    each = rdp_cost(event, list(spent))
    best = 0
    for order, used in spent.items():
        cost = each[order]
        if used is None or cost is None:
            continue
        room = rdp_bound(order, epsilon, delta_each) - used
        best = max(best, at_most if cost == 0 and room >= 0 else room // max(cost, 1))
    return min(max(best, 0), at_most)


def filter_orders(epsilon: float, delta: float) -> tuple[int, int]:
    """The two neighbouring integer orders a grant of (epsilon, delta) is filtered at.

    Chosen from epsilon and delta alone: the pair that needs the least noise, on geometric
    average, over a fixed set of reference workloads. Two orders keep the union bound small
    (wide grids lose 30 to 60 % of the budget) and still bend with the workload.

    Raises:
        PlanError: epsilon or delta is out of range, or no order up to 256 can carry them.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    return _filter_orders(float(epsilon), float(delta))


@functools.lru_cache(maxsize=256)
def _filter_orders(epsilon: float, delta: float) -> tuple[int, int]:
    lower = range(2, MAX_ORDER)
    scores: dict[int, float] = {}

    def score(order: int) -> float:
        if order not in scores:
            scores[order] = _reference_noise((order, order + 1), epsilon, delta)
        return scores[order]

    # A Gaussian without sampling costs a x const: there the best order is where rho_max(a) / a is
    # largest. Sampling moves it by a few orders, and the score is unimodal: four in a row that are
    # worse end the search to either side.
    best = max(lower, key=lambda order: rdp_bound(order, epsilon, delta / 2) / order)
    for step in (-1, 1):
        order = best + step
        while order in lower and abs(order - best) <= _PATIENCE:
            if (score(order), order) < (score(best), best):
                best = order
            order += step
    if math.isinf(score(best)):
        raise PlanError(
            f"no Renyi order up to {MAX_ORDER} can certify epsilon {epsilon} at delta {delta}",
        )
    return best, best + 1


def _reference_noise(orders: tuple[int, int], epsilon: float, delta: float) -> float:
    """Sum of the logarithms of the noise that the reference workloads need; may be infinite."""
    if all(rdp_bound(order, epsilon, delta / len(orders)) <= 0 for order in orders):
        return math.inf
    try:
        return sum(
            math.log(_least_noise(q, steps, orders, epsilon, delta, tolerance=1e-3))
            for q, steps in _REFERENCE_WORKLOADS
        )
    except PlanError:  # these orders' bounds are a hair above 0: no noise is enough
        return math.inf


def calibrate_noise_multiplier(
    *, epsilon: float, delta: float, sample_rate: float, steps: int
) -> float:
    """The least noise multiplier whose `steps` steps pass a fresh (epsilon, delta) filter.

    Calibrated with the filter that will enforce it, so that a planned run fits its grant to
    the last step.

    Raises:
        PlanError: Out-of-range arguments, or even very large noise does not suffice.
    """
    orders = filter_orders(epsilon, delta)
    return _least_noise(sample_rate, steps, orders, epsilon, delta, tolerance=1e-6)


def _least_noise(
    sample_rate: float,
    steps: int,
    orders: tuple[int, ...],
    epsilon: float,
    delta: float,
    *,
    tolerance: float,
) -> float:
    bounds = {order: rdp_bound(order, epsilon, delta / len(orders)) for order in orders}
    fails, suffices = 0.0, math.inf  # noise known to be too little, and known to be enough

    def excess(noise_multiplier: float) -> float:
        # Cost over bound at the order where that is least; more noise always costs less.
        nonlocal fails, suffices
        event = PoissonSampledGaussian(sample_rate, noise_multiplier, steps)
        # The ledger rounds every round's cost up to a unit, and there are at most `steps` rounds.
        ratio = min(
            (cost + steps) / bounds[order] if bounds[order] > 0 else math.inf
            for order, cost in zip(orders, _renyi_costs(event, orders), strict=True)
        )
        if ratio <= 1.0:
            suffices = min(suffices, noise_multiplier)
        else:
            fails = max(fails, noise_multiplier)
        return ratio

    def passes(noise_multiplier: float) -> bool:
        if noise_multiplier <= fails:
            return False
        return noise_multiplier >= suffices or excess(noise_multiplier) <= 1.0

    # Costs fall about as the square of the noise: a few steps of that come close from either
    # side, and most questions of the bisection below are answered by then.
    guess = 1.0
    for aim in (1.0, 1.0, 1.0, 1.0 + tolerance / 4, 1.0 - tolerance / 4):
        guess *= aim * math.sqrt(min(max(excess(guess), 1e-2), 1e2))
    noise_multiplier = least_noise(passes, tolerance=tolerance)
    if noise_multiplier is None:
        raise PlanError(
            f"no noise multiplier up to {_MAX_NOISE_MULTIPLIER:.0f} gives epsilon {epsilon} "
            f"at delta {delta} over {steps} steps at sample rate {sample_rate}"
        )
    return noise_multiplier


def least_noise(passes: Callable[[float], bool], *, tolerance: float) -> float | None:
    """The least noise multiplier that passes, to a relative `tolerance`; None if none does.

    Args:
        passes: Whether a noise multiplier is enough; more noise never fails where less passes.
        tolerance: Relative distance to a noise multiplier that does not pass.

    Returns:
        One that passes, at least 0.05 and below 2 x 10,000.
    """
    low, high = 0.05, 1.0
    while not passes(high):
        low, high = high, high * 2.0
        if high > _MAX_NOISE_MULTIPLIER:
            return None
    while high / low > 1.0 + tolerance:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def dp_event(event: PoissonSampledGaussian) -> dp_accounting.DpEvent:
    """An event in dp-accounting's terms."""
    # On first use: it brings SciPy with it, two seconds that a command's help can do without.
    import dp_accounting  # noqa: PLC0415

    return dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(
            event.sample_rate, dp_accounting.GaussianDpEvent(event.noise_multiplier)
        ),
        event.steps,
    )
