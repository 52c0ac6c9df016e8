"""Plans each noise mechanism, in figures: one entry each, with all that its kind decides.

`fmfl_secure.settings.noise` has what a mechanism is; here is what settings with it ask of a site:
its plan, the grid of what it uploads, and what it may cost whom. Nobody else asks which it is.

`planning.plans` asks `noise_of` settings for the entry and calls what it needs of it.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final, Literal

from typing_extensions import override

from aggregation import Quantization, Segment
from fmfl_secure.questions.registry import release_of
from fmfl_secure.registry import Registry
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.noise import DISTRIBUTED, LOCAL, NONE
from fmfl_secure.settings.questions import QuestionSection
from fmfl_secure.settings.sections import SiteEntry
from fmfl_secure.settings.site import SiteConfig
from fmfl_secure.vectors.layout import FlatLayout
from privacy import DistributedPlan, PlanError, PrivacyPlan, filter_delta
from privacy.queries import QueryPlan

Plan = PrivacyPlan | DistributedPlan
Place = Literal["server", "site"]

# Rounding to the grid of a released gradient may add so much to the variance of its noise.
_ROUNDING_SHARE = 0.01
# The norm of n Gaussian values exceeds sqrt(n) and so many deviations with probability 1e-12.
_NOISE_DEVIATIONS = 7.5
# Of gradients without noise or clipping: the grid goes to so many C a unit, in so many bits.
_UNBOUNDED_NORMS, _UNBOUNDED_BITS = 8.0, 28


class PlannedNoise(ABC):
    """One mechanism's plans, grids and costs.

    Attributes:
        name: The mechanism's name in settings.
        steps_at: Where steps may be taken.
    """

    name: ClassVar[str]
    steps_at: ClassVar[tuple[Place, ...]] = ("server", "site")

    @abstractmethod
    def plan(self, config: FederationConfig, site: SiteEntry, size: int) -> Plan | None:
        """Makes a site's plan for a run; None trains without privacy.

        Args:
            config: The settings.
            site: Which site.
            size: Trained parameters of the round that trains most, d.

        Raises:
            PlanError: The settings cannot be met.
        """

    @abstractmethod
    def answers(self, config: FederationConfig, asked: QuestionSection) -> QueryPlan:
        """Makes the plan of each site's part in a run's answers.

        Args:
            config: The settings.
            asked: What is asked.

        Raises:
            ConfigError: The task has not what is asked.
            PlanError: The settings cannot be met.
        """

    @abstractmethod
    def bits(self, config: FederationConfig, size: int) -> int:
        """Bits of a value that a site uploads."""

    @abstractmethod
    def gradient_range(self, config: FederationConfig, size: int) -> float:
        """Largest value on the grid of a released gradient sum."""

    @abstractmethod
    def epsilon(self, config: FederationConfig, site: SiteConfig) -> float:
        """Returns a run's largest cost for a unit, as a policy counts it."""

    def insider_epsilon(self, config: FederationConfig, site: SiteConfig) -> float:
        """The same against all other sites together."""
        return self.epsilon(config, site)

    def insider_epsilon_of(self, asked: QuestionSection) -> float:
        """Returns the largest cost of answers against all other sites together."""
        return asked.epsilon

    def colluding_sites(self, config: FederationConfig) -> int | None:  # noqa: ARG002
        """How many sites are assumed to give their noise away; None where it is a site's own."""
        return None

    def accounted_delta(self, delta: float) -> float:
        """Returns the part of delta that the filter gets."""
        return delta

    def planned_insider_epsilon(self, plan: Plan, worst: float) -> float:  # noqa: ARG002
        """Returns a plan's cost against all other sites together, `worst` being the rest's."""
        return worst

    def largest_norm(
        self,
        config: FederationConfig,  # noqa: ARG002
        values: int,  # noqa: ARG002
        step: float,  # noqa: ARG002
        limit: int,  # noqa: ARG002
    ) -> float:
        """The largest Euclidean norm of so many values of an honest update, in steps of the grid.

        Args:
            config: The settings.
            values: How many.
            step: Of the grid.
            limit: Largest integer of the grid.

        Raises:
            PlanError: Norms are not checked with this noise.
        """
        raise PlanError("norms are checked of updates that are private by themselves")

    @abstractmethod
    def noise_of_mean(self, config: FederationConfig, plan: Plan) -> float:
        """Deviation of the noise on each coordinate of the mean gradient, over C."""

    def grid(self, config: FederationConfig, layout: FlatLayout, size: int) -> Quantization:
        """The public grid of what a site uploads in a round.

        Ranges depend on settings alone, so they tell nothing, and values beyond are clamped,
        which is post-processing of what is private already.

        Args:
            config: The settings.
            layout: Of what the round trains.
            size: Trained parameters of the round that trains most.
        """
        if config.steps_at_server:
            most = self.gradient_range(config, size)
            ranges = dict.fromkeys((slot.name for slot in layout.slots), most)
        else:
            ranges = {slot.name: _update_range(config, slot.name) for slot in layout.slots}
        return Quantization(
            bits=self.bits(config, size),
            segments=tuple(
                Segment(name=slot.name, size=slot.size, range=ranges[slot.name])
                for slot in layout.slots
            ),
        )


