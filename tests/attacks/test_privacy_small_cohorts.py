"""Coordinator and decryptor in league, against noise in shares: a cohort smaller than accounted.

Five sites calibrate their shares for sums of five. Where a sum of three opens, its noise is that
of three, and a unit has spent more than its site's ledger says.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from league import League
from msgspec.structs import replace
from support import Quiet, leave_no_records, make_federation

import aggregation
from aggregation import (
    Decryptor,
    Identity,
    MemoryJournal,
    PlanError,
)
from aggregation.errors import CohortError
from fmfl_secure.errors import RunError
from fmfl_secure.parties.site import Site
from fmfl_secure.planning.noise import distributed_plan
from fmfl_secure.settings.federation import FederationConfig, load_federation
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger
from privacy.accounting.rdp import (
    add_costs,
    epsilon_spent,
    filter_delta,
    filter_orders,
    rdp_cost,
    zero_cost,
)
from privacy.mechanism.distributed import DistributedPlan

NAMES = tuple(f"site-{n}" for n in range(1, 6))
THREE = NAMES[:3]
PRIVACY = 'noise = "distributed"\ninsider_epsilon = 30.0\ndelta = 1e-4\ncolluding_sites = 1\n'


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    make_federation(
        folder, tiny_model, sites=5, rounds=2, steps=1, privacy=PRIVACY,
        federation="min_sites = 5", evaluation=False,
    )  # fmt: skip
    for name in NAMES:  # whose own rule would let three do
        file = folder / f"sites/{name}/site.toml"
        text = file.read_text()
        assert "min_sites = 5" in text
        file.write_text(text.replace("min_sites = 5", "min_sites = 3"))
    return folder


def commits(folder: Path) -> list[int]:
    return [
        sum(
            len(held.commits)
            for held in Ledger(folder / f"sites/{name}/ledger.sqlite")
            .budget()
            .reservations.values()
        )
        for name in NAMES
    ]


def epsilon(plan: DistributedPlan, at: float) -> float:
    """What all rounds and repeats cost, as a ledger with a grant of so much counts."""
    orders = filter_orders(at, plan.delta)
    cost = rdp_cost(plan.round_event(), orders)
    total = add_costs(zero_cost(orders), cost, plan.rounds + plan.repeats)
    return epsilon_spent(total, filter_delta(plan.delta))


def test_a_sum_of_three_costs_more_than_is_charged_for_five(template: Path) -> None:
    config = load_federation(template / "federation.toml")
    plan = distributed_plan(config, config.sites[0], 98)
    assert plan.min_cohort == 5
    three = dataclasses.replace(plan, min_cohort=3)
    assert three.share_variance == plan.share_variance
    charged = epsilon(plan, config.privacy.epsilon)
    spent = min(
        epsilon(three, at) for at in (8.0, 12.0, 16.0, 24.0)
    )  # the best it can be said to be
    assert 7.5 < charged <= 8.0
    assert spent > 1.4 * charged


def test_where_nobody_checks_the_sum_of_three_opens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack, at sites that go by their own policy alone."""
    monkeypatch.setattr("fmfl_secure.parties.site.difference", lambda *_: None)
    monkeypatch.setattr(Site, "_min_cohort", 3)
    monkeypatch.setattr(FederationConfig, "floor", lambda *_: 0)
    league = League(folder)
    plan = league.plan(THREE, min_cohort=3)
    attempts, updates = {}, {}
    for name in THREE:
        site = league.sites[name]
        attempts[name] = site.admit(plan, league.adapter)
        updates[name] = site.train(attempts[name].plan, league.adapter)
    total = league.open(plan, attempts, updates)
    assert np.array_equal(total, np.sum([u.astype(np.int64) for u in updates.values()], axis=0))
    assert commits(folder) == [1, 1, 1, 0, 0]
    # And the ledger was charged for the noise of five.
    (held,) = league.sites["site-1"]._ledger.budget().reservations.values()
    plan_of_site = distributed_plan(league.config, league.config.sites[0], league.size)
    assert held.event == plan_of_site.round_event()


