"""Terms on which a run holds a ledger: one reservation for training, and one for answers.

They are two, since what a round of each costs differs. Both are made before any data are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from fmfl_secure.planning.answers import answer_plan
from fmfl_secure.planning.noise import noise_of
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.sections import SiteEntry
from privacy import Budget, Dataset, Event, Forecast, Part, forecast_parts

_ANSWERS: Final = ".answers"  # after the run's id, which has no dot


@dataclass(frozen=True, slots=True)
class Terms:
    """The contents of one reservation of a run.

    Attributes:
        event: What one of its rounds does.
        rounds: How many.
        repeats: How many of them may be done again after a crash.
        population: Declared number of units.
        asked: Names of what is asked; empty for training.
    """

    event: Event
    rounds: int
    repeats: int
    population: int
    asked: tuple[str, ...] = ()

    @property
    def trainings(self) -> int:
        """Trainings or answers held, repeats included."""
        return self.rounds + self.repeats

    def reservation(self, run: str) -> str:
        """Returns the name that the ledger gives it, of a run."""
        return run + _ANSWERS if self.asked else run

    def purpose(self, federation: str) -> str:
        """Says what it is for, to whoever reads the ledger."""
        return f"{federation}: answers to {', '.join(self.asked)}" if self.asked else federation


def reservations_of(run: str) -> tuple[str, str]:
    """Returns the names that a run's reservations have: for training, and for answers."""
    return run, run + _ANSWERS


def run_of(reservation: str) -> str:
    """Returns the id of the run that a reservation is for."""
    return reservation.removesuffix(_ANSWERS)


def holds_answers(reservation: str) -> bool:
    """Whether what a ledger calls so is for answers."""
    return reservation.endswith(_ANSWERS)


def terms_of(config: FederationConfig, site: SiteEntry, size: int) -> tuple[Terms, ...]:
    """All that a run holds of a site's ledger; nothing without privacy.

    Args:
        config: The settings.
        site: Which site.
        size: Trained parameters of the round that trains most, d.

    Raises:
        ConfigError: The task has not what is asked.
        PlanError: The settings cannot be met.
    """
    found = []
    training = noise_of(config).plan(config, site, size) if config.trains else None
    if training is not None:
        found.append(
            Terms(training.round_event(), training.rounds, training.repeats, site.population)
        )
    if config.asked is not None:
        plan = answer_plan(config)
        found.append(
            Terms(plan.event(), plan.answers, plan.repeats, site.population, config.asked.what)
        )
    return tuple(found)


def foresee(
    config: FederationConfig,
    site: SiteEntry,
    size: int,
    budget: Budget,
    *,
    dataset: Dataset | None,
) -> Forecast:
    """Forecasts a whole run in a ledger: its training and its answers, in the run's own order.

    Args:
        config: The settings.
        site: Whose ledger it is.
        size: Trained parameters of the round that trains most, d.
        budget: The ledger's state.
        dataset: The data set that the run will name.

    Raises:
        BudgetExhausted: No grant covers training or answers beside the other.
        PolicyRefusal: The data set's cap does not.
        ConfigError: The task has not what is asked.
        PlanError: The settings cannot be met, or the data set's cap is at too large a delta for so
            many units.
    """
    terms = terms_of(config, site, size)
    answers = len(terms) - 1  # after training, where there is any
    turns = (config.turn(number) for number in range(1, config.all_rounds + 1))
    return forecast_parts(
        budget.without_expired(datetime.now(UTC)),
        [Part(each.event, each.rounds, each.repeats) for each in terms],
        order=[0 if turn.asked is None else answers for turn in turns],
        dataset=dataset,
        population_size=site.population,
        plan=config.digest,
    )
