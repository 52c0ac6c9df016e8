"""What a federation's settings come to, before any data are used."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from aggregation import Packing, ParameterSet, Quantization, Segment, choose, upload_size
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.sections import SiteEntry
from fmfl_secure.settings.site import SiteConfig
from fmfl_secure.vectors.layout import FlatLayout
from privacy import (
    DistributedPlan,
    PlanError,
    PrivacyPlan,
    RunProposal,
    add_costs,
    epsilon_spent,
    filter_delta,
    filter_orders,
    pld_epsilon,
    rdp_cost,
    zero_cost,
)


def privacy_plan(config: FederationConfig, site: SiteEntry) -> PrivacyPlan:
    """A site's privacy plan, calibrated to the settings' epsilon.

    Raises:
        PlanError: The settings cannot be met.
    """
    privacy = config.privacy
    return PrivacyPlan.calibrated(
        unit=config.task.unit,
        population=site.population,
        sample_rate=privacy.sample_rate,
        max_grad_norm=privacy.max_grad_norm,
        steps_per_round=privacy.steps_per_round,
        rounds=config.federation.rounds,
        repeats=privacy.repeats,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
    )


@functools.lru_cache(maxsize=256)  # settings are immutable, and every attempt asks
def distributed_plan(config: FederationConfig, site: SiteEntry, size: int) -> DistributedPlan:
    """A site's plan with distributed noise, calibrated to the settings' epsilon.

    Args:
        config: The settings.
        site: Which site.
        size: Trained parameters of the round that trains most, d.

    Raises:
        PlanError: The settings cannot be met, or all other sites together would learn more than
            they allow.
    """
    privacy = config.privacy
    plan = DistributedPlan.calibrated(
        unit=config.task.unit,
        population=site.population,
        sample_rate=privacy.sample_rate,
        max_grad_norm=privacy.max_grad_norm,
        dimension=size,
        min_cohort=config.federation.min_sites,
        colluding_sites=privacy.colluding_sites,
        rounds=config.federation.rounds,
        repeats=privacy.repeats,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
    )
    needed = plan.insider_epsilon()
    if needed > privacy.insider_epsilon:
        raise PlanError(
            f"all other sites together would learn epsilon {needed:g} about a unit here, and "
            f"privacy.insider_epsilon allows {privacy.insider_epsilon:g}",
            hint=f"Set privacy.insider_epsilon = {needed:g} if the custodians agree; fewer steps, "
            "more colluding_sites or a smaller epsilon need less.",
        )
    return plan


def site_plan(
    config: FederationConfig, site: SiteEntry, size: int
) -> PrivacyPlan | DistributedPlan | None:
    """What a site does to its data in a run; None trains without privacy.

    Raises:
        PlanError: The settings cannot be met.
    """
    if not config.privacy.noise_mechanism.private:
        return None
    if config.privacy.noise_mechanism.in_shares:
        return distributed_plan(config, site, size)
    return privacy_plan(config, site)


def value_bits(config: FederationConfig, size: int) -> int:
    """Bits of a value that a site uploads.

    The settings' own, but with distributed noise so many that no value and no noise is cut off.

    Args:
        config: The settings.
        size: Trained parameters of the round that trains most, d.
    """
    if not config.privacy.noise_mechanism.in_shares:
        return config.aggregation.bits
    return distributed_plan(config, config.sites[0], size).bits


def run_proposal(
    config: FederationConfig, site: SiteConfig, base_model: str, size: int
) -> RunProposal:
    """What a run by these settings asks of a site, for its policy to judge.

    Args:
        config: The federation's settings.
        site: The site's own.
        base_model: Digest of the base model, as the site measured it.
        size: Trained parameters of the round that trains most, d.

    Raises:
        ParameterError: No encryption parameter set fits the settings.
    """
    epsilon, shares = config.privacy.epsilon, config.privacy.noise_mechanism.in_shares
    if not config.privacy.noise_mechanism.private:
        epsilon = 0.0 if site.data.visibility == "public" else math.inf
    return RunProposal(
        task=config.task.kind,
        adapter=config.adapter.kind,
        base_model=base_model,
        rounds=config.federation.rounds,
        min_sites=config.federation.min_sites,
        smallest_cohort=config.smallest_cohort(),
        sites=len(config.sites),
        suite=config.aggregation.suite,
        parameter_set=encryption_parameters(config, size).id,
        epsilon=epsilon,
        delta=config.privacy.delta,
        insider_epsilon=config.privacy.insider_epsilon if shares else epsilon,
        colluding_sites=config.privacy.colluding_sites if shares else None,
        extensions=config.extensions,
    )


def quantization(config: FederationConfig, layout: FlatLayout, size: int) -> Quantization:
    """The public grid of an update.

    A tensor's range is what its optimizer can move it in a round: an Adam step moves a value by
    about its learning rate at most. Ranges depend on settings alone, so they tell nothing, and
    values beyond are clamped, which is post-processing of a private update. With distributed
    noise the grid's step is the plan's granularity for all tensors, whose geometry is one.

    Args:
        config: The settings.
        layout: Of what the round trains.
        size: Trained parameters of the round that trains most.
    """
    training, privacy = config.training, config.privacy
    if privacy.noise_mechanism.in_shares:
        plan = distributed_plan(config, config.sites[0], size)
        limit = (1 << (plan.bits - 1)) - 1
        return Quantization(
            bits=plan.bits,
            segments=tuple(
                Segment(name=slot.name, size=slot.size, range=plan.granularity * limit)
                for slot in layout.slots
            ),
        )
    return Quantization(
        bits=config.aggregation.bits,
        segments=tuple(
            Segment(
                name=slot.name,
                size=slot.size,
                range=privacy.steps_per_round
                * (
                    training.head_learning_rate
                    if slot.name.startswith("head.")
                    else training.learning_rate
                ),
            )
            for slot in layout.slots
        ),
    )


def encryption_parameters(config: FederationConfig, size: int) -> ParameterSet:
    """The vetted parameter set for this many sites and bits.

    Args:
        config: The settings.
        size: Trained parameters of the round that trains most, d.

    Raises:
        ParameterError: None fits; names the nearest that does.
    """
    return choose(len(config.sites), value_bits(config, size), suite=config.aggregation.suite)


def upload_bytes(config: FederationConfig, parameters: int) -> int:
    """What one site uploads in a round, in bytes, but for envelopes of some hundred bytes."""
    chosen = encryption_parameters(config, parameters)
    encoding = chosen.encoding(len(config.sites), value_bits(config, parameters))
    packing = Packing(parameters, chosen.poly_modulus_degree, encoding)
    return upload_size(chosen, packing)


@dataclass(frozen=True, slots=True)
class SitePrediction:
    """What a run will cost a site.

    Attributes:
        name: Site.
        population: Declared.
        expected_batch_size: Units a step, on average.
        noise_stddev_of_mean: Noise on each coordinate of the mean gradient, over C; with
            distributed noise of the federation's mean, all sites taking part.
    """

    name: str
    population: int
    expected_batch_size: float
    noise_stddev_of_mean: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the settings come to.

    Attributes:
        sample_rate: Poisson inclusion probability.
        noise_multiplier: At every site.
        steps: Optimizer steps in all rounds.
        epsilon_by_round: After each round, by the filter of a fresh grant of the target.
        epsilon_worst_case: With every repeat used.
        insider_epsilon: The same to all other sites together; as `epsilon_worst_case` where
            every site's noise is its own.
        pld_epsilon: All rounds by PLD, parameters being fixed in advance.
        sites: By site.
    """

    sample_rate: float
    noise_multiplier: float
    steps: int
    epsilon_by_round: tuple[float, ...]
    epsilon_worst_case: float
    insider_epsilon: float
    pld_epsilon: float
    sites: tuple[SitePrediction, ...]


