"""What a ledger can still afford, for a federation's settings or for a sampler as such."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from fmfl_secure.config import FederationConfig, SiteConfig
from fmfl_secure.errors import ConfigError
from fmfl_secure.planning import privacy_plan
from privacy import AffordableRun, Budget, Dataset, Sampler, affordable_runs
from privacy.affordability import MAX_ROUNDS

ROUNDS = (1, 2, 5, 10, 20, 50, 100)  # what is asked for where nothing else is


class GrantLeft(msgspec.Struct, frozen=True):
    """A grant and what is left of it.

    Attributes:
        grant: Its number.
        epsilon: Granted.
        delta: Granted.
        epsilon_left: Granted less charged. Runs compose better than epsilons add, so a run of
            more than this may fit.
    """

    grant: int
    epsilon: float
    delta: float
    epsilon_left: float


class AtNoise(msgspec.Struct, frozen=True):
    """The longest run at a noise multiplier.

    Attributes:
        noise_multiplier: Noise over clipping bound.
        rounds: Most that would be admitted; a million stands for that many or more.
    """

    noise_multiplier: float
    rounds: int


class Planned(msgspec.Struct, frozen=True):
    """The run that a federation's settings plan.

    Attributes:
        epsilon: What it is calibrated to.
        rounds: Trainings it reserves, repeats included.
        noise_multiplier: Of that calibration.
        fits: Whether the ledger would admit it.
    """

    epsilon: float
    rounds: int
    noise_multiplier: float
    fits: bool


class Affordable(msgspec.Struct, frozen=True):
    """What a ledger would still admit.

    Attributes:
        population: Whose ledger.
        unit: Its unit.
        grants: What is left of each.
        dataset: Name of the data set whose own budget was counted in; None if none has one.
        sample_rate: Poisson inclusion probability asked for.
        steps_per_round: Steps a round asked for.
        delta: At which epsilons of runs are stated.
        runs: For each number of rounds the run that would just be admitted.
        at_noise: The longest run at one noise multiplier; None if none was asked.
        planned: The settings' own run; None without settings.
    """

    population: str
    unit: str
    grants: tuple[GrantLeft, ...]
    dataset: str | None
    sample_rate: float
    steps_per_round: int
    delta: float
    runs: tuple[AffordableRun, ...]
    at_noise: AtNoise | None
    planned: Planned | None


def affordable(
    budget: Budget,
    *,
    sampler: Sampler,
    delta: float | None = None,
    rounds: Iterable[int] = ROUNDS,
    noise_multiplier: float | None = None,
    dataset: Dataset | None = None,
) -> Affordable:
    """What a ledger would admit of runs that sample like this.

    Args:
        budget: The ledger's state.
        sampler: How the runs sample.
        delta: At which their epsilons are stated; None takes the first grant's.
        rounds: Lengths of runs asked for, in trainings.
        noise_multiplier: Asks how many rounds fit at this noise, too.
        dataset: The data set, whose own budget counts too.

    Raises:
        ConfigError: Nothing was ever granted.
        PlanError: The sampler or the noise is out of range.
    """
    if not budget.grants:
        raise ConfigError(
            "nothing was granted in this ledger", hint="fmfl-secure ledger grant permits a budget."
        )
    headroom = budget.headroom(dataset)
    delta = budget.grants[0].delta if delta is None else delta
    at_noise = None
    if noise_multiplier is not None:
        at_noise = AtNoise(noise_multiplier, headroom.rounds(sampler.event(noise_multiplier)))
    return Affordable(
        population=budget.population,
        unit=budget.unit,
        grants=tuple(
            GrantLeft(s.grant.number, s.grant.epsilon, s.grant.delta, s.epsilon_left)
            for s in budget.status()
        ),
        dataset=dataset.name if dataset is not None and dataset.cap is not None else None,
        sample_rate=sampler.sample_rate,
        steps_per_round=sampler.steps_per_round,
        delta=delta,
        runs=tuple(affordable_runs(headroom, sampler, sorted(set(rounds)), delta=delta)),
        at_noise=at_noise,
        planned=None,
    )


def affordable_for(
    budget: Budget,
    config: FederationConfig,
    site: SiteConfig | None,
    *,
    rounds: Iterable[int] = ROUNDS,
) -> Affordable:
    """What a ledger would admit of runs that sample like a federation's, and of its own plan.

    Args:
        budget: The ledger's state.
        config: The federation's settings.
        site: The site's own, whose data set may have a budget of its own.
        rounds: Lengths of runs asked for, besides the plan's, in trainings.

    Raises:
        ConfigError: The settings are of another unit than the ledger, or add no noise.
        PlanError: The settings cannot be met.
    """
    if config.privacy.noise == "none":
        raise ConfigError("these settings add no noise: no budget affords that")
    if config.task.unit != budget.unit:
        raise ConfigError(
            f"the ledger's unit is {budget.unit!r}, the federation's {config.task.unit!r}"
        )
    plan = privacy_plan(config, config.sites[0])  # the noise is the same at every site
    sampler = Sampler(plan.sample_rate, plan.steps_per_round)
    trainings = plan.rounds + plan.repeats
    dataset = None if site is None else site.dataset
    found = affordable(
        budget,
        sampler=sampler,
        delta=plan.delta,
        rounds={*rounds, trainings},
        noise_multiplier=plan.noise_multiplier,
        dataset=dataset,
    )
    fits = budget.headroom(dataset).admits(plan.round_event(), trainings)
    planned = Planned(config.privacy.epsilon, trainings, plan.noise_multiplier, fits)
    return msgspec.structs.replace(found, planned=planned)


def in_words(rounds: int) -> str:
    """A number of rounds; where the search ended, that there are more."""
    return f"{rounds:,} or more" if rounds >= MAX_ROUNDS else f"{rounds:,}"
