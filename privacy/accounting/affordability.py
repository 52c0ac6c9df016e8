"""The largest run that a ledger would admit: so many rounds, or so much epsilon.

A run is admitted if at least one grant covers it and, where its data set has a budget of its own,
that one too. `Headroom` is this rule with what already counts against each filter; the ledger
decides with it, and everything here asks the same rule, in the same exact arithmetic. So what is
said to fit is admitted, and one more round is not, as long as nothing is charged in between.

`Totals` (`ledger.totals`) makes the `Headroom` by which a reservation is admitted. For people,
`planning.affordability` asks `affordable_runs` for the runs that `fmfl-secure ledger afford`
shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from privacy.accounting.events import Event, PoissonSampledGaussian, failure_of, seen_by_sites
from privacy.accounting.rdp import (
    RdpCost,
    add_costs,
    calibrate_noise_multiplier,
    epsilon_spent,
    filter_delta,
    filter_orders,
    fits,
    least_noise,
    max_repetitions,
    rdp_cost,
    zero_cost,
)
from privacy.errors import PlanError

# What a run reserves: each event, and so many rounds of it.
Parts = Sequence[tuple[Event, int]]

MAX_ROUNDS = 1_000_000  # no search goes beyond
_NOISE_TOLERANCE = 1e-6  # relative
# Epsilons are looked for among whole hundredths, as people write them in settings.
_EPSILON_GRID = 100


@dataclass(frozen=True, slots=True)
class Allowance:
    """One (epsilon, delta) filter and what counts against it.

    Attributes:
        spent: Renyi cost by order, in RDP_UNIT, open reservations in full; None is infinite.
        epsilon: Of the filter.
        delta: Of the filter.
        failures_left: Probability that distributed noise may still fail with, beside `delta`.
        sets_apart: Whether that comes off `delta` as soon as such noise counts here; a grant has
            set it apart from the start.
        insider: The filter of what all other sites together learn, which has to admit a run too;
            None without.
    """

    spent: RdpCost
    epsilon: float
    delta: float
    failures_left: Fraction = Fraction(0)
    insider: Allowance | None = None
    sets_apart: bool = False

    @property
    def epsilon_spent(self) -> float:
        """The epsilon that `spent` converts to at the filter's delta."""
        return epsilon_spent(self.spent, self.delta)

    def _delta_for(self, event: Event) -> float:
        return filter_delta(self.delta) if self.sets_apart and failure_of(event) else self.delta

    def admits(self, event: Event, rounds: int) -> bool:
        """Whether so many rounds fit."""
        cost = rdp_cost(event, list(self.spent))
        return (
            fits(add_costs(self.spent, cost, rounds), self.epsilon, self._delta_for(event))
            and rounds * failure_of(event) <= self.failures_left
            and (self.insider is None or self.insider.admits(seen_by_sites(event), rounds))
        )

    def rounds(self, event: Event) -> int:
        """How many rounds fit, at most `MAX_ROUNDS`."""
        delta = self._delta_for(event)
        most = max_repetitions(self.spent, event, self.epsilon, delta, at_most=MAX_ROUNDS)
        failure = failure_of(event)
        if failure:
            most = min(most, max(0, int(self.failures_left / failure)))
        if self.insider is not None:
            most = min(most, self.insider.rounds(seen_by_sites(event)))
        return most

    def runs(self, parts: Parts) -> int:
        """How many runs of all these parts fit, at most `MAX_ROUNDS` rounds of each part."""
        each = zero_cost(list(self.spent))
        for event, rounds in parts:
            each = add_costs(each, rdp_cost(event, list(self.spent)), rounds)
        failure = sum((rounds * failure_of(event) for event, rounds in parts), Fraction(0))
        delta = min(self._delta_for(event) for event, _ in parts)

        def fit(runs: int) -> bool:
            return (
                fits(add_costs(self.spent, each, runs), self.epsilon, delta)
                and runs * failure <= self.failures_left
            )

        limit = MAX_ROUNDS // max(rounds for _, rounds in parts)
        most, step = 0, limit
        while step:  # it fits up to some number of runs, and not beyond
            if most + step <= limit and fit(most + step):
                most += step
            else:
                step //= 2
        if self.insider is not None:
            most = min(most, self.insider.runs([(seen_by_sites(e), n) for e, n in parts]))
        return most


