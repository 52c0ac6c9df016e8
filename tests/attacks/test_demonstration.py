"""The attacks of `demo aggregation`: each has an arm where it works, and each verdict can turn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from aggregation import Judgement
from aggregation.roles.site_mac import SiteMac
from aggregation.testing import Federation
from fmfl_secure.demonstration import (
    attacks,
    gradient_inversion,
    hostile_sites,
    inversions,
    pictures,
    protected,
)
from fmfl_secure.demonstration.naive import run_naive

SITES = 4
VICTIM = "site-0"


@pytest.fixture(scope="module")
def data():
    return dict(
        zip((f"site-{i}" for i in range(SITES)), pictures.private_pictures(SITES), strict=True)
    )


@pytest.fixture(scope="module")
def plain(data):
    return {name: pictures.unprotected_update(*one) for name, one in data.items()}


@pytest.fixture(scope="module")
def plan():
    return pictures.private_plan(3.0, 1e-5)


@pytest.fixture(scope="module")
def private(data, plan):
    return {name: pictures.private_update(*one, plan) for name, one in data.items()}


def world(private, plan, *, custodians=0):
    largest = plan.max_grad_norm + 6 * plan.noise_stddev
    return protected.new_federation(SITES, custodians, largest)


@pytest.fixture(scope="module")
def rounds(plain, private, plan):
    federation = world(private, plan)
    return attacks.Rounds(
        victim=VICTIM,
        naive=run_naive(plain),
        naive_update=plain[VICTIM],
        here=protected.run_round(federation, 1, private),
        passed=protected.run_round(federation, 2, private, protected.passing_one_upload(VICTIM)),
        altered=protected.run_round(federation, 3, private, protected.adding(1000)),
        constant=1000,
    )


@pytest.fixture(scope="module")
def found(rounds):
    return {attack.id: attack for attack in attacks.run_attacks(rounds)}


FAIL_HERE = [
    "server-alone",
    "key-holder-alone",
    "site-and-server",
    "site-and-key-holder",
    "most-sites",
    "key-recovery",
    "altered-sum",
]


@pytest.mark.parametrize("attack", FAIL_HERE)
def test_an_attack_works_on_the_naive_pattern_and_fails_here(found, attack):
    assert found[attack].naive.succeeded
    assert found[attack].naive.expected
    assert not found[attack].here.succeeded
    assert not found[attack].here.expected


def test_all_other_sites_know_the_last_update_and_it_is_said(found):
    """K - 1 of K: nothing but noise can help, and the verdict must not hide it."""
    attack = found["all-other-sites"]
    assert attack.here.succeeded
    assert attack.here.as_expected
    assert set(found) == {*FAIL_HERE, "all-other-sites"}


def test_with_every_other_site_key_holder_and_server_open_an_upload(rounds):
    """The arm in which collusion works: without it, `most-sites` might fail for a wrong reason."""
    quantization = rounds.here.federation.quantization
    truth = attacks.values_of(rounds.here.integers[VICTIM], quantization)
    read = attacks.opened_by(rounds.here, VICTIM, rounds.others)
    np.testing.assert_array_equal(read, truth)


def test_with_a_custodian_not_even_those_open_an_upload(private, plan):
    """Its stream is on the secret until it gives its word, and its word is of sums only."""
    here = protected.run_round(world(private, plan, custodians=1), 1, private)
    truth = attacks.values_of(here.integers[VICTIM], here.federation.quantization)
    others = [name for name in here.integers if name != VICTIM]
    assert attacks.share_right(attacks.opened_by(here, VICTIM, others), truth) < 0.01
    np.testing.assert_array_equal(attacks.left_of_the_sum(here, VICTIM), truth)


def test_a_sum_that_no_site_checked_would_be_taken(rounds, private, plan, monkeypatch):
    """The verdict on an altered sum is the sites' own: without their check it turns."""
    monkeypatch.setattr(SiteMac, "matches", lambda *_: True)
    altered = protected.run_round(world(private, plan), 1, private, protected.adding(1000))
    assert altered.refusals == {}
    unchecked = attacks.Rounds(
        rounds.victim, rounds.naive, rounds.naive_update, rounds.here, rounds.passed, altered, 1000
    )
    attack = {each.id: each for each in attacks.run_attacks(unchecked)}["altered-sum"]
    assert attack.here.succeeded
    assert not attack.here.as_expected


def test_the_picture_is_exact_from_one_unprotected_update(data, plain):
    for name, (picture, _) in data.items():
        _, alike = gradient_inversion.best(gradient_inversion.invert(plain[name]), picture)
        assert alike > 0.9999


def test_what_everyone_gets_shows_no_picture_and_the_sum_without_noise_does(rounds, data, plain):
    total = np.sum(list(plain.values()), axis=0)
    made = {one.id: one for one in inversions.run_inversions(rounds, data[VICTIM][0], total)}
    assert all(one.outcome.as_expected for one in made.values())
    assert made["naive-upload"].likeness > 0.99
    assert made["sum-without-noise"].likeness > 0.8
    for name in ("masked-upload", "collusion", "released-sum", "all-other-sites"):
        assert abs(made[name].likeness) < 0.25, name


def test_noise_is_what_hides_the_picture(data, plan):
    """The reject arm: clipped all the same, with a thousandth of the noise, it is read."""
    picture, label = data[VICTIM]
    loose = dataclasses.replace(plan, noise_multiplier=plan.noise_multiplier / 1000)
    update = pictures.private_update(picture, label, loose)
    _, alike = gradient_inversion.best(gradient_inversion.invert(update), picture)
    assert alike > gradient_inversion.READABLE


def test_the_best_of_many_looks_at_noise_is_no_likeness(data):
    """The threshold is far from what looking at sixteen pictures of noise gives by chance."""
    rng = np.random.default_rng(0)
    truth = data[VICTIM][0]
    size = sum(pictures.SIZES)
    best = [
        gradient_inversion.best(gradient_inversion.invert(rng.normal(size=size)), truth)[1]
        for _ in range(100)
    ]
    assert max(best) < gradient_inversion.READABLE / 2


def test_a_hostile_site_rules_the_naive_pattern_and_is_named_here(plain):
    """What its update is too large for, and what it spoils: each names it, and nobody else."""
    found = {attack.id: attack for attack in hostile_sites.run_hostile(plain, "site-2")}
    assert set(found) == {"scaled-update", "spoiled-sum"}
    for attack in found.values():
        assert attack.naive.succeeded
        assert attack.naive.as_expected
        assert not attack.here.succeeded
        assert attack.here.as_expected
    assert found["scaled-update"].here.figure == "named: site-2"
    assert "site-2: the secret that it sealed" in found["spoiled-sum"].here.figure


def test_without_the_judgement_the_verdict_turns(plain, monkeypatch):
    """The reject arm: where nobody judges, it is named by nobody, and that is a surprise."""
    monkeypatch.setattr(Federation, "judge", lambda *_: Judgement())
    found = {attack.id: attack for attack in hostile_sites.run_hostile(plain, "site-2")}
    assert found["spoiled-sum"].here.succeeded
    assert not found["spoiled-sum"].here.as_expected
