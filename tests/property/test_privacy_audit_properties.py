"""The lower bound: monotone in what it should be, tight, and within its limits."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.auditing.statistics import AuditDesign, epsilon_lower_bound, evaluate, guess_p_value


@st.composite
def counts(draw):
    guesses = draw(st.integers(1, 400))
    canaries = guesses + draw(st.integers(0, 2000))
    return canaries, guesses, draw(st.integers(0, guesses))


deltas = st.sampled_from([0.0, 1e-7, 1e-5, 1e-3])
confidences = st.floats(0.5, 0.999)


def bound(canaries, guesses, correct, delta, confidence):
    return epsilon_lower_bound(
        canaries=canaries, guesses=guesses, correct=correct, delta=delta, confidence=confidence
    )


@settings(max_examples=100, deadline=None)
@given(counts(), deltas, confidences)
def test_what_is_refuted_is_refuted_and_a_little_more_is_not(found, delta, confidence):
    canaries, guesses, correct = found
    epsilon = bound(canaries, guesses, correct, delta, confidence)

    def p_value(at):
        return guess_p_value(
            canaries=canaries, guesses=guesses, correct=correct, epsilon=at, delta=delta
        )

    assert 0.0 <= epsilon < math.log(max(2, guesses) / (1 - confidence)) + 1
    if epsilon > 0.0:
        assert p_value(epsilon) <= 1.0 - confidence
    assert p_value(epsilon + 2e-6) > 1.0 - confidence


@settings(max_examples=100, deadline=None)
@given(counts(), deltas, confidences)
def test_more_right_guesses_refute_more(found, delta, confidence):
    canaries, guesses, correct = found
    more = min(guesses, correct + 1)
    one, other = (bound(canaries, guesses, v, delta, confidence) for v in (correct, more))
    assert one <= other + 2e-6


@settings(max_examples=100, deadline=None)
@given(counts(), confidences)
def test_delta_abstentions_and_confidence_refute_less(found, confidence):
    canaries, guesses, correct = found
    without = bound(canaries, guesses, correct, 0.0, confidence)
    small, large = (bound(canaries, guesses, correct, d, confidence) for d in (1e-6, 1e-4))
    assert large <= small + 2e-6
    assert small <= without + 2e-6
    assert bound(2 * canaries, guesses, correct, 1e-4, confidence) <= large + 2e-6
    sure = bound(canaries, guesses, correct, 1e-4, (1 + confidence) / 2)
    assert sure <= large + 2e-6


@settings(max_examples=100, deadline=None)
@given(counts(), st.integers(0, 2**32 - 1))
def test_only_the_order_of_scores_matters(found, seed):
    canaries, guesses, guesses_in = found
    design = AuditDesign(canaries, guesses_in, guesses - guesses_in, 1e-5, 0.95)
    generator = np.random.default_rng(seed)
    scores, included = generator.normal(size=canaries), generator.random(canaries) < 0.5
    result = evaluate(design, included=included, scores=scores)
    assert result == evaluate(design, included=included, scores=np.arctan(scores) * 9 - 4)
    assert 0.0 <= result.lower_bound <= design.largest_bound + 2e-6
    perfect = evaluate(design, included=included, scores=included * 4.0 + np.tanh(scores))
    correct_in = min(guesses_in, np.count_nonzero(included))
    correct_out = min(guesses - guesses_in, np.count_nonzero(~included))
    assert perfect.correct == correct_in + correct_out
