"""Skellam noise and secret rounding against their laws; each with arms that must be rejected."""

import itertools
import math
from bisect import bisect_right

import numpy as np
import pytest
from scipy.special import ive
from scipy.stats import chisquare

from privacy.errors import PlanError, TrainingError
from privacy.mechanism.rounding import RandomizedRounding, squared_sensitivity
from privacy.mechanism.skellam import MAX_VARIANCE, SkellamSource, skellam_table, support_of

ACCEPT, REJECT = 1e-6, 1e-12  # p-values: a right sampler fails once in a million runs


def p_value(draws, variance):
    """Of a chi-square test of draws against the Skellam law, tails pooled."""
    reach = int(6 * math.sqrt(variance)) + 2
    k = np.arange(-reach, reach + 1)
    law = ive(np.abs(k).astype(float), float(variance))
    expected = law * len(draws)
    inside = expected >= 20
    low, high = k[inside][0], k[inside][-1]
    counts = np.bincount(np.clip(draws, low - 1, high + 1) - (low - 1), minlength=high - low + 3)
    beyond = (1 - law[inside].sum()) / 2 * len(draws)
    wanted = np.concatenate([[beyond], expected[inside], [beyond]])
    return chisquare(counts, wanted * len(draws) / wanted.sum()).pvalue


@pytest.mark.parametrize("variance", [1, 40, 10_000])
def test_draws_follow_the_law_and_no_other_variance(variance):
    draws = SkellamSource(variance).integers(400_000)
    assert p_value(draws, variance) > ACCEPT
    for factor in (0.9, 1.1):
        assert p_value(draws, variance * factor) < REJECT


@pytest.mark.parametrize("sites", [2, 5])
def test_shares_add_up_to_the_law_of_the_sum(sites):
    draws = sum(SkellamSource(300).integers(300_000) for _ in range(sites))
    assert p_value(draws, 300 * sites) > ACCEPT
    assert p_value(draws, 300 * (sites - 1)) < REJECT  # a site that left its share out
    assert p_value(draws, 300 * (sites + 1)) < REJECT


def test_two_sources_and_two_calls_share_nothing():
    one, two = SkellamSource(1 << 20), SkellamSource(1 << 20)
    first, second, third = one.integers(20_000), two.integers(20_000), one.integers(20_000)
    for left, right in itertools.combinations((first, second, third), 2):
        assert abs(np.corrcoef(left, right)[0, 1]) < 0.05
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.05


@pytest.mark.parametrize("variance", [1, 7, 1000, 123_456])
def test_the_table_is_the_law(variance):
    table = skellam_table(variance)
    k = np.arange(-table.support, table.support)
    law = np.cumsum(ive(np.abs(k).astype(float), float(variance)))
    ours = np.array([t / 2**192 for t in table.thresholds])
    assert np.abs(ours - law).max() < 1e-12  # as far as float64 can tell
    # the law is symmetric, and so is the table, to its last bit but one
    for low, high in zip(table.thresholds, reversed(table.thresholds), strict=True):
        assert abs(low + high - 2**192) <= 1


