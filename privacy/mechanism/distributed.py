"""Distributed noise: every site adds a share, and only the sum is private enough to be seen.

One `DistributedPlan` fixes rounding, sensitivity, noise share and event together, as
`PrivacyPlan` does for local noise: what `SkellamShare` adds is what `event` charges. Every step
is a round of secure aggregation; `docs/distributed-noise.md` has the mechanism and its proofs.

`planning.noise` calibrates the plan. `mechanism.gradient_training` takes each step's clipped sum
and has a `SkellamShare` protect it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.accounting.events import PoissonSampledSkellam
from privacy.accounting.rdp import filter_orders
from privacy.errors import PlanError, TrainingError
from privacy.limits import check_delta, check_epsilon, check_population_delta, check_population_size
from privacy.mechanism.plan import CLIP_TOLERANCE
from privacy.mechanism.rounding import MAX_CLAMP, RandomizedRounding, squared_sensitivity
from privacy.mechanism.share_budget import MAX_EPSILON, fits_alone, insider_epsilon
from privacy.mechanism.skellam import MAX_VARIANCE, SkellamSource, support_of

# One unit's vector, clipped to C, is this many rounding steps times sqrt(d) long: rounding then
# adds d / 4 to 25 d, about 1 % to the squared sensitivity.
_FINENESS = 5.0
# A coordinate of a site's sum is clamped where more units than are sampled, by so many deviations,
# would have to agree on it. Where a site's units do agree, such as all of one label, it comes near.
_DEVIATIONS = 6.0
# The share of delta that rounding may fail with in a run; it enters through sqrt(ln(1 / .)).
_ROUNDING_DELTA_SHARE = 2.0**-16
# (1 + e^epsilon) times what the samplers' tables leave out of a step: at most 2^24 coordinates of
# 2^10 shares, each 2^-160 + 2^-170, at epsilon up to `MAX_EPSILON`.
_SAMPLER_FAILURE = 2.0**-60
_MAX_DIMENSION = 1 << 24
_MAX_SITES = 1 << 10


@dataclass(frozen=True, slots=True)
class DistributedPlan:
    """One site's part in one run with distributed noise: sampling, clipping, noise and delta.

    Attributes:
        unit: What one 'person' is: `record`, or the name of a column that identifies units.
        population: Declared, rounded number of units at the site.
        largest_population: The same of the largest site, from which it follows how far a sum may
            go: all sites' integers have one range.
        sample_rate: Poisson inclusion probability of a unit at each step, the same at all sites.
        max_grad_norm: L2 bound C on one unit's summed gradient, > 0.
        dimension: Coordinates d of the gradient, at most.
        min_cohort: Smallest number m of sites whose sum is ever opened, >= 2.
        colluding_sites: How many sites c of a cohort are assumed to add no noise, or to give it
            away; 0 <= c < m.
        share_variance: Of each site's noise, in squared rounding steps, whole, >= 1.
        rounds: Steps in the run, each a round, >= 1.
        repeats: Steps that may be trained again after a crash, charged in advance.
        delta: Target delta, at most 1 / (10 population).
    """

    unit: str
    population: int
    largest_population: int
    sample_rate: float
    max_grad_norm: float
    dimension: int
    min_cohort: int
    colluding_sites: int
    share_variance: int
    rounds: int
    repeats: int
    delta: float

    def __post_init__(self) -> None:
        check_delta(self.delta)
        check_population_size(self.population, "population")
        check_population_size(self.largest_population, "largest_population")
        if self.largest_population < self.population:
            raise PlanError(
                f"largest_population is {self.largest_population}, expected at least population, "
                f"{self.population}"
            )
        if not self.unit:
            raise PlanError("unit is empty, expected 'record' or a column name")
        for name, least, most in (
            ("dimension", 1, _MAX_DIMENSION),
            ("min_cohort", 2, _MAX_SITES),
            ("colluding_sites", 0, self.min_cohort - 1),
            ("share_variance", 1, MAX_VARIANCE),
            ("rounds", 1, 1 << 32),
            ("repeats", 0, 1 << 32),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise PlanError(f"{name} is {value}, expected a whole number, {least} to {most}")
        check_population_delta(self.delta, self.population)
        if not (self.max_grad_norm > 0.0 and math.isfinite(self.max_grad_norm)):
            raise PlanError(f"max_grad_norm is {self.max_grad_norm}, expected > 0")
        self.round_event()  # checks sample_rate

    @classmethod
    def calibrated(
        cls,
        *,
        unit: str,
        population: int,
        largest_population: int,
        sample_rate: float,
        max_grad_norm: float,
        dimension: int,
        min_cohort: int,
        colluding_sites: int,
        rounds: int,
        repeats: int,
        epsilon: float,
        delta: float,
    ) -> DistributedPlan:
        """The plan with the least noise whose worst case, repeats included, stays in the budget.

        Args:
            unit: See the class; so are the others that are not named here.
            population: See the class.
            largest_population: See the class.
            sample_rate: See the class.
            max_grad_norm: See the class.
            dimension: See the class.
            min_cohort: See the class.
            colluding_sites: See the class.
            rounds: See the class.
            repeats: See the class.
            epsilon: What all rounds and repeats may cost at `delta` to whoever sees released
                sums; up to 40.
            delta: See the class.

        Raises:
            PlanError: A value is out of range or the target cannot be met.
        """
        check_epsilon(epsilon)
        check_delta(delta)
        if epsilon > MAX_EPSILON:
            raise PlanError(f"epsilon is {epsilon}, expected at most {MAX_EPSILON:g} here")

        def plan(share_variance: int) -> DistributedPlan:
            return cls(
                unit=unit,
                population=population,
                largest_population=largest_population,
                sample_rate=sample_rate,
                max_grad_norm=max_grad_norm,
                dimension=dimension,
                min_cohort=min_cohort,
                colluding_sites=colluding_sites,
                share_variance=share_variance,
                rounds=rounds,
                repeats=repeats,
                delta=delta,
            )

        orders = filter_orders(epsilon, delta)

        def passes(share_variance: int) -> bool:
            event = plan(share_variance).round_event()
            return fits_alone(event, rounds + repeats, orders, epsilon, delta)

        low, high = 0, 1
        while not passes(high):
            low, high = high, high * 2
            if high > MAX_VARIANCE:
                raise PlanError(
                    f"no noise share up to variance {MAX_VARIANCE} gives epsilon {epsilon} at "
                    f"delta {delta} over {rounds + repeats} steps at sample rate {sample_rate}"
                )
        while high - low > max(1, low >> 20):
            middle = (low + high) // 2
            low, high = (low, middle) if passes(middle) else (middle, high)
        return plan(high)

    @property
    def granularity(self) -> float:
        """Size gamma of a rounding step."""
        bound = self.max_grad_norm * (1.0 + CLIP_TOLERANCE)
        return bound / (_FINENESS * math.sqrt(self.dimension))

    @property
    def clamp(self) -> int:
        """Largest absolute integer before noise is added.

        Beyond it a coordinate is cut off, which costs accuracy, never privacy: of a model so
        large that this many units in agreement do not fit into `MAX_CLAMP`.
        """
        units = self.sample_rate * self.largest_population
        reach = units + _DEVIATIONS * math.sqrt(units)
        return min(MAX_CLAMP, math.ceil(reach * _FINENESS * math.sqrt(self.dimension)))

    @property
    def largest_value(self) -> int:
        """Largest absolute integer that can leave the site, noise included."""
        return self.clamp + support_of(self.share_variance)

    @property
    def bits(self) -> int:
        """Bits of a packed value, its sign included, so that nothing wraps."""
        return self.largest_value.bit_length() + 1

    @property
    def rounding_failure(self) -> float:
        """Probability beta that rounding moves one unit's step by more than is accounted."""
        return self.delta * _ROUNDING_DELTA_SHARE / (self.rounds + self.repeats)

    @property
    def squared_l2(self) -> int:
        """Bound on what one unit moves the integers by, squared L2 norm."""
        norm = _FINENESS * math.sqrt(self.dimension)
        return math.ceil(squared_sensitivity(norm, self.dimension, self.rounding_failure))

    @property
    def noise_multiplier(self) -> float:
        """Deviation of the honest sites' noise over what one unit can move: as of a Gaussian."""
        return self.round_event().noise_multiplier

    def insider_epsilon(self) -> float:
        """Returns the epsilon, in whole tenths, that a grant must allow all other sites together.

        Raises:
            PlanError: It is above 40, where the samplers' own error is not accounted.
        """
        return insider_epsilon(
            self.round_event(),
            self.rounds + self.repeats,
            self.delta,
            hint="Plan with fewer steps, more colluding_sites, or a smaller epsilon.",
        )

    def round_event(self) -> PoissonSampledSkellam:
        """Returns the event of one step, for ledger and accountants."""
        squared_l2 = self.squared_l2
        # An integer vector's L1 norm is at most its squared L2 norm, and at most sqrt(d) its L2.
        l1 = min(squared_l2, math.isqrt(self.dimension * squared_l2) + 1)
        return PoissonSampledSkellam(
            sample_rate=self.sample_rate,
            squared_l2=squared_l2,
            l1=l1,
            variance=(self.min_cohort - self.colluding_sites) * self.share_variance,
            own_variance=self.share_variance,
            failure_probability=self.rounding_failure + _SAMPLER_FAILURE,
            steps=1,
        )


