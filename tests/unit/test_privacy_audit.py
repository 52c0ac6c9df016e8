"""The audit's statistics: against printed and hand-computed values; designs; scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from privacy import AuditError, PoissonSampledGaussian
from privacy.auditing.statistics import (
    CANARIES,
    AuditDesign,
    design_audit,
    epsilon_lower_bound,
    evaluate,
    expected_bound,
    guess_p_value,
    log_likelihood_ratio,
    simulate_scores,
)


def p_value(canaries, guesses, correct, epsilon, delta):
    return guess_p_value(
        canaries=canaries, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta
    )


def lower_bound(canaries, guesses, correct, delta, confidence=0.95):
    return epsilon_lower_bound(
        canaries=canaries, guesses=guesses, correct=correct, delta=delta, confidence=confidence
    )


# Printed in arXiv 2305.08846, appendix D and (last) section 7, figure 11.
PRINTED = [
    ((100, 100, 75, 0.0), 0.702),
    ((100, 100, 75, 1e-4), 0.699),
    ((1000, 100, 75, 1e-4), 0.673),
    ((100_000, 1510, 1439, 1e-5), 2.675),
]


@pytest.mark.parametrize(("counts", "printed"), PRINTED)
def test_bounds_are_those_the_paper_prints(counts, printed):
    assert lower_bound(*counts) == pytest.approx(printed, abs=1e-3)


def test_a_p_value_is_the_one_the_paper_prints():
    assert p_value(100, 100, 75, math.log(3), 0.0) == pytest.approx(0.553, abs=1e-3)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0, 7.0])
def test_p_values_by_hand(epsilon):
    q = 1 / (1 + math.exp(-epsilon))
    assert p_value(5, 5, 5, epsilon, 0.0) == pytest.approx(q**5)
    assert p_value(5, 3, 2, epsilon, 0.0) == pytest.approx(3 * q**2 * (1 - q) + q**3)
    # One guess: alpha = P[1 > W >= 0] = 1 - q.
    assert p_value(7, 1, 1, epsilon, 1e-3) == pytest.approx(q + 2 * 7 * 1e-3 * (1 - q))
    # Two right of two: alpha is the larger of P[W = 1] and P[W <= 1] / 2.
    alpha = max(2 * q * (1 - q), (1 - q**2) / 2)
    assert p_value(9, 2, 2, epsilon, 1e-3) == pytest.approx(q**2 + 2 * 9 * 1e-3 * alpha)


def test_nothing_right_refutes_nothing():
    assert p_value(10, 10, 0, 0.0, 1e-5) == 1.0
    assert lower_bound(10, 10, 0, 1e-5) == 0.0


@pytest.mark.parametrize("correct", [1, 10, 1000])
def test_all_right_gives_the_root_of_the_power(correct):
    accuracy = 0.05 ** (1 / correct)
    expected = max(0.0, math.log(accuracy / (1 - accuracy)))
    assert lower_bound(correct, correct, correct, 0.0) == pytest.approx(expected, abs=2e-6)


def test_chance_gives_nothing_and_more_needs_luck():
    assert lower_bound(1000, 1000, 500, 1e-5) == 0.0
    assert lower_bound(1000, 1000, 520, 1e-5) == 0.0  # 1.3 standard deviations
    assert lower_bound(1000, 1000, 560, 1e-5) > 0.0


@pytest.mark.parametrize("counts", [(0, 0, 0), (10, 11, 5), (10, 5, 6), (10, 5, -1)], ids=str)
def test_counts_out_of_range_are_refused(counts):
    with pytest.raises(AuditError, match="expected 0 <= correct <= guesses <= canaries"):
        p_value(*counts, 1.0, 0.0)


def test_other_arguments_out_of_range_are_refused():
    for epsilon, delta in ((-1.0, 0.0), (math.nan, 0.0), (1.0, 1.0), (1.0, -0.1)):
        with pytest.raises(AuditError, match="epsilon is"):
            p_value(10, 10, 5, epsilon, delta)
    for confidence in (0.0, 1.0, math.nan):
        with pytest.raises(AuditError, match="confidence is"):
            lower_bound(10, 10, 5, 0.0, confidence)
        with pytest.raises(AuditError, match="confidence is"):
            AuditDesign(10, 5, 0, 0.0, confidence)
    with pytest.raises(AuditError, match="expected at least one"):
        AuditDesign(10, 0, 0, 0.0, 0.95)
    with pytest.raises(AuditError, match="guesses"):
        AuditDesign(10, 6, 6, 0.0, 0.95)


def test_guesses_are_the_highest_and_the_lowest_scores():
    design = AuditDesign(canaries=6, guesses_in=2, guesses_out=1, delta=0.0, confidence=0.5)
    scores = np.array([5.0, -1.0, 3.0, 0.0, -7.0, 1.0])
    included = np.array([True, False, True, False, False, True])
    assert evaluate(design, included=included, scores=scores).correct == 3
    assert evaluate(design, included=~included, scores=scores).correct == 0
    included[4] = True  # the lowest score
    result = evaluate(design, included=included, scores=scores)
    assert result.correct == 2
    assert result.lower_bound == design.bound(2)
    everything = AuditDesign(6, 3, 3, 0.0, 0.5)
    assert evaluate(everything, included=scores > 0.5, scores=scores).correct == 6


def test_ties_are_broken_without_a_look_at_inclusion():
    design = AuditDesign(canaries=4, guesses_in=2, guesses_out=1, delta=0.0, confidence=0.5)
    for included, correct in (([0, 0, 1, 1], 3), ([1, 1, 0, 0], 0), ([0, 1, 0, 1], 2)):
        result = evaluate(design, included=np.array(included) == 1, scores=np.zeros(4))
        assert result.correct == correct  # position 0 is guessed out, 2 and 3 in


def test_scores_that_fit_no_design_are_refused():
    design = AuditDesign(3, 1, 0, 0.0, 0.95)
    with pytest.raises(AuditError, match="expected 3"):
        evaluate(design, included=np.ones(2, dtype=bool), scores=np.zeros(2))
    with pytest.raises(AuditError, match="not finite"):
        evaluate(design, included=np.ones(3, dtype=bool), scores=np.array([0.0, np.nan, 1.0]))


@pytest.mark.parametrize(("rate", "sigma"), [(0.2, 0.7), (1.0, 1.3), (1e-4, 0.3)])
def test_the_score_is_the_log_likelihood_ratio(rate, sigma):
    x = np.linspace(-2.0, 3.0, 41)
    mixed = rate * stats.norm(1, sigma).pdf(x) + (1 - rate) * stats.norm(0, sigma).pdf(x)
    found = log_likelihood_ratio(x, sample_rate=rate, noise_multiplier=sigma)
    np.testing.assert_allclose(found, np.log(mixed / stats.norm(0, sigma).pdf(x)), atol=1e-9)
    far = log_likelihood_ratio(np.array([1e4, -1e4]), sample_rate=rate, noise_multiplier=0.05)
    assert np.isfinite(far).all()


CLAIM = PoissonSampledGaussian(sample_rate=0.2, noise_multiplier=2.195, steps=32)
EPSILON = 2.4545  # by PLD at 1e-5


def test_a_design_follows_from_the_claim_and_catches_an_eighth_of_the_noise():
    design = design_audit(CLAIM, epsilon=EPSILON, delta=1e-5)
    assert design == design_audit(CLAIM, epsilon=EPSILON, delta=1e-5)
    assert design.canaries == CANARIES[0]
    found = {f: expected_bound(design, CLAIM, noise_factor=f) for f in (0.0, 1 / 8, 0.5, 1.0)}
    assert found[0.0] == pytest.approx(design.largest_bound)
    assert found[1 / 8] > EPSILON > found[0.5] > found[1.0] > 0.0


def test_a_larger_claim_takes_more_canaries_until_none_are_enough():
    larger = PoissonSampledGaussian(sample_rate=0.2, noise_multiplier=1.161, steps=32)
    assert design_audit(larger, epsilon=6.34, delta=1e-5).canaries > CANARIES[0]
    with pytest.raises(AuditError, match="too large a claim") as caught:
        design_audit(larger, epsilon=9.0, delta=1e-5)
    assert "smaller epsilon" in caught.value.hint
    with pytest.raises(AuditError, match="with 1000 canaries"):
        design_audit(larger, epsilon=6.34, delta=1e-5, canaries=1000)
    assert design_audit(CLAIM, epsilon=EPSILON, delta=1e-5, canaries=1500).canaries == 1500


def test_a_canary_that_is_never_sampled_is_not_guessed_to_be_out():
    """With 65 % of inclusions unseen, guesses 'out' are worth little, and a design makes none."""
    rare = PoissonSampledGaussian(sample_rate=0.1, noise_multiplier=2.136, steps=10)
    assert design_audit(rare, epsilon=0.721, delta=1e-5).guesses_out == 0
    always = PoissonSampledGaussian(sample_rate=1.0, noise_multiplier=5.393, steps=10)
    assert design_audit(always, epsilon=2.383, delta=1e-5).guesses_out > 0


def test_simulated_scores_have_the_law_of_the_mechanism():
    generator = np.random.default_rng(1)
    claim = PoissonSampledGaussian(sample_rate=1.0, noise_multiplier=2.0, steps=3)
    included, scores = simulate_scores(
        claim, canaries=40_000, noise_factor=0.5, generator=generator
    )
    # At q = 1 the score is (sum x - 3 / 2) / sigma^2, and x has half of the claimed noise.
    normalised = (scores * 4.0 + 1.5 - 3.0 * included) / math.sqrt(3.0)
    assert stats.kstest(normalised, "norm").pvalue > 1e-6
    assert stats.kstest(normalised, stats.norm(scale=1.5).cdf).pvalue < 1e-6
    assert abs(included.mean() - 0.5) < 5 * 0.5 / math.sqrt(40_000)
