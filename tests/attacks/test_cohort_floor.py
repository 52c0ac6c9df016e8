"""Whoever picks a cohort fills it with the fewest, all colluding but one.

Six sites, min_sites 3. Coordinator, aggregator, decryptor and two sites in one hand put together a
cohort of three, and take the two updates that they know from its sum.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from league import League
from msgspec.structs import replace
from support import make_federation

from aggregation import Custodian, Decryptor, MemoryJournal, PlanError
from fmfl_secure.demonstration.collusion import last_of_the_sum
from fmfl_secure.parties.decryptor import open_decryptor
from fmfl_secure.parties.workspace import Members
from fmfl_secure.settings.federation import FederationConfig, load_federation
from privacy import PolicyRefusal

NAMES = tuple(f"site-{n}" for n in range(1, 7))
VICTIM, COLLUDERS = "site-1", ("site-2", "site-3")
THREE = (VICTIM, *COLLUDERS)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    make_federation(folder, tiny_model, sites=6, rounds=2, steps=1, evaluation=False)
    return folder


def test_by_the_rule_of_0_1_0_two_colluders_of_five_read_an_update(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FederationConfig, "floor", lambda *_: 0)
    league = League(folder)
    plan = league.plan(THREE, min_cohort=3)
    attempts = {name: league.sites[name].admit(plan, league.adapter) for name in THREE}
    updates = {
        name: league.sites[name].train(attempts[name].plan, league.adapter) for name in THREE
    }
    total = league.open(plan, attempts, updates)
    read = last_of_the_sum(total, [updates[name] for name in COLLUDERS])
    assert np.array_equal(read, updates[VICTIM])


def test_the_victim_itself_refuses_before_anything_is_charged(folder: Path) -> None:
    league = League(folder)
    plan = league.plan(THREE, min_cohort=3)
    with pytest.raises(PlanError, match="3 pinned sites are fewer than the 4"):
        league.sites[VICTIM].admit(plan, league.adapter)
    (held,) = league.sites[VICTIM]._ledger.budget().reservations.values()
    assert held.commits == []


def test_and_again_at_the_fixed_cohort_where_all_were_invited(folder: Path) -> None:
    league = League(folder)
    plan = league.plan(NAMES, min_cohort=3)
    attempts = {name: league.sites[name].admit(plan, league.adapter) for name in NAMES}
    cohort = league.cohort(plan, {name: attempts[name] for name in THREE})
    with pytest.raises(PlanError, match="3 pinned sites are fewer than the 4"):
        attempts[VICTIM].exchange(cohort)
    with pytest.raises(PlanError, match="3 pinned sites are fewer than the 4"):
        attempts[VICTIM].upload(cohort, np.zeros(league.size, dtype=np.int32))


def test_settings_that_are_lowered_for_everybody_do_not_lower_a_site_s_own(folder: Path) -> None:
    """The federation's share is the coordinator's to propose, the policy's is the site's."""
    league = League(folder)
    config = replace(league.config, federation=replace(league.config.federation, min_share=0.0))
    assert config.smallest_cohort() == 3
    site = league.sites[VICTIM]
    site._config = config
    plan = league.plan(THREE, min_cohort=3)
    with pytest.raises(PlanError, match="fewer than the 4"):
        site.admit(plan, league.adapter)
    with pytest.raises(PolicyRefusal, match="policy asks for at least 4") as refusal:
        site.check()
    assert refusal.value.code == "policy.min_share"
    assert config.floor(0, 0.0) == 3, "only both together let three do"


def test_members_that_are_struck_off_do_not_lower_it(folder: Path) -> None:
    """A coordinator that removes three of six honest sites does not make a third two thirds."""
    config = load_federation(folder / "federation.toml")
    assert config.floor(3, 0.6667) == config.floor(6, 0.6667) == 4
    assert config.floor(12, 0.6667) == 8, "and those that a site approved besides count"


def test_decryptor_and_custodian_count_for_themselves(folder: Path) -> None:
    league = League(folder)
    three, four = (league.plan(NAMES[:n], min_cohort=3) for n in (3, 4))
    decryptor = open_decryptor(
        folder / "decryptor", config=league.config, members=Members.load(folder / "members.json")
    )
    assert isinstance(decryptor, Decryptor)
    with pytest.raises(PlanError, match="fewer than the 4"):
        decryptor.announce(three)
    decryptor.announce(four)
    custodian = Custodian(
        league.identities["aggregator"],  # any key will do: it is asked before its role is
        MemoryJournal(),
        coordinator=league.members.coordinator,
        pinned=league.members.pinned,
        floor=4,
    )
    round_ = decryptor._read_plan(three)
    with pytest.raises(PlanError, match="fewer than the 4"):
        custodian._require_enough(round_, round_.plan.members)
    custodian._require_enough(decryptor._read_plan(four), decryptor._read_plan(four).plan.members)


@pytest.mark.parametrize(
    ("sites", "stated", "least"),
    [(3, 3, 3), (4, 3, 3), (5, 3, 4), (5, 5, 5), (6, 3, 4), (9, 3, 6), (10, 3, 7), (100, 3, 67)],
)
def test_small_federations_and_larger_min_sites_stay_as_they_were(
    template: Path, sites: int, stated: int, least: int
) -> None:
    config = load_federation(template / "federation.toml")
    entry = config.sites[0]
    config = replace(
        config,
        federation=replace(config.federation, min_sites=stated),
        sites=tuple(replace(entry, name=f"site-{n}") for n in range(sites)),
    )
    assert config.smallest_cohort() == least
    told = config.cohorts_in_words()
    assert f"{least} of {sites} sites at least" in told[0]
    assert f"all {least - 1} others" in told[0]
    assert len(told) == (2 if least > stated else 1)
    if least > stated:
        assert f"min_sites = {stated} is below" in told[1]
        assert f"waits for {least}" in told[1]
