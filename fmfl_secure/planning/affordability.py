"""Finds the runs that a ledger can still afford, for settings or for a sampler as such.

`fmfl-secure ledger afford` (`cli.afford`) calls `affordable` with a sampler or `affordable_for`
with settings; the search itself is `privacy.affordable_runs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from fmfl_secure.errors import ConfigError
from fmfl_secure.planning.answers import answer_plan, asked_of
from fmfl_secure.planning.noise import Plan
from fmfl_secure.planning.plans import site_plan
from fmfl_secure.planning.precision import Precision, precisions
from fmfl_secure.planning.terms import foresee
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.sections import SiteEntry
from fmfl_secure.settings.site import SiteConfig
from privacy import (
    MAX_ROUNDS,
    AffordableRun,
    Budget,
    BudgetExhausted,
    Dataset,
    DistributedPlan,
    GrantStatus,
    PolicyRefusal,
    PrivacyPlan,
    RunKind,
    Sampler,
    ShareRuns,
    affordable_runs,
    calibrate_noise_multiplier,
    check_delta,
    check_population_delta,
    exact_noise_multiplier,
)
from privacy.queries import SkellamShares

ROUNDS = (1, 2, 5, 10, 20, 50, 100)  # what is asked for where nothing else is


class GrantLeft(msgspec.Struct, frozen=True):
    """A grant and what is left of it.

    Attributes:
        grant: Its number.
        epsilon: Granted.
        delta: Granted.
        epsilon_left: Granted less charged. Runs compose better than epsilons add, so a run of
            more than this may fit.
        insider_epsilon: Granted against all other sites together, where shares of distributed
            noise are permitted.
        insider_epsilon_left: That less charged.
        objection: Why it affords nothing, whatever is left; empty where it stands.
    """

    grant: int
    epsilon: float
    delta: float
    epsilon_left: float
    insider_epsilon: float | None = None
    insider_epsilon_left: float | None = None
    objection: str = ""


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
        insider_epsilon: With distributed noise, what it costs against all other sites together,
            in whole tenths.
        noise_by_kind: The least noise multiplier at that epsilon by the filter, and as an exact
            grant; None with distributed noise, which has no exact price.
    """

    epsilon: float
    rounds: int
    noise_multiplier: float
    fits: bool
    insider_epsilon: float | None = None
    noise_by_kind: tuple[float, float] | None = None


class AskedAnswers(msgspec.Struct, frozen=True):
    """Answers that a federation's settings ask for, beside what they train.

    Attributes:
        epsilon: What all answers are calibrated to.
        answers: How many, repeats included.
        fits: Whether the ledger would admit them, beside the planned training where there is one.
        insider_epsilon: With distributed noise, against all other sites together.
        precision: How precise each answer would be, question by question.
    """

    epsilon: float
    answers: int
    fits: bool
    insider_epsilon: float | None
    precision: tuple[Precision, ...]


