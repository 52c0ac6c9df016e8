"""The claim that an audit holds a mechanism to: one figure, and who it is a promise against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from fmfl_secure.planning.answers import answer_plan, asked_of
from fmfl_secure.planning.plans import site_plan
from fmfl_secure.settings.federation import FederationConfig
from privacy import (
    AuditError,
    DistributedPlan,
    PoissonSampledGaussian,
    PoissonSampledSkellam,
    PrivacyPlan,
    add_costs,
    epsilon_spent,
    filter_delta,
    filter_orders,
    pld_epsilon,
    rdp_cost,
    zero_cost,
)
from privacy.queries import QueryPlan, SkellamShares

Against = Literal["outsiders", "sites"]
"""Of distributed noise: whoever sees released sums; or all other sites together."""


TrainingPlan = PrivacyPlan | DistributedPlan
P = TypeVar("P", bound=TrainingPlan | QueryPlan)


@dataclass(frozen=True, slots=True)
class Claim(Generic[P]):
    """The claim about a site's part in a run that an audit tests.

    Attributes:
        plan: The site's.
        mechanism: All steps, as of Gaussian noise, which an audit is designed by.
        epsilon: The smallest figure that this project states of them at the plan's delta.
        charged_epsilon: What a ledger charges for them.
        against: Who it is a promise against.
        shares: How many sites' shares of noise count; 0 with local noise.
    """

    plan: P
    mechanism: PoissonSampledGaussian
    epsilon: float
    charged_epsilon: float
    against: Literal["everyone", "outsiders", "sites"]
    shares: int


def claim_of(config: FederationConfig, size: int, against: Against) -> Claim[TrainingPlan]:
    """The claim of a run by these settings.

    Args:
        config: The settings, with privacy.
        size: Trained parameters of the round that trains most, d.
        against: Which of the two figures of distributed noise.

    Raises:
        AuditError: With local noise there is no second figure; or there is no noise at all.
        PlanError: The settings cannot be met.
    """
    # Sites differ in their populations only, which scale a step and not its privacy.
    plan = site_plan(config, config.sites[0], size)
    if plan is None:
        raise AuditError("these settings train without privacy: there is no epsilon to audit")
    return _claim(
        plan,
        plan.round_event(),
        plan.rounds,
        (plan.min_cohort, plan.colluding_sites) if isinstance(plan, DistributedPlan) else None,
        against,
        (config.privacy.epsilon, config.privacy.insider_epsilon),
    )


def claim_of_answers(config: FederationConfig, against: Against) -> Claim[QueryPlan]:
    """The claim of all answers of a run by these settings.

    Args:
        config: The settings.
        against: Which of the two figures of distributed noise.

    Raises:
        AuditError: With local noise there is no second figure.
        ConfigError: The settings ask nothing, or what the task has not.
        PlanError: The settings cannot be met.
    """
    plan, asked = answer_plan(config), asked_of(config)
    noise = plan.noise
    return _claim(
        plan,
        plan.event(),
        plan.answers,
        (noise.min_cohort, noise.colluding_sites) if isinstance(noise, SkellamShares) else None,
        against,
        (asked.epsilon, asked.insider_epsilon),
    )


def _claim(
    plan: P,
    event: PoissonSampledGaussian | PoissonSampledSkellam,
    rounds: int,
    cohort: tuple[int, int] | None,
    against: Against,
    epsilons: tuple[float, float],
) -> Claim[P]:
    granted, delta = epsilons[0], plan.delta
    whom: Literal["everyone", "outsiders", "sites"]
    if cohort is None:
        if against == "sites":
            raise AuditError(
                "with local noise one figure holds against everyone, other sites included",
                hint="Leave --against out.",
            )
        whom, shares = "everyone", 0
    else:
        delta = filter_delta(plan.delta)
        whom, shares = against, cohort[0] - cohort[1]
        if against == "sites" and isinstance(event, PoissonSampledSkellam):
            event, shares, granted = event.seen_by_sites(), 1, epsilons[1]
    orders = filter_orders(granted, plan.delta)
    charged = add_costs(zero_cost(orders), rdp_cost(event, orders), rounds)
    return Claim(
        plan=plan,
        mechanism=PoissonSampledGaussian(
            event.sample_rate, event.noise_multiplier, rounds * event.steps
        ),
        epsilon=pld_epsilon([event] * rounds, plan.delta),
        charged_epsilon=epsilon_spent(charged, delta),
        against=whom,
        shares=shares,
    )
