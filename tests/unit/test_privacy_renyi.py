"""Skellam divergences against numerical integration, in both directions, with failing arms."""

import itertools
import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from scipy.special import ive

from privacy.accounting.skellam_rdp import skellam_divergence, subsampled_divergence
from privacy.mechanism.rounding import squared_sensitivity


def skellam(variance, reach):
    k = np.arange(-reach, reach + 1)
    return ive(np.abs(k).astype(float), float(variance))


def shifted(variance, shift):
    """Noise, and the same noise moved by `shift`, on a common support."""
    reach = int(20 * math.sqrt(variance)) + 40 + shift
    still = skellam(variance, reach)
    moved = skellam(variance, reach + shift)[: 2 * reach + 1]
    held = (still > 1e-290) & (moved > 1e-290)
    return still[held], moved[held]


def divergence(order, p, q):
    return math.log(np.sum(np.exp(order * np.log(p) + (1 - order) * np.log(q)))) / (order - 1)


@pytest.mark.parametrize(
    ("variance", "shift", "order"),
    [
        (variance, shift, order)
        for variance, shift, order in itertools.product(
            (0.5, 2.0, 9.0, 100.0, 2500.0), (1, 2, 5), (2, 3, 8, 20)
        )
        if order * shift <= 6 * variance  # beyond, the sum lives where float64 holds nothing
    ],
)
def test_the_bound_holds_and_is_tight(variance, shift, order):
    p, q = shifted(variance, shift)
    bound = skellam_divergence(order, squared_l2=shift**2, l1=shift, variance=variance)
    exact = divergence(order, p, q)
    assert exact <= bound * (1 + 1e-9)
    if variance == 2500:
        assert exact >= 0.98 * bound
        # the failing arm: a bound for nine tenths of the shift would not hold
        smaller = skellam_divergence(
            order, squared_l2=(0.9 * shift) ** 2, l1=0.9 * shift, variance=variance
        )
        assert exact > smaller


@pytest.mark.parametrize("sample_rate", [0.01, 0.2, 0.7, 1.0])
@pytest.mark.parametrize("variance", [4.0, 60.0])
@pytest.mark.parametrize("shift", [1, 2])
def test_subsampling_bounds_both_directions(sample_rate, variance, shift):
    q, p1 = shifted(variance, shift)
    mixed = (1 - sample_rate) * q + sample_rate * p1
    for order in (2, 3, 6, 12):
        bound = subsampled_divergence(
            order,
            sample_rate,
            lambda k: skellam_divergence(k, squared_l2=shift**2, l1=shift, variance=variance),
        )
        removing, adding = divergence(order, mixed, q), divergence(order, q, mixed)
        assert adding <= removing * (1 + 1e-9) + 1e-13  # Mironov, Talwar and Zhang, Theorem 5
        assert removing <= bound * (1 + 1e-9) + 1e-13
        if variance == 60:
            assert removing >= 0.8 * bound


def test_two_coordinates_are_bounded_by_their_joint_norms():
    variance, order, rate = 6.0, 4, 0.3
    for shift in ((1, 1), (2, 1), (3, 0)):
        one, two = shifted(variance, shift[0]), shifted(variance, shift[1])
        q, p1 = np.outer(one[0], two[0]), np.outer(one[1], two[1])
        mixed = (1 - rate) * q + rate * p1
        squared, l1 = sum(s**2 for s in shift), sum(shift)
        bound = subsampled_divergence(
            order,
            rate,
            lambda k, squared=squared, l1=l1: skellam_divergence(
                k, squared_l2=squared, l1=l1, variance=variance
            ),
        )
        assert divergence(order, mixed, q) <= bound
        assert divergence(order, q, mixed) <= bound


@pytest.mark.parametrize("sample_rate", [0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("noise_multiplier", [0.7, 1.0, 3.0])
def test_agrees_with_the_subsampled_gaussian_in_the_limit(sample_rate, noise_multiplier):
    orders = [2, 3, 6, 17, 64]
    accountant = RdpAccountant(orders)
    accountant.compose(
        dp_accounting.PoissonSampledDpEvent(
            sample_rate, dp_accounting.GaussianDpEvent(noise_multiplier)
        )
    )
    dimension = 100_000
    squared = squared_sensitivity(5 * math.sqrt(dimension), dimension, 1e-12)
    for order, gaussian in zip(orders, accountant.rdp, strict=True):
        ours = subsampled_divergence(
            order,
            sample_rate,
            lambda k: skellam_divergence(
                k,
                squared_l2=squared,
                l1=math.sqrt(dimension * squared),
                variance=noise_multiplier**2 * squared,
            ),
        )
        assert gaussian * (1 - 1e-9) <= ours <= gaussian * 1.001


def test_more_of_anything_costs_no_less():
    def cost(order=4, rate=0.2, squared=100.0, variance=400.0):
        return subsampled_divergence(
            order,
            rate,
            lambda k: skellam_divergence(k, squared_l2=squared, l1=squared, variance=variance),
        )

    for less, more in itertools.pairwise((0.01, 0.1, 0.5, 0.999, 1.0)):
        assert cost(rate=less) < cost(rate=more)
    assert cost(order=3) < cost(order=4) < cost(order=5)
    assert cost(squared=99.0) < cost(squared=100.0)
    assert cost(variance=401.0) < cost(variance=400.0)


def test_costs_beyond_float64_are_infinite_or_large_and_never_small():
    huge = subsampled_divergence(
        100, 0.5, lambda k: skellam_divergence(k, squared_l2=1e9, l1=1e9, variance=1.0)
    )
    assert huge > 1e9


def test_no_divergence_costs_nothing():
    assert subsampled_divergence(5, 0.3, lambda _: 0.0) == 0.0
