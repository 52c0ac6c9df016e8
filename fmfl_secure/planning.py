"""What a federation's settings come to, before any data are used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aggregation import ParameterSet, Quantization, Segment, choose
from aggregation.packing import Packing
from aggregation.protocol import upload_size
from fmfl_secure.config import FederationConfig, SiteEntry
from fmfl_secure.models import AdapterSpec, Layout, find_base_model
from fmfl_secure.tasks import Task, make_task
from privacy import PrivacyPlan, pld_epsilon
from privacy.accounting import add_costs, epsilon_spent, filter_orders, rdp_cost, zero_cost


def build_task(config: FederationConfig, *, relative_to: Path) -> Task:
    """The task that the settings describe, with its base model found and checked.

    Raises:
        ModelError: The base model is missing, unsafe, or another than pinned.
    """
    base = find_base_model(config.model.base, digest=config.model.digest, relative_to=relative_to)
    adapter = AdapterSpec(
        kind=config.adapter.kind,
        rank=config.adapter.rank,
        alpha=config.adapter.alpha,
        last_layers=config.adapter.last_layers,
        target_modules=config.adapter.target_modules,
        rank_stabilised=config.adapter.rank_stabilised,
        virtual_tokens=config.adapter.virtual_tokens,
    )
    return make_task(
        config.task,
        base=base,
        adapter=adapter,
        max_length=config.model.max_length,
        cache_bytes=config.training.cache_mib << 20,
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


def quantization(config: FederationConfig, layout: Layout) -> Quantization:
    """The public grid of an update.

    A tensor's range is what its optimizer can move it in a round: an Adam step moves a value by
    about its learning rate at most. Ranges depend on settings alone, so they tell nothing, and
    values beyond are clamped, which is post-processing of a private update.
    """
    training, privacy = config.training, config.privacy
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


def encryption_parameters(config: FederationConfig) -> ParameterSet:
    """The vetted parameter set for this many sites and bits.

    Raises:
        ParameterError: None fits; names the nearest that does.
    """
    return choose(len(config.sites), config.aggregation.bits, suite=config.aggregation.suite)


def upload_bytes(config: FederationConfig, parameters: int) -> int:
    """What one site uploads in a round, in bytes, but for envelopes of some hundred bytes."""
    chosen = encryption_parameters(config)
    encoding = chosen.encoding(len(config.sites), config.aggregation.bits)
    packing = Packing(parameters, chosen.poly_modulus_degree, encoding)
    return upload_size(chosen, packing)


@dataclass(frozen=True, slots=True)
class SitePrediction:
    """What a run will cost a site.

    Attributes:
        name: Site.
        population: Declared.
        expected_batch_size: Units a step, on average.
        noise_stddev_of_mean: Noise on each coordinate of the mean gradient, over C.
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
        pld_epsilon: All rounds by PLD, parameters being fixed in advance.
        sites: By site.
    """

    sample_rate: float
    noise_multiplier: float
    steps: int
    epsilon_by_round: tuple[float, ...]
    epsilon_worst_case: float
    pld_epsilon: float
    sites: tuple[SitePrediction, ...]


def predict(config: FederationConfig) -> Prediction:
    """Compute the privacy cost of a run from its settings alone.

    Raises:
        PlanError: The settings cannot be met.
    """
    plans = [privacy_plan(config, site) for site in config.sites]
    plan, privacy = plans[0], config.privacy
    orders = filter_orders(privacy.epsilon, privacy.delta)
    cost = rdp_cost(plan.round_event(), orders)
    total = zero_cost(orders)
    by_round = []
    for _ in range(plan.rounds):
        total = add_costs(total, cost)
        by_round.append(epsilon_spent(total, privacy.delta))
    return Prediction(
        sample_rate=plan.sample_rate,
        noise_multiplier=plan.noise_multiplier,
        steps=plan.rounds * plan.steps_per_round,
        epsilon_by_round=tuple(by_round),
        epsilon_worst_case=epsilon_spent(add_costs(total, cost, plan.repeats), privacy.delta),
        pld_epsilon=pld_epsilon([plan.round_event()] * plan.rounds, privacy.delta),
        sites=tuple(
            SitePrediction(
                name=entry.name,
                population=entry.population,
                expected_batch_size=each.expected_batch_size,
                noise_stddev_of_mean=each.noise_stddev
                / each.max_grad_norm
                / each.expected_batch_size,
            )
            for entry, each in zip(config.sites, plans, strict=True)
        ),
    )
