"""Forecasts the figures that a ledger will show of a run, before it begins.

Epsilons do not add up, costs do, and what they convert to depends on the orders of the grant that
they are charged to and on what is charged to it already. So there is one conversion, the grant's.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from privacy.accounting.events import Event
from privacy.accounting.rdp import add_costs, epsilon_spent
from privacy.ledger.budget import Budget
from privacy.ledger.charges import Charge, Cost
from privacy.ledger.datasets import Dataset
from privacy.ledger.entries import Reservation

_FORESEEN = "foreseen"  # no run is called so: ids are hexadecimal


@dataclass(frozen=True, slots=True)
class Forecast:
    """A run in the unit of the grant that it will be charged to.

    Attributes:
        grant: Number of the grant.
        granted: Its epsilon.
        delta: Its delta.
        before: Epsilon of the grant that is spent before the run.
        by_round: Epsilon spent after each of its rounds, cumulative over the grant's life, if none
            is repeated and nothing else is charged meanwhile.
        reserved: Epsilon spent or held once the run has reserved its worst case.
        runs_left: How many more runs of the same mechanism and length would fit afterwards.
    """

    grant: int
    granted: float
    delta: float
    before: float
    by_round: tuple[float, ...]
    reserved: float
    runs_left: int


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
    """Computes what a ledger will show of a run that has not reserved yet.

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
    trainings = rounds + repeats
    number = budget.require_affordable(
        event, trainings, dataset=dataset, population_size=population_size, plan=plan
    )
    status = budget.status(population_size=population_size)[number - 1]
    grant = status.grant
    headroom = budget.headroom(dataset, population_size=population_size)
    if grant.exact is not None:
        return Forecast(
            grant=number,
            granted=grant.epsilon,
            delta=grant.delta,
            before=0.0,
            by_round=tuple(grant.spent_exactly(n) for n in range(1, rounds + 1)),
            reserved=grant.spent_exactly(trainings),
            runs_left=headroom.runs(event, trainings),
        )
    cost = Cost.of(event, grant.orders).counted
    spent, by_round = status.committed, []
    for _ in range(rounds):
        spent = add_costs(spent, cost)
        by_round.append(epsilon_spent(spent, grant.filter_delta))
    held = add_costs(status.charged, cost, trainings)
    return Forecast(
        grant=number,
        granted=grant.epsilon,
        delta=grant.delta,
        before=status.epsilon_committed,
        by_round=tuple(by_round),
        reserved=epsilon_spent(held, grant.filter_delta),
        runs_left=headroom.runs(event, trainings) - 1,
    )


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
