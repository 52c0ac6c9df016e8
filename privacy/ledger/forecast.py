"""Forecasts the figures that a ledger will show of a run, before it begins.

Epsilons do not add up, costs do, and what they convert to depends on the orders of the grant that
they are charged to and on what is charged to it already. So there is one conversion, the grant's.

`fmfl_secure.planning.terms` calls `forecast_parts` for the training and the answers of a run;
`fmfl_secure.parties.run_budget` asks `with_reserved` what fits beside what is held already.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

from privacy.accounting.events import Event
from privacy.accounting.rdp import add_costs, epsilon_spent
from privacy.ledger.budget import Budget
from privacy.ledger.charges import Charge, Cost
from privacy.ledger.datasets import Dataset
from privacy.ledger.entries import Reservation
from privacy.ledger.grants import GrantStatus

_FORESEEN = "foreseen"  # no run is called so: ids are hexadecimal


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run in the unit of the grant that it will be charged to.

    Attributes:
        grant: Number of the grant; of several, of that which the first part is charged to.
        granted: Its epsilon, or theirs together.
        delta: Its delta, or theirs together.
        before: Epsilon of the grant that is spent before the run.
        by_round: Epsilon spent after each of its rounds, cumulative over the grant's life, if none
            is repeated and nothing else is charged meanwhile.
        reserved: Epsilon spent or held once the run has reserved its worst case.
        runs_left: How many more runs of the same parts and lengths would fit afterwards.
    """

    grant: int
    granted: float
    delta: float
    before: float
    by_round: tuple[float, ...]
    reserved: float
    runs_left: int


@dataclass(frozen=True, slots=True)
class Part:
    """One of the things that a run reserves for: its training, or its answers.

    Attributes:
        event: What one round of it does.
        rounds: How many there are.
        repeats: How many of them may be done again.
    """

    event: Event
    rounds: int
    repeats: int

    @property
    def trainings(self) -> int:
        """Rounds that are held, repeats included."""
        return self.rounds + self.repeats


def forecast(
    budget: Budget,
    event: Event,
    *,
    rounds: int,
    repeats: int,
    dataset: Dataset | None = None,
    population_size: int | None = None,
    plan: str = "",
) -> Forecast:
    """Computes what a ledger will show of a run of one part that has not reserved yet.

    Args:
        budget: The ledger's state.
        event: What one round does.
        rounds: Of the run.
        repeats: Rounds that may be trained again.
        dataset: The data set that it will name.
        population_size: Units that it will declare.
        plan: Digest of the plan that it will follow, by which an exact grant is found.

    Raises:
        BudgetExhausted: No grant covers it.
        PolicyRefusal: The data set's cap does not.
        PlanError: The data set's cap is at too large a delta for so many units.
    """
    return forecast_parts(
        budget,
        [Part(event, rounds, repeats)],
        order=[0] * rounds,
        dataset=dataset,
        population_size=population_size,
        plan=plan,
    )


def forecast_parts(
    budget: Budget,
    parts: Sequence[Part],
    *,
    order: Sequence[int],
    dataset: Dataset | None = None,
    population_size: int | None = None,
    plan: str = "",
) -> Forecast:
    """Computes what a ledger will show of a run of several parts that has not reserved yet.

    What parts charge to several grants adds up.

    Args:
        budget: The ledger's state.
        parts: What the run reserves, in that order; at least one.
        order: For each of its rounds, which part it is of.
        dataset: The data set that it will name.
        population_size: Units that it will declare.
        plan: Digest of the plan that it will follow, by which exact grants are found.

    Raises:
        BudgetExhausted: No grant covers one of them beside the others.
        PolicyRefusal: The data set's cap does not.
        PlanError: The data set's cap is at too large a delta for so many units.
    """
    after, numbers = budget, []
    for part in parts:
        number = after.require_affordable(
            part.event, part.trainings, dataset=dataset, population_size=population_size, plan=plan
        )
        numbers.append(number)
        after = with_reserved(
            after,
            part.event,
            part.trainings,
            dataset=dataset,
            population_size=population_size,
            plan=plan,
        )
    status = budget.status(population_size=population_size)
    accounts = {number: _Account(status[number - 1]) for number in numbers}
    before, by_round = math.fsum(each.spent for each in accounts.values()), []
    for which in order:
        accounts[numbers[which]].add(parts[which].event, 1)
        by_round.append(math.fsum(each.spent for each in accounts.values()))
    held = {number: _Account(status[number - 1], charged=True) for number in numbers}
    for number, part in zip(numbers, parts, strict=True):
        held[number].add(part.event, part.trainings)
    return Forecast(
        grant=numbers[0],
        granted=math.fsum(each.grant.epsilon for each in accounts.values()),
        delta=math.fsum(each.grant.delta for each in accounts.values()),
        before=before,
        by_round=tuple(by_round),
        reserved=math.fsum(each.spent for each in held.values()),
        runs_left=after.headroom(dataset, population_size=population_size).runs(
            [(part.event, part.trainings) for part in parts]
        ),
    )


class _Account:
    """One grant, as a run goes on."""

    def __init__(self, status: GrantStatus, *, charged: bool = False) -> None:
        self.grant = status.grant
        self._cost = status.charged if charged else status.committed
        self._times = 0

    def add(self, event: Event, times: int) -> None:
        if self.grant.exact is None:
            cost = Cost.of(event, self.grant.orders).counted
            self._cost = add_costs(self._cost, cost, times)
        self._times += times

    @property
    def spent(self) -> float:
        if self.grant.exact is not None:  # of one part of one run, which has not begun
            return self.grant.spent_exactly(self._times) if self._times else 0.0
        return epsilon_spent(self._cost, self.grant.filter_delta)


def with_reserved(
    budget: Budget,
    event: Event,
    trainings: int,
    *,
    dataset: Dataset | None = None,
    population_size: int | None = None,
    plan: str = "",
) -> Budget:
    """A ledger's state as if this were reserved already: to ask what fits beside it.

    Args:
        budget: The ledger's state, which stays as it is.
        event: What one training does.
        trainings: Held, repeats included.
        dataset: The data set named.
        population_size: Units declared.
        plan: Digest of the plan.

    Raises:
        BudgetExhausted, PolicyRefusal, PlanError: As in `forecast`.
    """
    number = budget.require_affordable(
        event, trainings, dataset=dataset, population_size=population_size, plan=plan
    )
    held = Reservation(
        run=f"{_FORESEEN}-{len(budget.reservations)}",
        charge=Charge.of(event, trainings, budget.grants[number - 1]),
        plan=plan,
        purpose="",
        at="",
        dataset=dataset,
        population_size=population_size,
    )
    after = copy.copy(budget)
    after.reservations = {**budget.reservations, held.run: held}
    after.population_size = budget.largest_size(population_size)
    return after
