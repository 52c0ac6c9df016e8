"""What tells members apart, and what (epsilon, delta)-DP lets anybody tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from privacy import AuditError
from privacy.auditing import (
    exposure,
    most_auc,
    most_exposed,
    most_right_site,
    most_true_positives,
    told_apart,
    true_positives,
)


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, 0.0), (1.0, 1e-5), (3.0, 0.01), (8.0, 0.0)])
def test_the_area_is_that_below_the_curve(epsilon: float, delta: float) -> None:
    area, _ = quad(
        lambda f: most_true_positives(f, epsilon=epsilon, delta=delta), 0, 1, points=[0.001, 0.5]
    )
    assert most_auc(epsilon=epsilon, delta=delta) == pytest.approx(area, abs=1e-6)


def test_without_a_promise_everything_may_be_told() -> None:
    assert most_auc(epsilon=math.inf, delta=0.0) == 1.0
    assert most_true_positives(0.0, epsilon=math.inf, delta=0.0) == 1.0
    assert most_right_site(4, epsilon=math.inf, delta=0.0) == 1.0
    assert most_auc(epsilon=0.0, delta=0.0) == 0.5
    assert most_right_site(4, epsilon=0.0, delta=0.0) == pytest.approx(0.25)


def test_randomised_response_reaches_the_bound_and_a_leak_is_above_it() -> None:
    """The mechanism that the bound is sharp for: says the truth with odds of e^epsilon."""
    epsilon, size = 1.0, 20_000
    generator = np.random.default_rng(1)
    truth = generator.random(size) < math.e / (1 + math.e)
    members, others = truth.astype(float), 1.0 - truth.astype(float)
    found = told_apart(members, others, confidence=0.99)
    assert found.low <= most_auc(epsilon=epsilon, delta=0.0) <= found.high
    leaking = told_apart(generator.normal(2.0, 1.0, size), generator.normal(0.0, 1.0, size),
                         confidence=0.99)  # fmt: skip
    assert leaking.low > most_auc(epsilon=epsilon, delta=0.0)
    assert leaking.auc == pytest.approx(norm.cdf(2.0 / math.sqrt(2.0)), abs=0.01)


def test_the_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    truth = norm.cdf(1.0 / math.sqrt(2.0))
    held = [
        found.low <= truth <= found.high
        for _ in range(400)
        for found in [
            told_apart(generator.normal(1, 1, 25), generator.normal(0, 1, 40), confidence=0.95)
        ]
    ]
    assert np.mean(held) >= 0.95
    whole = told_apart(np.ones(8), np.zeros(8), confidence=0.95)
    assert whole.auc == 1.0
    assert 0.6 < whole.low < 0.7  # of eight on each side nothing is certain


def test_ties_tell_nothing() -> None:
    assert told_apart(np.zeros(5), np.zeros(7), confidence=0.95).auc == 0.5
    assert true_positives(np.zeros(5), np.zeros(7), false_positives=0.1) == 0.0
    assert exposure(1.0, np.ones(1024)) == 0.0


@pytest.mark.parametrize(("allowed", "expected"), [(0.0, 0.4), (0.1, 0.4), (0.2, 0.6), (1.0, 1.0)])
def test_true_positives_at_a_threshold(allowed: float, expected: float) -> None:
    members = np.array([0.5, 2.5, 4.5, 6.0, 7.0])
    others = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert true_positives(members, others, false_positives=allowed) == expected


def test_exposure_is_in_bits_of_the_rank() -> None:
    losses = np.arange(1024, dtype=float)
    assert exposure(0.0, losses) == 10.0
    assert exposure(511.0, losses) == pytest.approx(1.0)
    assert exposure(1023.0, losses) == 0.0


def test_what_epsilon_allows_of_a_secret() -> None:
    assert most_exposed(10.0, epsilon=1.0, delta=0.0) == pytest.approx(math.e / 1024)
    assert most_exposed(10.0, epsilon=1.0, delta=0.0, units=4) == pytest.approx(math.e**4 / 1024)
    assert most_exposed(0.0, epsilon=0.0, delta=0.0) == 1.0
    assert most_exposed(10.0, epsilon=8.0, delta=1e-5, units=100) == 1.0


def test_scores_that_are_none_are_refused() -> None:
    with pytest.raises(AuditError, match="some of both"):
        told_apart(np.empty(0), np.ones(3), confidence=0.95)
    with pytest.raises(AuditError, match="not finite"):
        true_positives(np.array([math.nan]), np.ones(3), false_positives=0.1)
    with pytest.raises(AuditError, match="2 finite ones"):
        exposure(1.0, np.ones(1))
