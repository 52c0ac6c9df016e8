"""The one-run audit: a lower bound on epsilon from guesses about who was in the data.

An auditor puts m canaries into a data set, each with probability 1/2 and independently, runs the
mechanism once, and guesses of some canaries whether they were in, abstaining on the others. If
the mechanism is (epsilon, delta)-DP for adding or removing a canary, then of r guesses the number
V of correct ones satisfies (Steinke, Nasr, Jagielski 2023, arXiv 2305.08846, Theorem 5.2)

    P[V >= v] <= P[W >= v] + 2 m delta max_{1 <= i <= m} P[v > W >= v - i] / i,
    W ~ Binomial(r, e^epsilon / (1 + e^epsilon)),

so that too many correct guesses refute every epsilon up to some value: the lower bound. Whatever
is refuted at confidence 1 - p is refuted wrongly with probability at most p, for any scores and
any number of canaries, as long as the numbers of guesses were fixed before looking.

**No peeking.** `design_audit` fixes how many canaries there are and how many guesses are made
from the claim alone, by simulating the *claimed* mechanism; `evaluate` then uses that one number.
Trying several and keeping the best would need a union bound, and is not done.

**What it can see.** Gross mistakes. Of a correct mechanism it finds a small part of its epsilon,
and a mechanism that loses half of its noise usually stays below the claim. A bound below the
claim proves nothing.

This file is statistics alone: where scores come from is `privacy.auditing.canaries`' matter.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from privacy.accounting.events import PoissonSampledGaussian
from privacy.errors import AuditError

# Canaries that are tried, fewest first. Twice as many raise the largest possible bound by ln 2,
# until 2 m delta takes the gain back.
CANARIES = (1000, 2000, 4000, 8000, 16_000)
# Guesses as shares of the canaries, (in, out). Guesses "out" pay only where nearly every canary
# is sampled: one that is in and never sampled looks like one that is out.
_SHARES = tuple((share, 0.0) for share in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4)) + tuple(
    (share, share) for share in (0.02, 0.05, 0.1, 0.2, 0.3, 0.45)
)
# The mistake an audit is designed to catch: noise eight times too small.
DESIGN_FAULT = 1.0 / 8.0
_SIMULATIONS = 7
# What a simulation must exceed the claim by: the real path loses a little to other gradients.
_CLEARLY = 1.05
_MAX_EPSILON = 64.0


def guess_p_value(
    *, canaries: int, guesses: int, correct: int, epsilon: float, delta: float
) -> float:
    """The largest probability of so many correct guesses under (epsilon, delta)-DP.

    Args:
        canaries: m, each in the data with probability 1/2.
        guesses: r, at most m; abstentions are not guesses.
        correct: v, how many of them were right.
        epsilon: Of the hypothesis, >= 0.
        delta: Of the hypothesis, 0 <= delta < 1.

    Returns:
        The bound of Theorem 5.2, at most 1.

    Raises:
        AuditError: An argument is out of range.
    """
    _check_counts(canaries, guesses, correct)
    if not (epsilon >= 0.0 and 0.0 <= delta < 1.0):
        raise AuditError(f"epsilon is {epsilon}, delta is {delta}, expected >= 0 and in [0, 1)")
    accuracy = 1.0 / (1.0 + math.exp(-epsilon))
    p_value = float(binom.sf(correct - 1, guesses, accuracy))
    if delta > 0.0 and correct > 0:
        # For i > v nothing is added to the numerator, so i <= v suffices.
        i = np.arange(1, correct + 1)
        below = np.cumsum(binom.pmf(correct - i, guesses, accuracy))
        p_value += 2.0 * canaries * delta * float((below / i).max())
    return min(p_value, 1.0)


@functools.lru_cache(maxsize=1024)
def epsilon_lower_bound(
    *, canaries: int, guesses: int, correct: int, delta: float, confidence: float
) -> float:
    """The largest epsilon that so many correct guesses refute, rounded down; 0 if none.

    Args:
        canaries: See `guess_p_value`.
        guesses: See `guess_p_value`.
        correct: See `guess_p_value`.
        delta: At which delta the claim is made.
        confidence: Of the refutation, 0 < confidence < 1.

    Raises:
        AuditError: An argument is out of range.
    """
    _check_confidence(confidence)

    def refuted(epsilon: float) -> bool:
        p_value = guess_p_value(
            canaries=canaries, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta
        )
        return p_value <= 1.0 - confidence

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2.0 * high
        if high > _MAX_EPSILON:  # fewer canaries than e^64
            return low
    while high - low > 1e-6:
        middle = (low + high) / 2.0
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


@dataclass(frozen=True, slots=True)
class AuditDesign:
    """Numbers of canaries and guesses, fixed before an audit looks at anything.

    Attributes:
        canaries: m.
        guesses_in: The so many highest scores are guessed to be in the data.
        guesses_out: The so many lowest are guessed not to be.
        delta: At which the claim is made.
        confidence: Of the lower bound.
    """

    canaries: int
    guesses_in: int
    guesses_out: int
    delta: float
    confidence: float

    def __post_init__(self) -> None:
        _check_confidence(self.confidence)
        _check_counts(self.canaries, self.guesses, 0)
        if min(self.guesses_in, self.guesses_out) < 0 or self.guesses < 1:
            raise AuditError(
                f"{self.guesses_in} guesses in and {self.guesses_out} out, expected at least one"
            )

    @property
    def guesses(self) -> int:
        """Guesses r in all, of both kinds."""
        return self.guesses_in + self.guesses_out

    def bound(self, correct: int) -> float:
        """The lower bound on epsilon that so many correct guesses give."""
        return epsilon_lower_bound(
            canaries=self.canaries,
            guesses=self.guesses,
            correct=correct,
            delta=self.delta,
            confidence=self.confidence,
        )

    @property
    def largest_bound(self) -> float:
        """The bound if every guess is right, which no mistake, however gross, can exceed."""
        return self.bound(self.guesses)


@dataclass(frozen=True, slots=True)
class AuditResult:
    """The outcome of an audit: how many guesses were right, and what that proves.

    Attributes:
        correct: Correct guesses.
        lower_bound: On epsilon, at the design's delta and confidence.
    """

    correct: int
    lower_bound: float


def evaluate(
    design: AuditDesign, *, included: NDArray[np.bool_], scores: NDArray[np.float64]
) -> AuditResult:
    """Guess from the scores, count, and bound.

    Args:
        design: Fixed before the scores were known.
        included: bool, shape (m,): which canaries were in, by independent fair coins.
        scores: float64, shape (m,): higher speaks for 'in'. Any function of what the mechanism
            released, and of nothing else.

    Raises:
        AuditError: Shapes differ from the design, or a score is not finite.
    """
    if included.shape != (design.canaries,) or scores.shape != (design.canaries,):
        raise AuditError(
            f"{scores.shape} scores of {included.shape} canaries, expected {design.canaries}"
        )
    if not np.isfinite(scores).all():
        raise AuditError("a canary's score is not finite: what was released is not a number")
    order = np.argsort(scores, kind="stable")  # ties by position, which says nothing of inclusion
    correct = int(np.count_nonzero(~included[order[: design.guesses_out]]))
    correct += int(np.count_nonzero(included[order[design.canaries - design.guesses_in :]]))
    return AuditResult(correct, design.bound(correct))


def log_likelihood_ratio(
    observed: NDArray[np.float64], *, sample_rate: float, noise_multiplier: float
) -> NDArray[np.float64]:
    """How much one step speaks for a canary being in: the best score against the claim.

    ln of the density of q N(1, sigma^2) + (1 - q) N(0, sigma^2) over that of N(0, sigma^2), at
    the *claimed* sigma. Its sum over steps is the most powerful score by Neyman and Pearson; the
    plain sum of observations loses half of the bound where q and sigma are small.

    Args:
        observed: Any shape: the noised sum's component along the canary, in units of the
            clipping bound C.
        sample_rate: q, 0 < q <= 1.
        noise_multiplier: sigma, in units of C.
    """
    exponent = (observed - 0.5) / noise_multiplier**2
    if sample_rate >= 1.0:
        return exponent
    return np.logaddexp(math.log1p(-sample_rate), math.log(sample_rate) + exponent)


def simulate_scores(
    claim: PoissonSampledGaussian,
    *,
    canaries: int,
    noise_factor: float,
    generator: np.random.Generator,
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Canaries and scores of an idealised run; for designing an audit, never for judging one.

    Args:
        claim: What is claimed, all steps; scores are computed with its noise.
        canaries: m.
        noise_factor: Noise that is really added over the claimed one: 1 is correct, 0 is none.
        generator: Drives the simulation; no secret depends on it.

    Returns:
        Included and scores, both of shape (m,).
    """
    included = generator.random(canaries) < 0.5
    scores = np.zeros(canaries)
    for _ in range(claim.steps):
        sampled = included & (generator.random(canaries) < claim.sample_rate)
        noise = generator.standard_normal(canaries) * (noise_factor * claim.noise_multiplier)
        scores += log_likelihood_ratio(
            sampled + noise,
            sample_rate=claim.sample_rate,
            noise_multiplier=claim.noise_multiplier,
        )
    return included, scores