class LocalNoise(PlannedNoise):
    """Noise that every site draws whole, by itself."""

    name = LOCAL.name

    @override
    def plan(self, config: FederationConfig, site: SiteEntry, size: int) -> PrivacyPlan:
        return privacy_plan(config, site)

    @override
    def answers(self, config: FederationConfig, asked: QuestionSection) -> QueryPlan:
        return local_answers(config, asked)

    def bits(self, config: FederationConfig, size: int) -> int:
        """The settings' own; of a gradient as many as rounding needs to be lost in the noise."""
        if not config.steps_at_server:
            return config.aggregation.bits
        plan = privacy_plan(config, config.sites[0])
        step = math.sqrt(12.0 * _ROUNDING_SHARE) * plan.noise_stddev
        needed = math.ceil(math.log2(self.gradient_range(config, size) / step + 1.0)) + 1
        return max(config.aggregation.bits, needed)

    def gradient_range(self, config: FederationConfig, size: int) -> float:  # noqa: ARG002
        """As far as all sampled units together and the noise go, at the largest site."""
        noise = privacy_plan(config, config.sites[0]).noise_stddev
        return self._largest_signal(config) + 8.0 * noise

    def largest_norm(self, config: FederationConfig, values: int, step: float, limit: int) -> float:
        """As far as the grid goes; of a gradient as far as its units and its noise go together."""
        clamped = limit * math.sqrt(values)
        if not config.steps_at_server:
            return clamped
        noise = privacy_plan(config, config.sites[0]).noise_stddev
        noised = noise * (math.sqrt(values) + _NOISE_DEVIATIONS)
        return min(clamped, (self._largest_signal(config) + noised) / step)

    def _largest_signal(self, config: FederationConfig) -> float:
        """All units of a step together, clipped, at the largest site."""
        units = config.privacy.sample_rate * max(map(config.trained_units, config.sites))
        return config.privacy.max_grad_norm * (units + 6.0 * math.sqrt(units))

    @override
    def epsilon(self, config: FederationConfig, site: SiteConfig) -> float:
        return config.privacy.epsilon

    def noise_of_mean(self, config: FederationConfig, plan: Plan) -> float:
        """A site's own mean's; where gradients are summed, that of all sites' together."""
        if not isinstance(plan, PrivacyPlan):
            raise PlanError("a plan of a site's own noise was expected")
        deviation = plan.noise_stddev / plan.max_grad_norm
        if not config.steps_at_server:
            return deviation / plan.expected_batch_size
        return math.sqrt(len(config.sites)) * deviation / _units_a_step(config)


class DistributedNoise(PlannedNoise):
    """Noise in shares: each site adds a part of what the sum needs."""

    name = DISTRIBUTED.name
    steps_at = ("server",)

    @override
    def plan(self, config: FederationConfig, site: SiteEntry, size: int) -> DistributedPlan:
        return distributed_plan(config, site, size)

    @override
    def answers(self, config: FederationConfig, asked: QuestionSection) -> QueryPlan:
        return distributed_answers(config, asked)

    def bits(self, config: FederationConfig, size: int) -> int:
        """So many that no value and no noise is cut off."""
        return distributed_plan(config, config.sites[0], size).bits

    def gradient_range(self, config: FederationConfig, size: int) -> float:
        """The grid's step is the plan's granularity for all tensors, whose geometry is one."""
        plan = distributed_plan(config, config.sites[0], size)
        return plan.granularity * ((1 << (plan.bits - 1)) - 1)

    @override
    def epsilon(self, config: FederationConfig, site: SiteConfig) -> float:
        return config.privacy.epsilon

    @override
    def insider_epsilon(self, config: FederationConfig, site: SiteConfig) -> float:
        return config.privacy.insider_epsilon

    @override
    def insider_epsilon_of(self, asked: QuestionSection) -> float:
        return asked.insider_epsilon

    @override
    def colluding_sites(self, config: FederationConfig) -> int | None:
        return config.privacy.colluding_sites

    def accounted_delta(self, delta: float) -> float:
        """Without what rounding and samplers may fail with."""
        return filter_delta(delta)

    @override
    def planned_insider_epsilon(self, plan: Plan, worst: float) -> float:
        return plan.insider_epsilon() if isinstance(plan, DistributedPlan) else worst

    def noise_of_mean(self, config: FederationConfig, plan: Plan) -> float:
        """Of the federation's mean, all sites taking part."""
        if not isinstance(plan, DistributedPlan):
            raise PlanError("a plan of shares was expected")
        deviation = plan.granularity * math.sqrt(len(config.sites) * plan.share_variance)
        return deviation / plan.max_grad_norm / _units_a_step(config)


