"""Who is left out where sums are spoiled and nobody knows by whom: few rounds are lost to one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fmfl_secure.runtime.suspicion import ATTEMPTS, Suspicion
from fmfl_secure.storage.message_memory import MemoryMessageStore

RUN = "ab" * 8


class Rounds:
    """Rounds of a run in which one site spoils sums when it likes."""

    def __init__(self, sites: int, least: int) -> None:
        self.sites = [f"site-{n}" for n in range(1, sites + 1)]
        self.least = least
        self.total = 0
        self.store = MemoryMessageStore()
        self.suspicion = self.opened()
        self.lost: list[int] = []
        self.cohorts: list[list[str]] = []

    def opened(self) -> Suspicion:
        return Suspicion(self.store, RUN, lambda: self.total)

    def enough(self, names) -> bool:
        return len(names) >= self.least

    def all_there(self, cohort: list[str]) -> bool:
        return len(cohort) == len(self.sites)

    def play(self, rounds: int, bad: str, spoils: Callable[[list[str]], bool]) -> None:
        for number in range(1, rounds + 1):
            out = self.suspicion.of()
            cohort = [name for name in self.sites if name not in out]
            assert self.enough(cohort)
            self.cohorts.append(cohort)
            self.total += 1
            if bad in cohort and spoils(cohort):
                self.lost.append(number)
                self.suspicion.spoiled((number, 1), cohort, self.sites, self.enough)


def most_lost(sites: int, least: int, rounds: int) -> int:
    """One that is forgiven, those after which others were out, and then one of six."""
    most, out, searching = sites, sites - least, 1
    while most > 1:
        most -= min(out, (most + 1) // 2)
        searching += 1
    return searching + out.bit_length() + rounds // (ATTEMPTS + 1)


def at_random(choose: random.Random) -> Callable[[list[str]], bool]:
    often = choose.random()
    return lambda _: choose.random() < often


CASES = [(4, 3), (5, 4), (6, 4), (8, 6), (12, 8), (20, 14)]


@pytest.mark.parametrize(("sites", "least"), CASES)
def test_one_that_always_spoils_loses_few_and_keeps_no_other_out_for_ever(
    sites: int, least: int
) -> None:
    for bad in (f"site-{n}" for n in range(1, sites + 1)):
        rounds = Rounds(sites, least)
        rounds.play(60, bad, lambda _: True)
        assert len(rounds.lost) <= most_lost(sites, least, 60)
        for name in set(rounds.sites) - {bad}:
            assert sum(name in cohort for cohort in rounds.cohorts) >= 40, name


@pytest.mark.parametrize(("sites", "least"), CASES)
def test_one_that_spoils_when_it_likes_does_not_lose_more(sites: int, least: int) -> None:
    """At random, and only when all whom it shares the suspicion with are there to be suspected."""
    choose = random.Random(1)
    for case in range(40):
        bad = f"site-{choose.randint(1, sites)}"
        rounds = Rounds(sites, least)
        rounds.play(60, bad, at_random(choose) if case % 2 else rounds.all_there)
        assert len(rounds.lost) <= most_lost(sites, least, 60)


def test_it_always_has_most_whatever_it_does() -> None:
    """So it is never others alone who are left out for ever: they are out for five attempts."""
    choose = random.Random(2)
    rounds = Rounds(8, 6)
    rounds.play(300, "site-5", lambda _: choose.random() < 0.3)
    cohorts = [set(rounds.cohorts[number - 1]) for number in rounds.lost]
    count = {name: sum(name in each for each in cohorts) for name in rounds.sites}
    assert count["site-5"] == len(rounds.lost) == max(count.values())


def test_one_accident_costs_nobody_a_round() -> None:
    rounds = Rounds(8, 6)
    rounds.play(20, "site-1", lambda _: rounds.total == 3)
    assert rounds.lost == [3]
    assert all(len(cohort) == 8 for cohort in rounds.cohorts)


def test_where_all_are_needed_nobody_is_left_out() -> None:
    rounds = Rounds(4, 4)
    rounds.play(6, "site-2", lambda _: True)
    assert rounds.lost == [1, 2, 3, 4, 5, 6]
    assert rounds.suspicion.of() == ()


def test_it_is_kept_over_a_restart() -> None:
    rounds = Rounds(8, 6)
    rounds.play(2, "site-8", lambda _: True)
    out = rounds.suspicion.of()
    assert out == ("site-3", "site-4")
    rounds.suspicion = rounds.opened()
    assert rounds.suspicion.of() == out


def test_a_retry_counts_once() -> None:
    """Noted again after a restart, a loss is the same loss."""
    rounds = Rounds(8, 6)
    for _ in range(3):
        rounds.suspicion.spoiled((1, 1), rounds.sites, rounds.sites, rounds.enough)
    assert rounds.suspicion.of() == ()