@dataclass(frozen=True, slots=True)
class Headroom:
    """The allowances that a ledger has left, by grant and for a run's data set.

    Attributes:
        grants: By number, from 1. One of them has to cover a run alone.
        dataset: The budget of the run's data set, which has to cover it besides; None without.
    """

    grants: tuple[Allowance, ...]
    dataset: Allowance | None = None

    def admits(self, event: Event, rounds: int) -> bool:
        """Whether a reservation of so many rounds would be admitted."""
        return any(grant.admits(event, rounds) for grant in self.grants) and (
            self.dataset is None or self.dataset.admits(event, rounds)
        )

    def rounds(self, event: Event) -> int:
        """The largest reservation of this mechanism that would be admitted, in rounds."""
        most = max((grant.rounds(event) for grant in self.grants), default=0)
        return most if self.dataset is None else min(most, self.dataset.rounds(event))

    def runs(self, parts: Parts) -> int:
        """How many runs would be admitted one after the other, each of all these parts.

        Each has to fit one grant, so what is left of several does not add up to one more.

        Args:
            parts: What a run reserves: each event, and so many rounds of it.
        """
        most = sum(grant.runs(parts) for grant in self.grants)
        return most if self.dataset is None else min(most, self.dataset.runs(parts))


class RunKind(Protocol):
    """A run, apart from its noise and its length.

    Attributes:
        sample_rate: Poisson inclusion probability of a unit at each step, 0 < q <= 1.
        steps_per_round: Noised steps between two uploads, >= 1.
    """

    @property
    def sample_rate(self) -> float: ...  # noqa: D102 - see the class

    @property
    def steps_per_round(self) -> int: ...  # noqa: D102 - see the class

    def event(self, noise_multiplier: float, rounds: int = 1) -> Event:
        """One round at this noise, of a run of so many.

        Raises:
            PlanError: There is no such noise.
        """
        ...

    def calibrated(self, epsilon: float, delta: float, rounds: int) -> Event:
        """One round at the noise that settings of this epsilon and so many rounds come to.

        Raises:
            PlanError: No noise meets that.
        """
        ...

    def insider_epsilon(self, epsilon: float, delta: float, rounds: int) -> float | None:
        """Returns the epsilon that all other sites together need, or None with noise of one's own.

        Raises:
            PlanError: More than can be accounted.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sampler:
    """How a run with noise of each site's own samples.

    Attributes:
        sample_rate: Poisson inclusion probability of a unit at each step, 0 < q <= 1.
        steps_per_round: Noised steps between two uploads, >= 1.
    """

    sample_rate: float
    steps_per_round: int

    def event(self, noise_multiplier: float, rounds: int = 1) -> PoissonSampledGaussian:
        """One round at this noise, whatever the number of rounds."""
        del rounds
        return PoissonSampledGaussian(self.sample_rate, noise_multiplier, self.steps_per_round)

    def calibrated(self, epsilon: float, delta: float, rounds: int) -> PoissonSampledGaussian:
        """One round at the least noise that keeps so many within epsilon."""
        noise_multiplier = calibrate_noise_multiplier(
            epsilon=epsilon,
            delta=delta,
            sample_rate=self.sample_rate,
            steps=self.steps_per_round * rounds,
        )
        return self.event(noise_multiplier)

    def insider_epsilon(self, epsilon: float, delta: float, rounds: int) -> None:
        """None: one figure holds against everyone."""


@dataclass(frozen=True, slots=True)
class AffordableRun:
    """A run that would be admitted, and at the limit.

    Attributes:
        rounds: Trainings it reserves, repeats included.
        noise_multiplier: The least noise at which they are admitted.
        epsilon: The largest epsilon, in whole hundredths, that a run of so many rounds can be
            calibrated to and be admitted; 0 where not even one hundredth is.
        insider_epsilon: With shares of distributed noise, what the settings of that run have to
            allow all other sites together, in whole tenths; else None.
    """

    rounds: int
    noise_multiplier: float
    epsilon: float
    insider_epsilon: float | None = None


def least_noise_multiplier(headroom: Headroom, sampler: RunKind, rounds: int) -> float | None:
    """The least noise multiplier at which so many rounds are admitted, to a millionth of it.

    Returns:
        One that is admitted; None where no noise is enough.
    """

    def admitted(noise_multiplier: float) -> bool:
        try:
            return headroom.admits(sampler.event(noise_multiplier, rounds), rounds)
        except PlanError:  # more noise than is ever drawn
            return False

    return least_noise(admitted, tolerance=_NOISE_TOLERANCE)


def affordable_runs(
    headroom: Headroom, sampler: RunKind, rounds: Iterable[int], *, delta: float
) -> list[AffordableRun]:
    """For each number of rounds, the run that would just be admitted.

    Args:
        headroom: What is left.
        sampler: What kind of run.
        rounds: Numbers of rounds, repeats included, each at least 1.
        delta: At which the run's own epsilon is stated.

    Returns:
        Those that can be admitted at all, in the order asked.
    """
    found = []
    for number in rounds:
        noise = least_noise_multiplier(headroom, sampler, number)
        if noise is not None:
            epsilon = _largest_epsilon(headroom, sampler, number, noise, delta)
            insider = sampler.insider_epsilon(epsilon, delta, number) if epsilon else None
            found.append(AffordableRun(number, noise, epsilon, insider))
    return found


def _largest_epsilon(
    headroom: Headroom, sampler: RunKind, rounds: int, noise: float, delta: float
) -> float:
    def admitted(hundredths: int) -> bool:
        try:
            event = sampler.calibrated(hundredths / _EPSILON_GRID, delta, rounds)
        except PlanError:  # so small an epsilon that no order certifies it, or too large a one
            return False
        return headroom.admits(event, rounds)

    guess = _guess(headroom, sampler.event(noise, rounds), rounds, delta)
    low = high = max(1, int(_EPSILON_GRID * guess))
    # Gallop from the guess to one that is admitted beside one that is not, then halve the gap.
    step = 1
    if admitted(low):
        high = low + step
        while admitted(high):
            low, step = high, 2 * step
            high = low + step
    else:
        low = high - step
        while low > 0 and not admitted(low):
            high, step = low, 2 * step
            low = max(0, high - step)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if admitted(middle) else (low, middle)
    return low / _EPSILON_GRID


def _guess(headroom: Headroom, event: Event, rounds: int, delta: float) -> float:
    """About the epsilon of so many rounds, at about the orders that it would be filtered at."""
    orders: Sequence[int] = list(max(headroom.grants, key=lambda grant: grant.epsilon).spent)
    guess = 0.0
    for _ in range(3):
        cost = add_costs(dict.fromkeys(orders, 0), rdp_cost(event, orders), rounds)
        guess = epsilon_spent(cost, delta)
        try:
            orders = filter_orders(guess, delta)
        except PlanError:
            break
    return guess if math.isfinite(guess) else 0.0


def largest_run(event: Event, rounds: int, headroom: Headroom) -> str:
    """In words, what would be admitted: fewer rounds, or as many with more noise."""
    most = headroom.rounds(event)
    fitting = f"{'1 round' if most == 1 else f'{most} rounds'} of this mechanism"
    if isinstance(event, PoissonSampledGaussian):
        sampler = Sampler(event.sample_rate, event.steps)
        noise = least_noise_multiplier(headroom, sampler, rounds)
        if noise is not None:
            fitting += (
                f", or {rounds} with noise multiplier {math.ceil(noise * 1000.0) / 1000.0} "
                f"instead of {event.noise_multiplier:.4g}"
            )
    return (
        f"The largest run that would fit: {fitting}; fmfl-secure ledger afford lists more. Or have "
        "the data owner grant more."
    )