class Affordable(msgspec.Struct, frozen=True):
    """Runs that a ledger would still admit.

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
        planned: The settings' own training; None without settings, or where they train nothing.
        asked: What they ask; None where that is nothing.
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
    asked: AskedAnswers | None = None


def affordable(
    budget: Budget,
    *,
    sampler: RunKind,
    delta: float | None = None,
    rounds: Iterable[int] = ROUNDS,
    noise_multiplier: float | None = None,
    dataset: Dataset | None = None,
    population_size: int | None = None,
) -> Affordable:
    """Finds the runs with this sampler that a ledger would admit.

    Args:
        budget: The ledger's state.
        sampler: What kind of runs.
        delta: At which their epsilons are stated; None takes that of the first grant that stands.
        rounds: Lengths of runs asked for, in trainings.
        noise_multiplier: Asks how many rounds fit at this noise, too.
        dataset: The data set, whose own budget counts too.
        population_size: Units that the run would declare.

    Raises:
        ConfigError: Nothing was ever granted.
        PlanError: The sampler, the noise or delta is out of range; delta is at most
            1 / (10 x the largest population size declared).
    """
    budget = budget.without_expired(datetime.now(UTC))
    if not budget.grants:
        raise ConfigError(
            "nothing was granted in this ledger", hint="fmfl-secure ledger grant permits a budget."
        )
    headroom = budget.headroom(dataset, population_size=population_size)
    statuses = budget.status(population_size=population_size)
    if delta is None:
        standing = [status for status in statuses if not status.objection]
        delta = (standing or statuses)[0].grant.delta
    else:
        check_delta(delta)
        size = budget.largest_size(population_size)
        if size is not None:
            check_population_delta(delta, size)
    at_noise = None
    if noise_multiplier is not None:
        at_noise = AtNoise(noise_multiplier, headroom.rounds(sampler.event(noise_multiplier)))
    return Affordable(
        population=budget.population,
        unit=budget.unit,
        grants=tuple(_left(status) for status in statuses),
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
    size: int = 1,
    rounds: Iterable[int] = ROUNDS,
    name: str | None = None,
) -> Affordable:
    """Finds the runs like a federation's that a ledger would admit, and judges its own plan.

    Args:
        budget: The ledger's state.
        config: The federation's settings.
        site: The site's own, whose data set may have a budget of its own.
        size: Trained parameters of the round that trains most, d; matters with distributed noise.
        rounds: Lengths of runs asked for, besides the plan's, in trainings.
        name: The site's, whose population the run would declare; None takes the largest of all.

    Raises:
        ConfigError: The settings are of another unit than the ledger, or add no noise.
        PlanError: The settings cannot be met.
    """
    if config.task.unit != budget.unit:
        raise ConfigError(
            f"the ledger's unit is {budget.unit!r}, the federation's {config.task.unit!r}"
        )
    # The noise is the same at every site.
    named = [entry for entry in config.sites if entry.name == name]
    if name is not None and not named:
        raise ConfigError(f"{name} is not among the sites of these settings")
    entry = max(named or config.sites, key=lambda each: each.population)
    dataset = None if site is None else site.dataset
    asked = None if config.asked is None else _asked(budget, config, entry, size, dataset)
    if not config.trains:
        # As many answers as are asked for in place of trainings: every unit is in each of them.
        found = affordable(
            budget,
            sampler=Sampler(1.0, 1),
            delta=config.privacy.delta,
            rounds=rounds if asked is None or asked.insider_epsilon is None else (),
            dataset=dataset,
            population_size=entry.population,
        )
        return msgspec.structs.replace(found, asked=asked)
    plan = site_plan(config, entry, size)
    if plan is None:
        raise ConfigError("these settings add no noise: no budget affords that")
    sampler: RunKind
    if isinstance(plan, DistributedPlan):
        sampler, insider = ShareRuns(plan), plan.insider_epsilon()
        if all(grant.insider_epsilon is None for grant in budget.grants):
            raise ConfigError(
                "no grant of this ledger permits shares of distributed noise",
                hint="fmfl-secure ledger grant --insider-epsilon permits them.",
            )
    else:
        sampler, insider = Sampler(plan.sample_rate, plan.steps_per_round), None
    trainings = plan.rounds + plan.repeats
    found = affordable(
        budget,
        sampler=sampler,
        delta=plan.delta,
        rounds={*rounds, trainings},
        dataset=dataset,
        population_size=entry.population,
    )
    headroom = budget.without_expired(datetime.now(UTC)).headroom(
        dataset, population_size=entry.population
    )
    event = plan.round_event()
    planned = Planned(
        config.privacy.epsilon,
        trainings,
        plan.noise_multiplier,
        headroom.admits(event, trainings) or _is_granted_exactly(budget, config, plan, entry),
        insider,
        None if isinstance(plan, DistributedPlan) else _noise_by_kind(plan, config.privacy.epsilon),
    )
    at_noise = AtNoise(plan.noise_multiplier, headroom.rounds(event))
    return msgspec.structs.replace(found, planned=planned, at_noise=at_noise, asked=asked)


def _asked(
    budget: Budget,
    config: FederationConfig,
    entry: SiteEntry,
    size: int,
    dataset: Dataset | None,
) -> AskedAnswers:
    asked, plan = asked_of(config), answer_plan(config)
    try:
        foresee(config, entry, size, budget, dataset=dataset)
        fits = True
    except (BudgetExhausted, PolicyRefusal):
        fits = False
    shares = isinstance(plan.noise, SkellamShares)
    return AskedAnswers(
        epsilon=asked.epsilon,
        answers=plan.answers + plan.repeats,
        fits=fits,
        insider_epsilon=plan.insider_epsilon() if shares else None,
        precision=precisions(config),
    )


def _is_granted_exactly(
    budget: Budget, config: FederationConfig, plan: Plan, entry: SiteEntry
) -> bool:
    """Whether a grant waits for just this run."""
    try:
        budget.without_expired(datetime.now(UTC)).require_affordable(
            plan.round_event(),
            plan.rounds + plan.repeats,
            population_size=entry.population,
            plan=config.digest,
        )
    except BudgetExhausted:
        return False
    return True


def _noise_by_kind(plan: PrivacyPlan, epsilon: float) -> tuple[float, float]:
    """Least noise by the filter of a fresh grant, and as an exact grant."""
    asked = {
        "epsilon": epsilon,
        "delta": plan.delta,
        "sample_rate": plan.sample_rate,
    }
    steps = plan.steps_per_round * (plan.rounds + plan.repeats)
    return (
        calibrate_noise_multiplier(**asked, steps=steps),
        exact_noise_multiplier(**asked, steps=steps),
    )


def _left(status: GrantStatus) -> GrantLeft:
    grant, charged = status.grant, status.insider_epsilon_charged
    insider_left = None
    if grant.insider_epsilon is not None and charged is not None:
        insider_left = max(0.0, grant.insider_epsilon - charged)
    return GrantLeft(
        grant.number,
        grant.epsilon,
        grant.delta,
        status.epsilon_left,
        grant.insider_epsilon,
        insider_left,
        status.objection,
    )


def in_words(rounds: int) -> str:
    """A number of rounds; where the search ended, that there are more."""
    return f"{rounds:,} or more" if rounds >= MAX_ROUNDS else f"{rounds:,}"
