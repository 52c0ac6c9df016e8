"""The claim that an audit holds a mechanism to: one figure, and who it is a promise against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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

Against = Literal["outsiders", "sites"]
"""Of distributed noise: whoever sees released sums; or all other sites together."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed of a site's part in a run.

    Attributes:
        plan: The site's.
        mechanism: All steps, as of Gaussian noise, which an audit is designed by.
        epsilon: The smallest figure that this project states of them at the plan's delta.
        charged_epsilon: What a ledger charges for them.
        against: Who it is a promise against.
        shares: How many sites' shares of noise count; 0 with local noise.
    """

    plan: PrivacyPlan | DistributedPlan
    mechanism: PoissonSampledGaussian
    epsilon: float
    charged_epsilon: float
    against: Literal["everyone", "outsiders", "sites"]
    shares: int


def claim_of(config: FederationConfig, size: int, against: Against) -> Claim:
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
    event: PoissonSampledGaussian | PoissonSampledSkellam
    granted, delta = config.privacy.epsilon, plan.delta
    whom: Literal["everyone", "outsiders", "sites"]
    if isinstance(plan, PrivacyPlan):
        if against == "sites":
            raise AuditError(
                "with local noise one figure holds against everyone, other sites included",
                hint="Leave --against out.",
            )
        event, whom, shares = plan.round_event(), "everyone", 0
    else:
        delta = filter_delta(plan.delta)
        event, whom, shares = plan.round_event(), against, plan.min_cohort - plan.colluding_sites
        if against == "sites":
            event, shares, granted = event.seen_by_sites(), 1, config.privacy.insider_epsilon
    orders = filter_orders(granted, plan.delta)
    charged = add_costs(zero_cost(orders), rdp_cost(event, orders), plan.rounds)
    return Claim(
        plan=plan,
        mechanism=PoissonSampledGaussian(
            plan.sample_rate, event.noise_multiplier, plan.rounds * event.steps
        ),
        epsilon=pld_epsilon([event] * plan.rounds, plan.delta),
        charged_epsilon=epsilon_spent(charged, delta),
        against=whom,
        shares=shares,
    )