def predict(config: FederationConfig, size: int) -> Prediction:
    """Compute the privacy cost of a run from its settings alone.

    Args:
        config: The settings, with privacy.
        size: Trained parameters of the round that trains most, d.

    Raises:
        PlanError: The settings cannot be met.
    """
    privacy = config.privacy
    plans = [site_plan(config, site, size) for site in config.sites]
    plan = plans[0]
    if plan is None:
        raise PlanError("a run without privacy has no privacy cost to predict")
    delta = filter_delta(privacy.delta) if privacy.noise_mechanism.in_shares else privacy.delta
    orders = filter_orders(privacy.epsilon, privacy.delta)
    cost = rdp_cost(plan.round_event(), orders)
    total = zero_cost(orders)
    by_round = []
    for _ in range(plan.rounds):
        total = add_costs(total, cost)
        by_round.append(epsilon_spent(total, delta))
    worst = epsilon_spent(add_costs(total, cost, plan.repeats), delta)
    return Prediction(
        sample_rate=plan.sample_rate,
        noise_multiplier=plan.noise_multiplier,
        steps=plan.rounds * plan.round_event().steps,
        epsilon_by_round=tuple(by_round),
        epsilon_worst_case=worst,
        insider_epsilon=plan.insider_epsilon() if isinstance(plan, DistributedPlan) else worst,
        pld_epsilon=pld_epsilon([plan.round_event()] * plan.rounds, privacy.delta),
        sites=tuple(
            SitePrediction(
                name=entry.name,
                population=entry.population,
                expected_batch_size=entry.population * privacy.sample_rate,
                noise_stddev_of_mean=_noise_of_mean(config, each),
            )
            for entry, each in zip(config.sites, plans, strict=True)
        ),
    )


def _noise_of_mean(config: FederationConfig, plan: PrivacyPlan | DistributedPlan | None) -> float:
    if isinstance(plan, DistributedPlan):
        units = plan.sample_rate * sum(entry.population for entry in config.sites)
        deviation = plan.granularity * math.sqrt(len(config.sites) * plan.share_variance)
        return deviation / plan.max_grad_norm / units
    if plan is None:
        return 0.0
    return plan.noise_stddev / plan.max_grad_norm / plan.expected_batch_size
