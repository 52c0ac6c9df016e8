"""The one frozen object that couples what is trained with what is charged.

A `PrivacyPlan` holds unit, sampler, clipping norm, noise and steps, and yields both sides: the
trainer reads the numbers it trains with, the ledger reads `round_event()`. There is no other
way to set either, so they cannot disagree. Settings of speed (physical batch size, threads,
device) live elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from privacy.accounting.events import PoissonSampledGaussian
from privacy.accounting.exact import exact_noise_multiplier
from privacy.accounting.rdp import calibrate_noise_multiplier
from privacy.errors import PlanError
from privacy.limits import check_delta, check_population_delta, check_population_size

# Gradients come in float32; norms, clipping and sums are float64 (`training.ClippedSum`), whose
# rounding moves a norm by far less than this. What the rows of a physical batch sum up to is
# checked against C * (1 + CLIP_TOLERANCE) a row, and the noise is scaled up by the same factor.
CLIP_TOLERANCE = 1e-4

RELATION = "add-or-remove-one-unit"


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """One site's part in one run: sampling, clipping, noise, rounds and delta, frozen.

    Attributes:
        unit: What one 'person' is: `record`, or the name of a column that identifies units.
        population: Declared, rounded number of units at the site. Every denominator and rate
            is computed from it, never from the true count, which neighbouring data sets change.
        sample_rate: Poisson inclusion probability of a unit at each step, 0 < q <= 1.
        max_grad_norm: L2 bound C on one unit's summed gradient, > 0.
        noise_multiplier: Noise standard deviation over C that is *accounted*; the trainer adds
            `noise_stddev`, a hair more.
        steps_per_round: Noised optimizer steps between two uploads, >= 1.
        rounds: Uploads in the run, >= 1.
        repeats: Rounds that may be trained a second time after a crash, charged in advance.
        delta: Target delta, at most 1 / (10 population).
    """

    unit: str
    population: int
    sample_rate: float
    max_grad_norm: float
    noise_multiplier: float
    steps_per_round: int
    rounds: int
    repeats: int
    delta: float

    def __post_init__(self) -> None:
        check_delta(self.delta)
        if not self.unit:
            raise PlanError("unit is empty, expected 'record' or a column name")
        check_population_size(self.population, "population")
        for name, least in (("rounds", 1), ("repeats", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise PlanError(f"{name} is {value}, expected a whole number, at least {least}")
        check_population_delta(self.delta, self.population)
        if not (self.max_grad_norm > 0.0 and math.isfinite(self.max_grad_norm)):
            raise PlanError(f"max_grad_norm is {self.max_grad_norm}, expected > 0")
        self.round_event()  # checks sample_rate, noise_multiplier and steps

    @classmethod
    def calibrated(
        cls,
        *,
        unit: str,
        population: int,
        sample_rate: float,
        max_grad_norm: float,
        steps_per_round: int,
        rounds: int,
        repeats: int,
        epsilon: float,
        delta: float,
        exact: bool = False,
    ) -> PrivacyPlan:
        """The plan with the least noise whose worst case, repeats included, stays in the budget.

        Args:
            unit: See the class.
            population: See the class.
            sample_rate: See the class.
            max_grad_norm: See the class.
            steps_per_round: See the class.
            rounds: See the class.
            repeats: See the class.
            epsilon: What all rounds and repeats together may cost at `delta`.
            delta: See the class.
            exact: Calibrate to the exact price, for a grant that is for this run alone; else to the
                filter of a grant.

        Raises:
            PlanError: A value is out of range or the target cannot be met.
        """
        if not 0.0 < sample_rate <= 1.0:
            raise PlanError(f"sample_rate is {sample_rate}, expected 0 < q <= 1")
        if steps_per_round < 1 or rounds < 1 or repeats < 0:
            raise PlanError(
                f"steps_per_round {steps_per_round}, rounds {rounds}, repeats {repeats}: "
                "expected at least 1, 1 and 0"
            )
        calibrate = exact_noise_multiplier if exact else calibrate_noise_multiplier
        noise_multiplier = calibrate(
            epsilon=epsilon,
            delta=delta,
            sample_rate=sample_rate,
            steps=steps_per_round * (rounds + repeats),
        )
        return cls(
            unit=unit,
            population=population,
            sample_rate=sample_rate,
            max_grad_norm=max_grad_norm,
            noise_multiplier=noise_multiplier,
            steps_per_round=steps_per_round,
            rounds=rounds,
            repeats=repeats,
            delta=delta,
        )

    @property
    def expected_batch_size(self) -> float:
        """Denominator of the mean gradient: sample_rate x declared population."""
        return self.sample_rate * self.population

    @property
    def noise_stddev(self) -> float:
        """Standard deviation of the noise added to each coordinate of the gradient *sum*."""
        return self.noise_multiplier * self.max_grad_norm * (1.0 + CLIP_TOLERANCE)

    def round_event(self) -> PoissonSampledGaussian:
        """Returns the event of one round of training, for ledger and accountants."""
        return PoissonSampledGaussian(
            sample_rate=self.sample_rate,
            noise_multiplier=self.noise_multiplier,
            steps=self.steps_per_round,
        )
