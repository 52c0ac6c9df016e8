"""Predicts a run from a federation's settings, before any data are used.

`predict` is what `fmfl-secure plan` shows. A site takes its plan (`site_plan`), has its own policy
judge the `run_proposal`, and uploads each round on the grid of `quantization`.

`cli.plan` and `api` call `predict`; `parties.site` calls the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from aggregation import Packing, ParameterSet, Quantization, choose, upload_size
from aggregation.protocol import rehearsal_grid
from fmfl_secure.planning.answers import answer_layout, answer_plan
from fmfl_secure.planning.noise import Plan, noise_of
from fmfl_secure.planning.terms import foresee, terms_of
from fmfl_secure.questions.registry import sort_of
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.sections import SiteEntry
from fmfl_secure.settings.site import SiteConfig
from fmfl_secure.vectors.layout import FlatLayout
from privacy import (
    Budget,
    BudgetExhausted,
    Dataset,
    Forecast,
    PlanError,
    PolicyRefusal,
    RunProposal,
    add_costs,
    epsilon_spent,
    filter_orders,
    pld_epsilon,
    rdp_cost,
    zero_cost,
)


def site_plan(config: FederationConfig, site: SiteEntry, size: int) -> Plan | None:
    """Makes a site's plan for a run; None trains without privacy.

    Raises:
        PlanError: The settings cannot be met.
    """
    return noise_of(config).plan(config, site, size)


def value_bits(config: FederationConfig, size: int) -> int:
    """Bits of a value that a site uploads.

    The settings' own, or so many more that nothing is lost of a gradient that is released.

    Args:
        config: The settings.
        size: Trained parameters of the round that trains most, d.
    """
    if not config.trains:
        return answer_plan(config).bits
    return noise_of(config).bits(config, size)


def rehearsed_grid(config: FederationConfig, size: int) -> Quantization:
    """The grid of a rehearsal: as many bits as a round's values have, and as many values, or fewer.

    Args:
        config: The settings.
        size: Trained parameters of the round that trains most, d.
    """
    values = size if config.trains else answer_layout(config).size
    return rehearsal_grid(value_bits(config, size), values)


def run_proposal(
    config: FederationConfig,
    site: SiteConfig,
    base_model: str,
    size: int,
    *,
    unlisted: str,
    parameter_set: str = "",
) -> RunProposal:
    """Describes a run by these settings to a site, for its policy to judge.

    Args:
        config: The federation's settings.
        site: The site's own.
        base_model: Digest of the base model, as the site measured it.
        size: Trained parameters of the round that trains most, d.
        unlisted: The base model's architecture, where no table lists it.
        parameter_set: Name of the encryption parameters, where they were worked out before.

    Raises:
        ParameterError: No encryption parameter set fits the settings.
    """
    noise, asked = noise_of(config), config.asked
    # Epsilons of training and of answers add up to no less than both together come to.
    epsilon = noise.epsilon(config, site) if config.trains else 0.0
    insider = noise.insider_epsilon(config, site) if config.trains else 0.0
    if asked is not None:
        epsilon += asked.epsilon
        insider += noise.insider_epsilon_of(asked)
    return RunProposal(
        task=config.task.kind,
        adapter=config.adapter.kind,
        base_model=base_model,
        unlisted=unlisted,
        rounds=config.all_rounds,
        min_sites=config.federation.min_sites,
        smallest_cohort=config.smallest_cohort(),
        sites=len(config.sites),
        suite=config.aggregation.suite,
        parameter_set=parameter_set or encryption_parameters(config, size).id,
        epsilon=epsilon,
        delta=config.privacy.delta,
        insider_epsilon=insider,
        # Where sites may vanish, what may be opened hangs on it too, whatever the noise.
        colluding_sites=(
            config.privacy.colluding_sites
            if config.federation.vanished_sites
            else noise.colluding_sites(config)
        ),
        extensions=config.extensions,
        queries="none" if asked is None else sort_of(asked),
        answers=0 if asked is None else asked.answers(config.federation.rounds),
        answer_epsilon=0.0 if asked is None else asked.epsilon,
        norm_check=config.federation.norm_check and config.trains,
    )


def quantization(config: FederationConfig, layout: FlatLayout, size: int) -> Quantization:
    """The public grid of what a site uploads; see `PlannedNoise.grid`.

    Args:
        config: The settings.
        layout: Of what the round trains.
        size: Trained parameters of the round that trains most.
    """
    return noise_of(config).grid(config, layout, size)


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
    """Returns one site's upload in a round, in bytes, but for envelopes of some hundred bytes."""
    chosen = encryption_parameters(config, parameters)
    encoding = chosen.encoding(len(config.sites), value_bits(config, parameters))
    packing = Packing(parameters, chosen.poly_modulus_degree, encoding)
    return upload_size(chosen, packing)