def expected_bound(
    design: AuditDesign, claim: PoissonSampledGaussian, *, noise_factor: float
) -> float:
    """The median bound of simulated audits of a mechanism with so much of its noise."""
    return float(np.median(_simulated_bounds([design], claim, noise_factor)[0]))


def design_audit(
    claim: PoissonSampledGaussian,
    *,
    epsilon: float,
    delta: float,
    confidence: float = 0.95,
    canaries: int | None = None,
) -> AuditDesign:
    """Fix canaries and guesses from the claim alone, so that noise / 8 would be caught.

    Few canaries are tried first. The first number is taken for which some division into guesses
    stays above the claim in *every* simulated audit with an eighth of the claimed noise, and of
    those divisions the one that stays highest. Where no number does, the same is tried with no
    noise at all. The simulation is seeded: the same claim gives the same design.

    Args:
        claim: The mechanism that is claimed, all steps.
        epsilon: What is claimed of it, at `delta`.
        delta: See `epsilon`.
        confidence: Of the lower bound.
        canaries: So many and no other number; None chooses.

    Raises:
        AuditError: Not even missing noise would be noticed.
    """
    counts = CANARIES if canaries is None else (canaries,)
    for fault in (DESIGN_FAULT, 0.0):
        for count in counts:
            designs = [
                design
                for design in _designs(count, delta, confidence)
                if design.largest_bound > epsilon * _CLEARLY
            ]
            if not designs:
                continue
            lowest = [min(found) for found in _simulated_bounds(designs, claim, fault)]
            best = int(np.argmax(lowest))
            if lowest[best] > epsilon * _CLEARLY:
                return designs[best]
    raise AuditError(
        f"epsilon {epsilon:.3g} at delta {delta:g} is too large a claim for an audit with "
        f"{counts[-1]} canaries: it would not notice if there were no noise at all",
        hint="Audit a plan with a smaller epsilon or delta.",
    )


