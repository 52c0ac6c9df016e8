"""The tails that docs/protocol.md states of projections: its lemma in numbers, and rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from aggregation.crypto.projections import FEW_ROWS, ROWS, Signs
from aggregation.protocol.norms import SLACK

KEYS = 4000
SIZE = 1024


def missed(theta: float, rows: int) -> float:
    """At most how often |e| theta times beyond a limit is not noticed."""
    return (math.exp(0.5 / theta**2) / math.sqrt(2)) ** rows


def false_alarm(slack: float, rows: int) -> float:
    """At most how often a vector of the largest norm is beyond the limit."""
    r = slack**2
    return math.exp(-rows / 2 * (r - 1 - math.log(r)))


def test_no_vector_makes_a_product_smaller_than_gaussians_do() -> None:
    """F(a) = E |cos(a g)|^(1/a^2) <= 2^-1/2 for 0 < a <= 1, which the lower tail rests on."""
    small = np.linspace(0.01, 0.6, 60)
    room = small**2 / 16 - 35 * small**4 / 1536
    assert (math.sqrt(2) * 2 * norm.sf(np.pi / 2 / small) <= room).all()
    g = np.linspace(-9, 9, 20_001)
    density = np.exp(-g * g / 2) / np.exp(-g * g / 2).sum()
    large = np.linspace(0.6, 1.0, 201)
    found = np.array([density @ np.abs(np.cos(a * g)) ** (1 / a**2) for a in large])
    assert np.abs(np.diff(found)).max() < 1e-3  # so nothing lies hidden between two points
    assert found.max() + 1e-3 < 2**-0.5


def vectors() -> np.ndarray:
    """What an adversary may choose, each of norm 1: spread, on few values, on two, on one."""
    rng = np.random.default_rng(24)
    spread, few, two, one = (np.zeros(SIZE) for _ in range(4))
    spread[:] = rng.normal(size=SIZE)
    few[:75] = rng.choice([-1.0, 1.0], 75)
    two[:2] = 1.0
    one[0] = 1.0
    return np.array([v / np.linalg.norm(v) for v in (spread, np.ones(SIZE), few, two, one)])


@pytest.fixture(scope="module")
def lengths() -> np.ndarray:
    """|P e| / sqrt(J) over many challenges, shape (keys, vectors)."""
    steps = 32_767
    integers = np.round(vectors() * steps).astype(np.int64)
    exact = np.linalg.norm(integers, axis=1)
    sizes = (SIZE,) * len(integers)
    found = []
    for key in range(KEYS):
        projected = Signs(key.to_bytes(32, "big"), sizes).project(integers.ravel(), steps)
        found.append(np.linalg.norm(projected.reshape(-1, ROWS), axis=1) / math.sqrt(ROWS) / exact)
    return np.array(found)


@pytest.mark.parametrize("theta", [1.3, 1.35, 1.4])
def test_what_is_beyond_the_limit_is_seldom_missed(lengths: np.ndarray, theta: float) -> None:
    rates = (lengths <= 1 / theta).mean(axis=0)
    assert (rates <= missed(theta, ROWS) + 4 * math.sqrt(missed(theta, ROWS) / KEYS)).all()


def test_a_limit_without_slack_would_be_missed_half_the_time(lengths: np.ndarray) -> None:
    rates = (lengths <= 1.0).mean(axis=0)
    assert ((rates[:4] > 0.4) & (rates[:4] < 0.65)).all()
    assert not (rates[:4] <= missed(1.4, ROWS)).any()


def test_no_update_of_the_largest_norm_is_beyond_its_limit(lengths: np.ndarray) -> None:
    assert lengths.max() <= SLACK[ROWS]
    # And a limit with a fifth less than half of that slack would refuse honest ones.
    assert (lengths > 1.2).any()


def test_the_stated_odds_are_the_bounds() -> None:
    assert false_alarm(SLACK[ROWS], ROWS) < 4e-12
    assert false_alarm(SLACK[FEW_ROWS], FEW_ROWS) < 7e-12
    stated = {1.5: 3.6e-4, 1.6: 6.3e-5, 1.75: 8.1e-6, 2.0: 7e-7}
    assert all(missed(theta, ROWS) <= most for theta, most in stated.items())
    assert missed(2.0, FEW_ROWS) <= 8.4e-4
    assert missed(2.5, FEW_ROWS) <= 2e-4