class SkellamShare:
    """Turns a site's clipped sums into integers that may be added to other sites'.

    **Guarantee.** A released sum of at least `min_cohort` such vectors, at most
    `colluding_sites` of them from sites that gave their noise away, is one step of
    `plan.round_event()`; one vector alone is that step at `own_variance`.

    Args:
        plan: What to do.
    """

    def __init__(self, plan: DistributedPlan) -> None:
        self._dimension = plan.dimension
        self._largest = plan.largest_value
        self._rounding = RandomizedRounding(granularity=plan.granularity, clamp=plan.clamp)
        self._noise = SkellamSource(plan.share_variance)

    def __repr__(self) -> str:
        return f"SkellamShare(dimension={self._dimension})"

    def protect(self, clipped_sum: NDArray[np.float64]) -> NDArray[np.int32]:
        """Round a sum and add this site's share of noise.

        Args:
            clipped_sum: float64, shape (d,), d at most the plan's dimension: each unit's part at
                most C (1 + CLIP_TOLERANCE).

        Returns:
            int32, shape (d,), absolute values at most `plan.largest_value`.

        Raises:
            TrainingError: Another shape or dtype, or a value is not finite.
        """
        if clipped_sum.ndim != 1 or not 1 <= len(clipped_sum) <= self._dimension:
            raise TrainingError(
                f"the sum's shape is {clipped_sum.shape}, the plan is for up to {self._dimension}"
            )
        values = self._rounding.integers(clipped_sum) + self._noise.integers(len(clipped_sum))
        return values.astype(np.int32)