def _designs(canaries: int, delta: float, confidence: float) -> list[AuditDesign]:
    return [
        AuditDesign(
            canaries, max(1, round(share * canaries)), round(out * canaries), delta, confidence
        )
        for share, out in _SHARES
    ]


def _simulated_bounds(
    designs: Sequence[AuditDesign], claim: PoissonSampledGaussian, noise_factor: float
) -> list[list[float]]:
    # The designs differ in their guesses only, so that they can share the runs.
    bounds: list[list[float]] = [[] for _ in designs]
    generator = np.random.default_rng(20230515)
    for _ in range(_SIMULATIONS):
        included, scores = simulate_scores(
            claim,
            canaries=designs[0].canaries,
            noise_factor=noise_factor,
            generator=generator,
        )
        for design, found in zip(designs, bounds, strict=True):
            found.append(evaluate(design, included=included, scores=scores).lower_bound)
    return bounds


def _check_counts(canaries: int, guesses: int, correct: int) -> None:
    if not 0 <= correct <= guesses <= canaries or canaries < 1:
        raise AuditError(
            f"{correct} correct of {guesses} guesses on {canaries} canaries, expected "
            "0 <= correct <= guesses <= canaries and at least one canary"
        )


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise AuditError(f"confidence is {confidence}, expected 0 < confidence < 1")