class NoNoise(PlannedNoise):
    """Baselines on data declared public."""

    name = NONE.name

    def plan(self, config: FederationConfig, site: SiteEntry, size: int) -> None:
        """Returns None: nothing is accounted."""

    def answers(self, config: FederationConfig, asked: QuestionSection) -> QueryPlan:  # noqa: ARG002
        """Never: an answer is always one with noise."""
        raise PlanError("a question is answered with noise, and these settings add none")

    def bits(self, config: FederationConfig, size: int) -> int:  # noqa: ARG002
        """The settings' own; of a gradient, which no noise hides rounding in, many."""
        return _UNBOUNDED_BITS if config.steps_at_server else config.aggregation.bits

    def gradient_range(self, config: FederationConfig, size: int) -> float:  # noqa: ARG002
        """Nothing bounds it: several C for each sampled unit of the largest site."""
        units = config.privacy.sample_rate * max(map(config.trained_units, config.sites))
        return _UNBOUNDED_NORMS * config.privacy.max_grad_norm * (units + 6.0 * math.sqrt(units))

    def epsilon(self, config: FederationConfig, site: SiteConfig) -> float:  # noqa: ARG002
        """Nothing of what anyone may see, and all of what is private."""
        return 0.0 if site.data.visibility == "public" else math.inf

    def noise_of_mean(self, config: FederationConfig, plan: Plan) -> float:  # noqa: ARG002
        """Returns 0: there is no noise."""
        return 0.0


PLANNED_NOISE: Final[Registry[PlannedNoise]] = Registry(
    "noise mechanism", (LocalNoise(), DistributedNoise(), NoNoise())
)


def noise_of(config: FederationConfig) -> PlannedNoise:
    """Returns the entry of the settings' mechanism.

    Raises:
        UnknownKind: There is none of this name.
    """
    return PLANNED_NOISE.get(config.privacy.noise)


@functools.lru_cache(maxsize=256)  # settings are immutable, and every attempt asks
def privacy_plan(config: FederationConfig, site: SiteEntry) -> PrivacyPlan:
    """A site's privacy plan, calibrated to the settings' epsilon.

    Raises:
        PlanError: The settings cannot be met.
    """
    privacy = config.privacy
    return PrivacyPlan.calibrated(
        unit=config.task.unit,
        population=config.trained_units(site),
        sample_rate=privacy.sample_rate,
        max_grad_norm=privacy.max_grad_norm,
        steps_per_round=privacy.steps_per_round,
        rounds=config.federation.rounds,
        repeats=privacy.repeats,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        exact=privacy.accounting == "exact",
    )


@functools.lru_cache(maxsize=256)
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
        population=config.trained_units(site),
        largest_population=max(map(config.trained_units, config.sites)),
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


def _of_answers(config: FederationConfig, asked: QuestionSection) -> dict[str, Any]:
    privacy = config.privacy
    return {
        "unit": config.task.unit,
        "population": max(site.population for site in config.sites),
        "epsilon": asked.epsilon,
        "delta": privacy.delta,
        "answers": asked.answers(config.federation.rounds),
        "repeats": asked.repeats,
    }


@functools.lru_cache(maxsize=256)
def local_answers(config: FederationConfig, asked: QuestionSection) -> QueryPlan:
    """Answers with noise of each site's own, calibrated to what they may cost.

    Raises:
        ConfigError: The task has not what is asked.
        PlanError: The settings cannot be met.
    """
    return QueryPlan.local(
        release_of(config, asked),
        exact=config.privacy.accounting == "exact",
        **_of_answers(config, asked),
    )


@functools.lru_cache(maxsize=256)
def distributed_answers(config: FederationConfig, asked: QuestionSection) -> QueryPlan:
    """Answers with shares of one noise, calibrated to what they may cost.

    Raises:
        ConfigError: The task has not what is asked.
        PlanError: The settings cannot be met, or all other sites together would learn more than
            they allow.
    """
    plan = QueryPlan.distributed(
        release_of(config, asked),
        min_cohort=config.federation.min_sites,
        colluding_sites=config.privacy.colluding_sites,
        **_of_answers(config, asked),
    )
    needed = plan.insider_epsilon()
    if needed > asked.insider_epsilon:
        raise PlanError(
            f"from the answers all other sites together would learn epsilon {needed:g} about a "
            f"unit, and question.insider_epsilon allows {asked.insider_epsilon:g}",
            hint=f"Set question.insider_epsilon = {needed:g} if the custodians agree; fewer "
            "answers, more colluding_sites or a smaller epsilon need less.",
        )
    return plan


def _update_range(config: FederationConfig, name: str) -> float:
    """Bounds how far a value can move in a round: an Adam step, by about its rate at most."""
    training = config.training
    head = name.startswith("head.")
    rate = training.head_learning_rate if head else training.learning_rate
    return config.privacy.steps_per_round * rate


def _units_a_step(config: FederationConfig) -> float:
    return config.privacy.sample_rate * sum(map(config.trained_units, config.sites))
