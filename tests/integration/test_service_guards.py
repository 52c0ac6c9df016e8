"""Over the service too, every guarantee rests on the party that it protects: the real parties."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace
from real_world import RealWorld

import aggregation
from aggregation import SqliteJournal
from fmfl_secure.runtime.anchor_registry import AnchorRegistry, AnchorsForSite
from fmfl_secure.settings.federation import FederationConfig
from privacy import Ledger


def crowd(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """A coordinator that invites the fewest, whatever the settings say."""
    sign = aggregation.Coordinator.plan
    monkeypatch.setattr(
        aggregation.Coordinator,
        "plan",
        lambda self, plan: sign(self, replace(plan, members=plan.members[:size])),
    )


def test_every_site_refuses_a_cohort_of_three_of_six(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(monkeypatch, 3)
    world = RealWorld(tmp_path, tiny_model, sites=6)
    with monkeypatch.context() as careless:  # a decryptor refuses first otherwise
        careless.setattr(FederationConfig, "floor", lambda *_: 0)
        world.start_decryptor()
    for name in world.names:
        world.start_site(name)
    assert world.finish() == []
    refusals = world.run._refusals()
    assert len(refusals) >= 3, "until too few were left"
    for name in refusals:
        assert "3 pinned sites are fewer than the 4" in world.agents[name].refusal
    for name in world.names:
        for held in world.open_site(name, world.run.run)._ledger.budget().reservations.values():
            assert held.commits == []


def test_by_the_rule_of_0_1_0_it_opens(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(monkeypatch, 3)
    monkeypatch.setattr(FederationConfig, "floor", lambda *_: 0)
    world = RealWorld(tmp_path, tiny_model, sites=6)
    world.run.rounds.attempts._smallest_cohort = 3
    world.start_all()
    (record,) = world.finish()
    assert record.cohort == world.names[:3]


def put_back(folder: Path, backup: Path) -> None:
    for file in folder.glob("journal.sqlite*"):
        if not file.name.endswith(".made"):
            file.unlink()
    shutil.copy(backup, folder / "journal.sqlite")


def backed_up(journal: Path, to: Path) -> Path:
    SqliteJournal(journal)  # made, if it was not
    with closing(sqlite3.connect(journal)) as source, closing(sqlite3.connect(to)) as copy:
        source.backup(copy)
    return to


@pytest.mark.parametrize(
    "forgetful",
    [
        pytest.param(False, id="the server", marks=pytest.mark.slow),
        pytest.param(True, id="another site"),
    ],
)
def test_a_site_whose_journal_was_put_back_opens_nothing(
    tmp_path: Path, tiny_model: Path, forgetful: bool
) -> None:
    """Whoever else remembers what it opened: the server, or any other site."""
    world = RealWorld(tmp_path, tiny_model)
    site = world.workspace.site("site-1")
    backup = backed_up(site / "journal.sqlite", tmp_path / "backup")
    world.start_all()
    (record,) = world.finish()
    assert record.cohort == world.names
    put_back(site, backup)
    if forgetful:
        for file in world.workspace.role("coordinator").glob("*anchors.sqlite*"):
            file.unlink()
    again = RealWorld(tmp_path, tiny_model, output="again")
    again.start_decryptor()
    joining = []

    def joins(what: str) -> None:
        """Each brings what it kept before it joins; site 1 comes after all of them."""
        if what == "join":
            joining.append(what)
            if len(joining) == 3:
                again.start_site("site-1")

    for name in again.names[1:]:
        again.start_site(name).broken = joins
    (record,) = again.finish()
    assert record.cohort == again.names[1:]
    assert "the journal of site-1 lacks entry" in again.agents["site-1"].refusal


@pytest.mark.parametrize(
    "heard", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["by the others", "by nobody"]
)
def test_a_server_that_withholds_every_head_hides_no_journal_that_was_put_back(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    """It takes them and tells none; what sites remember reaches the site in their own messages."""
    monkeypatch.setattr(
        AnchorRegistry, "tell", lambda *_, **__: AnchorsForSite(own=[], others={}, known={})
    )
    if not heard:  # the arm in which it is hidden: as heads that travel through the server alone
        monkeypatch.setattr(aggregation.roles.site, "hear", lambda *_: None)
    world = RealWorld(tmp_path, tiny_model)
    site = world.workspace.site("site-1")
    backup = backed_up(site / "journal.sqlite", tmp_path / "backup")
    world.start_all()
    (record,) = world.finish()
    assert record.cohort == world.names
    put_back(site, backup)
    again = RealWorld(tmp_path, tiny_model, output="again")
    again.start_all()
    (record,) = again.finish()
    if heard:
        assert (record.attempts, record.cohort) == (2, again.names[1:])
        assert "the journal of site-1 lacks entry" in again.agents["site-1"].refusal
    else:
        assert record.cohort == again.names


@pytest.mark.parametrize("party", ["decryptor", pytest.param("board", marks=pytest.mark.slow)])
def test_a_decryptor_or_custodian_whose_journal_was_put_back_gives_no_word(
    tmp_path: Path, tiny_model: Path, party: str
) -> None:
    world = RealWorld(tmp_path, tiny_model, aggregation='custodians = ["board"]')
    folder = world.workspace.role(party)
    if party == "board":
        folder = world.workspace.custodian(party)
    backup = backed_up(folder / "journal.sqlite", tmp_path / "backup")
    world.start_all()
    (record,) = world.finish()
    assert record.status == "released"
    put_back(folder, backup)
    again = RealWorld(tmp_path, tiny_model, output="again")
    again.start_all()
    assert again.finish() == []
    assert f"the journal of {party} lacks entry" in again.agents[party].refusal
    run = again.coordinator.run
    for name in again.names:  # nobody trains for a sum that nobody would open
        ledger = Ledger(again.workspace.site(name) / "ledger.sqlite")
        assert ledger.budget().reservations[run].commits == [], name
