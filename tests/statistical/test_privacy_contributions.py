"""A cap on a unit's records: uniform, fresh, and drawn for each unit alone."""

import numpy as np
import pytest

from privacy import PlanError
from privacy.mechanism.sampling import cap_contributions

LIMIT = 5.0  # standard deviations: a right draw fails once in 1.7 million
DRAWS, RECORDS, KEPT = 4000, 10, 4


def unit(start, records):
    return np.arange(start, start + records, dtype=np.int64)


def included(draw):
    """DRAWS x RECORDS of whether a record was kept."""
    kept = np.zeros((DRAWS, RECORDS))
    for row in kept:
        row[draw()] = 1
    return kept


def z_of_correlation(left, right):
    return float(np.corrcoef(left, right)[0, 1]) * np.sqrt(DRAWS)


def test_units_keep_so_many_of_their_own_records_and_their_order():
    units = [unit(0, 3), unit(3, 500), unit(503, 4), unit(507, 5)]
    capped = cap_contributions(units, 4)
    assert [len(each) for each in capped] == [3, 4, 4, 4]
    for whole, some in zip(units, capped, strict=True):
        assert some.dtype == np.int64
        assert set(some) <= set(whole)
        assert np.all(np.diff(some) > 0)
    assert np.array_equal(capped[0], units[0])
    assert [len(each) for each in units] == [3, 500, 4, 5], "what is passed in is left alone"
    assert cap_contributions([], 1) == []
    with pytest.raises(PlanError, match="at_most is 0"):
        cap_contributions(units, 0)


def test_each_record_is_kept_equally_often_and_anew_each_time():
    kept = included(lambda: cap_contributions([unit(0, RECORDS)], KEPT)[0])
    rate = KEPT / RECORDS

    def z(counts, expected):
        return np.abs(counts - DRAWS * expected).max() / np.sqrt(DRAWS * rate * (1 - rate))

    assert z(kept.sum(axis=0), rate) < LIMIT
    first = included(lambda: unit(0, KEPT))  # the reject arm: always the first ones
    assert z(first.sum(axis=0), rate) > LIMIT
    # One draw says nothing of the next.
    assert abs(z_of_correlation(kept[:-1, 0], kept[1:, 0])) < LIMIT


def test_one_unit_s_draw_says_nothing_of_another_s():
    together = [unit(0, RECORDS), unit(RECORDS, RECORDS)]

    def both(draw):
        pairs = [draw() for _ in range(DRAWS)]
        return [sum(each == 0 for each in p[0]) for p in pairs], [
            sum(each == RECORDS for each in p[1]) for p in pairs
        ]

    assert abs(z_of_correlation(*both(lambda: cap_contributions(together, KEPT)))) < LIMIT

    def at_the_same_places():  # the reject arm: coins that units share
        places = np.random.default_rng().choice(RECORDS, KEPT, replace=False)
        return [each[places] for each in together]

    assert abs(z_of_correlation(*both(at_the_same_places))) > LIMIT


def test_a_unit_more_takes_no_coin_of_another_s(monkeypatch):
    """Coupled on each unit's own coins, two data sets that differ in a unit agree on all others."""

    class Coins:
        def sample(self, population, k):
            assert population == range(len(population)), (
                "it sees how many records, and nothing else"
            )
            coins = np.random.default_rng(len(population))  # a unit's own: each has its own length
            return list(coins.choice(len(population), k, replace=False))

    monkeypatch.setattr("privacy.mechanism.sampling.random.SystemRandom", Coins)
    units = [unit(0, 7), unit(7, 30), unit(37, 12)]
    with_all = cap_contributions(units, 3)
    without = cap_contributions([units[0], units[2]], 3)
    assert np.array_equal(with_all[0], without[0])
    assert np.array_equal(with_all[2], without[1])


def test_seeds_do_not_drive_it(monkeypatch):
    import random

    draws = []
    for _ in range(2):
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 - the global generator is the one to try
        draws.append(cap_contributions([unit(0, 10_000)], 20)[0])
    assert not np.array_equal(*draws)
