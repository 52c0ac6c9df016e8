"""Figures for reports, which admit nothing: epsilon by PLD, and what an attacker can reach."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

from privacy.accounting.events import Event, PoissonSampledGaussian, PoissonSampledSkellam
from privacy.accounting.rdp import (
    MAX_ORDER,
    add_costs,
    dp_event,
    epsilon_of_rdp,
    rdp_cost,
    zero_cost,
)


def pld_epsilon(events: Iterable[Event], delta: float) -> float:
    """Epsilon by privacy loss distributions, had all parameters been fixed in advance.

    Tighter than the filter and not valid for parameters chosen along the way; for reports only.
    A history with Skellam noise is composed by Renyi DP over all orders up to 256 instead.

    Args:
        events: In any order.
        delta: Target delta; from 1 on, no epsilon says anything.
    """
    if delta >= 1.0:
        return math.inf
    counts: dict[tuple[float, float], int] = {}
    events = list(events)
    if any(isinstance(event, PoissonSampledSkellam) for event in events):
        return _renyi_epsilon(tuple(events), delta)
    for event in events:
        if not isinstance(event, PoissonSampledGaussian):
            return math.inf
        key = (event.sample_rate, event.noise_multiplier)
        counts[key] = counts.get(key, 0) + event.steps
    return _pld_epsilon(tuple(sorted(counts.items())), delta) if counts else 0.0


@functools.lru_cache(maxsize=256)  # sites of a run ask the same
def _renyi_epsilon(events: tuple[Event, ...], delta: float) -> float:
    # One order may be chosen after the fact where the parameters were fixed: no union bound.
    failures = math.fsum(
        event.steps * event.failure_probability
        for event in events
        if isinstance(event, PoissonSampledSkellam)
    )
    if failures >= delta:
        return math.inf
    orders = range(2, MAX_ORDER + 1)
    total = zero_cost(orders)
    for event in events:
        total = add_costs(total, rdp_cost(event, orders))
    return min(
        (
            epsilon_of_rdp(order, cost, delta - failures)
            for order, cost in total.items()
            if cost is not None
        ),
        default=math.inf,
    )


@functools.lru_cache(maxsize=256)
def _pld_epsilon(counts: tuple[tuple[tuple[float, float], int], ...], delta: float) -> float:
    import dp_accounting  # noqa: PLC0415 - as in privacy.accounting.rdp
    from dp_accounting.pld import PLDAccountant  # noqa: PLC0415

    accountant = PLDAccountant(
        dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
        # Pessimistic, so coarser is larger. A step's loss is about q / sigma: where that is ten
        # times 1e-3 or more, 1e-3 adds 0.1 % and takes a tenth of the time of the default, 1e-4.
        value_discretization_interval=1e-3 if min(q / s for (q, s), _ in counts) >= 0.01 else 1e-4,
    )
    for (sample_rate, noise_multiplier), steps in counts:
        accountant.compose(dp_event(PoissonSampledGaussian(sample_rate, noise_multiplier, steps)))
    return float(accountant.get_epsilon(delta))


def attack_success_bound(epsilon: float, delta: float, false_positive_rate: float) -> float:
    """The best true-positive rate any membership attacker can have, at a false-positive rate.

    min(e^eps FPR + delta, 1 - e^-eps (1 - delta - FPR)) (Kairouz, Oh, Viswanath 2015).
    """
    if not math.isfinite(epsilon):
        return 1.0
    upper = min(
        math.exp(min(epsilon, 700.0)) * false_positive_rate + delta,
        1.0 - math.exp(-epsilon) * (1.0 - delta - false_positive_rate),
    )
    return min(max(upper, 0.0), 1.0)