def test_the_support_holds_all_but_two_to_the_minus_160():
    for variance in (1, 50, 4000):
        reach = support_of(variance)
        # P(X > reach) <= 2 p(reach + 1) where probabilities fall by half or faster, which they
        # do out here; ive still holds 1e-48.
        assert 4 * ive(float(reach + 1), float(variance)) <= 2.0**-160
        assert 4 * ive(float(reach // 2), float(variance)) > 2.0**-160  # and is not far too wide


def test_a_word_that_does_not_decide_draws_more(monkeypatch):
    """The rare branch: the word equals a threshold's first 64 bits, so all 192 are compared."""
    source = SkellamSource(9)
    table = skellam_table(9)
    index = len(table.thresholds) // 2
    word = int(table.high_words[index])
    rest = table.thresholds[index] & ((1 << 128) - 1)

    class Words:
        def __init__(self, tail):
            self.calls = [[word], [tail >> 64, tail & ((1 << 64) - 1)]]

        def words(self, count):
            (next_words, *self.calls) = self.calls
            assert count == len(next_words)
            return np.array(next_words, dtype=np.uint64)

    for tail, expected in ((rest - 1, index), (rest, index + 1), (rest + 1, index + 1)):
        source._words = Words(tail)
        drawn = source.integers(1)[0] + table.support
        assert drawn == expected == bisect_right(table.thresholds, word << 128 | tail)


@pytest.mark.parametrize("variance", [0, -1, 1.5, True, MAX_VARIANCE + 1])
def test_a_variance_out_of_range_is_refused(variance):
    with pytest.raises(PlanError, match="variance"):
        SkellamSource(variance)


# Rounding.


def test_rounding_is_unbiased_and_independent_by_coordinate():
    rounding = RandomizedRounding(granularity=0.5, clamp=1000)
    values = np.tile(np.array([0.1, -0.1, 7.25, -3.5, 0.0]), (40_000, 1))
    rounded = np.stack([rounding.integers(row) for row in values[:4000]])
    exact = values[0] / 0.5
    spread = np.sqrt((exact - np.floor(exact)) * (1 - (exact - np.floor(exact))) / len(rounded))
    assert (np.abs(rounded.mean(axis=0) - exact) <= 6 * spread + 1e-12).all()
    assert abs(np.corrcoef(rounded[:, 0], rounded[:, 1])[0, 1]) < 0.1
    # always to a neighbour, below 0 too
    assert (np.abs(rounded - exact) < 1).all()


def test_values_beyond_the_clamp_are_clamped():
    rounding = RandomizedRounding(granularity=1.0, clamp=5)
    values = np.array([5.0, 5.5, 1e300, -5.0, -7.0, -1e300])
    for _ in range(50):
        assert rounding.integers(values).tolist() == [5, 5, 5, -5, -5, -5]


class SharedWords:
    """The same secret uniforms for two roundings, as in the coupling of the proof."""

    def __init__(self, rng):
        self.rng, self.last = rng, None

    def words(self, count):
        if self.last is None:
            self.last = self.rng.integers(0, 2**64, count, dtype=np.uint64)
            return self.last
        words, self.last = self.last, None
        return words


@pytest.mark.parametrize("dimension", [3, 50, 300, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_search_finds_a_sensitivity_above_the_bound(dimension):
    rng = np.random.default_rng(5)
    rounding = RandomizedRounding(granularity=1.0, clamp=1 << 16)
    rounding._words = SharedWords(rng)
    beta, fineness, trials = 1e-3, 5.0 if dimension > 10 else 0.7, 3000
    norm = fineness * math.sqrt(dimension)
    bound = squared_sensitivity(norm, dimension, beta)
    above = 0
    for trial in range(trials):
        base = rng.normal(scale=30.0, size=dimension)
        direction = [
            rng.normal(size=dimension),
            np.ones(dimension) * rng.choice([-1, 1], dimension),  # spread over all coordinates
            np.eye(dimension)[rng.integers(dimension)],  # all in one
            rng.standard_t(2, size=dimension),
        ][trial % 4]
        moved = base + direction * (norm / np.linalg.norm(direction))
        left, right = rounding.integers(base), rounding.integers(moved)
        above += int(np.sum((left - right) ** 2) > bound)
    assert above <= 2 * beta * trials + 4
    # the failing arm: without the terms that rounding adds, the bound is broken all the time
    if dimension >= 50:
        naive = norm**2
        broken = 0
        for _ in range(200):
            base = rng.normal(scale=30.0, size=dimension)
            moved = base + rng.choice([-1, 1], dimension) * fineness
            left, right = rounding.integers(base), rounding.integers(moved + 0.5)
            broken += int(np.sum((left - right) ** 2) > naive)
        assert broken > 50


def test_the_certain_bound_holds_for_the_worst_rounding():
    # every coordinate crosses an integer: the largest that rounding can ever add
    assert squared_sensitivity(0.001, 100, 1e-300) == pytest.approx((0.001 + 10.0) ** 2, rel=1e-6)


@pytest.mark.parametrize("granularity", [0.0, -1.0, math.inf, math.nan])
def test_a_granularity_out_of_range_is_refused(granularity):
    with pytest.raises(PlanError, match="granularity"):
        RandomizedRounding(granularity=granularity, clamp=10)


@pytest.mark.parametrize("clamp", [0, 1.5, (1 << 20) + 1])
def test_a_clamp_out_of_range_is_refused(clamp):
    with pytest.raises(PlanError, match="clamp"):
        RandomizedRounding(granularity=1.0, clamp=clamp)


@pytest.mark.parametrize("values", [np.array([np.nan]), np.array([np.inf]), np.zeros(2, "f4")])
def test_what_cannot_be_rounded_is_refused(values):
    with pytest.raises(TrainingError, match="finite float64"):
        RandomizedRounding(granularity=1.0, clamp=10).integers(values)
