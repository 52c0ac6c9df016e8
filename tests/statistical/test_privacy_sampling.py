"""Poisson sampling against its declared rate; each statistic has an arm that it rejects.

Every z statistic is held to five standard deviations: a right sampler fails once in 1.7 million.
"""

import itertools
import os
import random
import types

import numpy as np
import pytest
import torch

from privacy import PlanError
from privacy.mechanism.sampling import poisson_sample

LIMIT = 5.0
UNITS, RATE = 400_000, 0.07


def z_of_count(count, trials, rate):
    return (count - trials * rate) / np.sqrt(trials * rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.005, 0.07, 0.5, 0.999])
def test_units_are_included_at_the_declared_rate(rate):
    sample = poisson_sample(UNITS, rate)
    assert sample.dtype == np.int64
    assert np.all(np.diff(sample) > 0)
    assert sample[0] >= 0
    assert sample[-1] < UNITS
    assert abs(z_of_count(len(sample), UNITS, rate)) < LIMIT
    for wrong in (rate * 2 / 3, min(rate * 3 / 2, 1 - 1e-9)):
        assert abs(z_of_count(len(sample), UNITS, wrong)) > LIMIT


def test_every_unit_alike():
    """Counts of a unit over steps spread as a binomial: 64 units, 4,000 steps."""
    units, steps, rate = 64, 4000, 0.2
    counts = np.zeros(units)
    for _ in range(steps):
        counts[poisson_sample(units, rate)] += 1

    def z_of_spread(values):  # chi-squared of 64 degrees, by Wilson and Hilferty
        chi2 = np.sum((values - steps * rate) ** 2) / (steps * rate * (1 - rate))
        return ((chi2 / units) ** (1 / 3) - (1 - 2 / (9 * units))) / np.sqrt(2 / (9 * units))

    assert abs(z_of_spread(counts)) < LIMIT
    favoured = counts.copy()
    favoured[0] += 0.3 * steps  # the reject arm: one unit at rate 0.5
    assert z_of_spread(favoured) > LIMIT


def test_batch_sizes_vary_as_independent_inclusions_do():
    """Shuffled or fixed-size batches, accounted as Poisson, claim too small an epsilon."""
    units, steps, rate = 500, 3000, 0.1

    def z_of_variance(sizes):
        expected = units * rate * (1 - rate)
        return (np.var(sizes) / expected - 1) / np.sqrt(2 / steps)

    poisson = [len(poisson_sample(units, rate)) for _ in range(steps)]
    assert abs(z_of_variance(poisson)) < LIMIT
    assert z_of_variance([round(units * rate)] * steps) < -LIMIT


def test_steps_are_independent():
    units, rate = 200_000, 0.3

    def z_of_overlap(first, second):
        both = len(np.intersect1d(first, second))
        return z_of_count(both, units, rate * rate)

    steps = [poisson_sample(units, rate) for _ in range(4)]
    for first, second in itertools.pairwise(steps):
        assert abs(z_of_overlap(first, second)) < LIMIT
    # the reject arm: a sampler that keeps 5 % of its batch for the next step
    kept = steps[0][: len(steps[0]) // 20]
    assert z_of_overlap(steps[0], np.union1d(kept, steps[1])) > LIMIT


def test_neighbouring_units_are_independent():
    units, rate = 400_000, 0.3
    included = np.zeros(units, dtype=bool)
    included[poisson_sample(units, rate)] = True
    pairs = units // 2
    both = np.count_nonzero(included[0::2] & included[1::2])
    assert abs(z_of_count(both, pairs, rate**2)) < LIMIT
    blocks = np.repeat(included[: units // 2], 2)  # the reject arm: included two at a time
    assert z_of_count(np.count_nonzero(blocks[0::2] & blocks[1::2]), pairs, rate**2) > LIMIT


def test_empty_and_full_cases():
    assert poisson_sample(0, 0.5).shape == (0,)
    assert poisson_sample(0, 1.0).shape == (0,)
    assert poisson_sample(1000, 2.0**-70).shape == (0,)  # rounded down, never up
    np.testing.assert_array_equal(poisson_sample(1000, 1.0), np.arange(1000))
    sizes = {len(poisson_sample(3, 0.05)) for _ in range(200)}
    assert 0 in sizes  # an empty batch is a possible outcome, not an error


@pytest.mark.parametrize(
    ("units", "rate"), [(-1, 0.5), (5, 0.0), (5, -0.1), (5, 1.01), (5, float("nan"))]
)
def test_refusals(units, rate):
    with pytest.raises(PlanError):
        poisson_sample(units, rate)


def test_inclusion_rounds_the_rate_down_to_a_multiple_of_2_to_the_minus_64(monkeypatch):
    rate = 0.25
    words = np.array([0, 2**62 - 1, 2**62, 2**64 - 1], dtype=np.uint64)
    fake = types.SimpleNamespace(urandom=lambda size: words.tobytes()[:size])
    monkeypatch.setattr("privacy.mechanism.sampling.os", fake)
    np.testing.assert_array_equal(poisson_sample(4, rate), [0, 1])


def seed_everything():
    random.seed(7)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)


def test_seeds_do_not_drive_sampling():
    seed_everything()
    first = poisson_sample(1000, 0.5)
    seed_everything()
    assert not np.array_equal(first, poisson_sample(1000, 0.5))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_processes_sample_differently():
    def child():
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(writing, poisson_sample(512, 0.5).astype(np.int16).tobytes())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(writing)
        with os.fdopen(reading, "rb") as stream:
            return stream.read()

    samples = [child(), child(), poisson_sample(512, 0.5).astype(np.int16).tobytes()]
    assert len(set(samples)) == 3
    assert all(samples)