@dataclass(frozen=True, slots=True)
class SitePrediction:
    """A site's costs in a run, as predicted.

    Attributes:
        name: Site.
        population: Declared.
        forecast: What its ledger will show, where that is at hand and affords the run.
        refusal: Why it does not; empty where it does, or is not at hand.
        expected_batch_size: Units a step, on average.
        noise_stddev_of_mean: Noise on each coordinate of the mean gradient, over C; where sites
            release gradients, of the federation's mean, all taking part.
    """

    name: str
    population: int
    expected_batch_size: float
    noise_stddev_of_mean: float
    forecast: Forecast | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class SiteLedger:
    """A site's ledger, for a prediction in its own figures.

    Attributes:
        budget: Its state.
        dataset: The data set that the site names.
    """

    budget: Budget
    dataset: Dataset | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A run's costs as the settings give them.

    Epsilons are in the unit of the grant that is charged: of the ledger at hand where they end
    highest, or, where none is, of a fresh grant of the settings' own epsilon and delta. They are of
    the whole run: of its training, and of its answers where the sites are asked.

    Attributes:
        sample_rate: Poisson inclusion probability.
        noise_multiplier: At every site.
        steps: Optimizer steps in all rounds.
        epsilon_by_round: After each round of training or of answers, cumulative over the grant's
            life.
        epsilon_worst_case: What is spent or held once the run has reserved, every repeat included.
        charged: Which site's ledger that is of; empty for a fresh grant.
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
    charged: str = ""

    @property
    def forecast(self) -> Forecast | None:
        """Of the ledger that the figures are of; None for a fresh grant."""
        return next((site.forecast for site in self.sites if site.name == self.charged), None)


def predict(
    config: FederationConfig, size: int, ledgers: Mapping[str, SiteLedger] = MappingProxyType({})
) -> Prediction:
    """Compute the privacy cost of a run before any data are used.

    Args:
        config: The settings, with privacy.
        size: Trained parameters of the round that trains most, d.
        ledgers: By site, those at hand: where one is, its figures are what it will show itself.

    Raises:
        PlanError: The settings cannot be met.
    """
    privacy = config.privacy
    found = [site_plan(config, site, size) for site in config.sites]
    plans = [each for each in found if each is not None]
    if not plans:
        raise PlanError("a run without privacy has no privacy cost to predict")
    plan = plans[0]
    noise = noise_of(config)
    delta = noise.accounted_delta(privacy.delta)
    asked = 0.0 if config.asked is None else config.asked.epsilon
    orders = filter_orders(privacy.epsilon + asked, privacy.delta)
    terms = terms_of(config, config.sites[0], size)
    costs = [rdp_cost(each.event, orders) for each in terms]
    total = zero_cost(orders)
    by_round = []
    for number in range(1, config.all_rounds + 1):
        total = add_costs(total, costs[0 if config.turn(number).asked is None else -1])
        by_round.append(epsilon_spent(total, delta))
    for each, cost in zip(terms, costs, strict=True):
        total = add_costs(total, cost, each.repeats)
    worst = epsilon_spent(total, delta)
    insider = noise.planned_insider_epsilon(plan, worst)
    foreseen = {
        entry.name: _foresee(config, entry, size, ledgers[entry.name])
        for entry in config.sites
        if entry.name in ledgers
    }
    shown = {name: found for name, (found, _) in foreseen.items() if found is not None}
    charged = max(shown, key=lambda name: shown[name].by_round[-1], default="")
    if charged:
        by_round, worst = list(shown[charged].by_round), shown[charged].reserved
    return Prediction(
        sample_rate=plan.sample_rate,
        noise_multiplier=plan.noise_multiplier,
        steps=plan.rounds * plan.round_event().steps,
        epsilon_by_round=tuple(by_round),
        epsilon_worst_case=worst,
        insider_epsilon=insider,
        pld_epsilon=pld_epsilon([e.event for e in terms for _ in range(e.rounds)], privacy.delta),
        sites=tuple(
            SitePrediction(
                name=entry.name,
                population=entry.population,
                expected_batch_size=config.trained_units(entry) * privacy.sample_rate,
                noise_stddev_of_mean=noise.noise_of_mean(config, each),
                forecast=foreseen.get(entry.name, (None, ""))[0],
                refusal=foreseen.get(entry.name, (None, ""))[1],
            )
            for entry, each in zip(config.sites, plans, strict=True)
        ),
        charged=charged,
    )


def _foresee(
    config: FederationConfig, entry: SiteEntry, size: int, ledger: SiteLedger
) -> tuple[Forecast | None, str]:
    """Returns what a ledger will show of a run, or why it refuses it."""
    try:
        return foresee(config, entry, size, ledger.budget, dataset=ledger.dataset), ""
    except (BudgetExhausted, PolicyRefusal, PlanError) as error:
        return None, str(error)