@pytest.mark.parametrize("invited", [THREE, NAMES], ids=["three invited", "five invited"])
def test_a_plan_for_a_smaller_cohort_is_refused_by_every_site(
    folder: Path, invited: tuple[str, ...]
) -> None:
    league = League(folder)
    plan = league.plan(invited, min_cohort=3)
    for name in invited:
        with pytest.raises((RunError, PlanError), match=r"smallest cohort|fewer than min_cohort 5"):
            league.sites[name].admit(plan, league.adapter)
    assert commits(folder) == [0] * 5
    for name in NAMES:  # and all of them take the plan that was agreed
        league.sites[name].admit(league.sign(league.honest), league.adapter)


def test_a_smaller_cohort_of_an_agreed_plan_gets_no_upload(folder: Path) -> None:
    league = League(folder)
    plan = league.plan(NAMES, min_cohort=5)
    attempts = {name: league.sites[name].admit(plan, league.adapter) for name in NAMES}
    cohort = league.cohort(plan, {name: attempts[name] for name in THREE})
    for name in THREE:
        with pytest.raises(CohortError, match="below the plan's min_cohort 5"):
            attempts[name].exchange(cohort)
        with pytest.raises(CohortError, match="below the plan's min_cohort 5"):
            attempts[name].upload(cohort, np.zeros(league.size, dtype=np.int32))


def test_the_fixed_cohort_is_held_to_the_accounting_whatever_the_plan_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second lock behind the first: were the plan's own number believed, the cohort is not."""
    monkeypatch.setattr("fmfl_secure.parties.site.difference", lambda *_: None)
    league = League(folder)
    plan = league.plan(NAMES, min_cohort=3)
    attempts = {name: league.sites[name].admit(plan, league.adapter) for name in NAMES}
    cohort = league.cohort(plan, {name: attempts[name] for name in THREE})
    for name in THREE:
        with pytest.raises(PlanError, match=r"3 pinned sites.*fewer than min_cohort 5"):
            attempts[name].exchange(cohort)
        with pytest.raises(PlanError, match=r"3 pinned sites.*fewer than min_cohort 5"):
            attempts[name].upload(cohort, np.zeros(league.size, dtype=np.int32))


def test_the_accounting_counts_where_settings_and_policy_would_not(folder: Path) -> None:
    """The floor is the largest of the three numbers, whichever that is."""
    league = League(folder)
    site = league.sites["site-1"]
    assert site._min_cohort == 5
    config = site._config
    fewer = replace(config, federation=replace(config.federation, min_sites=3))
    site._config = fewer
    assert site._min_cohort == 5, "calibrated for five"
    site._plan = dataclasses.replace(site._plan, min_cohort=4)
    assert site._min_cohort == 4
    site._plan = None
    assert site._min_cohort == 3
    site._config = config
    assert site._min_cohort == 5


def test_an_engine_in_league_ends_with_nothing_charged(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    sign = aggregation.Coordinator.plan
    monkeypatch.setattr(
        aggregation.Coordinator, "plan", lambda self, plan: sign(self, replace(plan, min_cohort=3))
    )
    monkeypatch.setattr(
        "fmfl_secure.transports.local.engine.open_decryptor",
        lambda folder, *, members, **_: Decryptor(
            Identity.load(folder / "identity.pem", "decryptor"),
            MemoryJournal(),
            coordinator=members.coordinator,
            pinned=members.pinned,
        ),
    )
    leave_no_records(folder / "data")  # were they read, that would be what is complained about
    observer = Quiet()
    engine = LocalEngine(
        folder / "federation.toml", folder / "run", resume=False, observer=observer
    )
    with pytest.raises(RunError, match="4 sites are left for round 1"):
        engine.run()
    assert observer.refused == {
        "site-1": ("run", "site-1: the plan's smallest cohort is not the one agreed here")
    }, "with one gone, nobody else is asked in vain"
    assert commits(folder) == [0] * 5
