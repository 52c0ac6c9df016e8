"""A site opens each round once, by its journal. What if the journal can be made to forget?

Four sites. Coordinator, aggregator, decryptor and sites 2 and 3 are in one hand. They open a round
over all four, and then the same round over the first three. From each sum they take the two
updates that they know: the second gives site 1's, the difference of the two gives site 4's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from league import League
from support import make_federation

import aggregation
from aggregation import Identity, JournalError, ReplayError, SqliteJournal
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.decryptor import open_decryptor
from fmfl_secure.parties.site import Site

ALL = tuple(f"site-{n}" for n in range(1, 5))
FIRST, LAST = ALL[0], ALL[3]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    make_federation(
        folder, tiny_model, sites=4, rounds=2, steps=1, evaluation=False,
        aggregation='custodians = ["board"]',
    )  # fmt: skip
    return folder


def without_custodian(folder: Path) -> None:
    """As most federations are: the league has nobody to ask besides."""
    file = folder / "federation.toml"
    file.write_text(file.read_text().replace('custodians = ["board"]', ""))


def open_round(league: League, names: Iterable[str], attempt: int = 1) -> dict[str, np.ndarray]:
    """Open the round over these sites; their updates, and the sum."""
    plan = league.plan(tuple(names), attempt=attempt)
    attempts = {name: league.sites[name].admit(plan, league.adapter) for name in names}
    updates = {n: league.sites[n].train(a.plan, league.adapter) for n, a in attempts.items()}
    return {**updates, "sum": league.open(plan, attempts, updates)}


def subtracts(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """What the league reads from two sums that opened."""
    alone = second["sum"] - second["site-2"] - second["site-3"]
    assert np.array_equal(alone, first[FIRST])
    assert np.array_equal(first["sum"] - second["sum"], first[LAST])


def rename(folder: Path) -> None:
    file = folder / "federation.toml"
    file.write_text(file.read_text().replace('name = "tiny"', 'name = "other"'))


def put_back(folder: Path, backup: Path) -> None:
    for file in folder.glob("journal.sqlite*"):
        if not file.name.endswith(".made"):
            file.unlink()
    shutil.copy(backup, folder / "journal.sqlite")


def test_by_the_rule_of_0_1_0_another_federation_s_name_opens_a_round_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_custodian(folder)
    monkeypatch.setattr(aggregation.roles.site, "pin_federation", lambda *_: None)
    monkeypatch.setattr(aggregation.roles.site, "check_federation", lambda *_: None)
    league = League(folder)
    first = open_round(league, ALL)
    rename(folder)
    subtracts(first, open_round(League(folder, league.run), ALL[:3]))


def test_a_run_is_of_one_federation_at_every_site(folder: Path) -> None:
    without_custodian(folder)
    league = League(folder)
    open_round(league, ALL)
    rename(folder)
    again = League(folder, league.run)
    for name in ALL[:3]:
        with pytest.raises(ReplayError, match="another federation here than other"):
            again.sites[name].admit(again.plan(ALL[:3]), again.adapter)


def test_and_at_decryptor_and_custodian(folder: Path) -> None:
    league = League(folder)
    plan = league.plan(ALL)
    decryptor = open_decryptor(folder / "decryptor", config=league.config, members=league.members)
    custodian = Custodian(folder / "custodians/board", "board", league.config)
    decryptor.announce(plan)
    custodian.ready(plan)
    rename(folder)
    again = League(folder, league.run)
    other = again.plan(ALL)
    decryptor = open_decryptor(folder / "decryptor", config=again.config, members=again.members)
    custodian = Custodian(folder / "custodians/board", "board", again.config)
    with pytest.raises(ReplayError, match="another federation"):
        decryptor.announce(other)
    with pytest.raises(ReplayError, match="another federation"):
        custodian.ready(other)


def test_by_the_rule_of_0_1_0_a_journal_that_was_put_back_opens_a_round_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody holds it to what others have seen."""
    without_custodian(folder)
    monkeypatch.setattr(aggregation.roles.site, "hear", lambda *_: None)
    league = League(folder)
    backup = shutil.copy(folder / "sites/site-1/journal.sqlite", tmp_path / "backup")
    first = open_round(league, ALL)
    put_back(folder / "sites/site-1", Path(backup))
    for colluding in ALL[1:3]:  # who keep to nothing
        shutil.copy(backup, tmp_path / colluding)
        for file in (folder / "sites" / colluding).glob("journal.sqlite*"):
            file.unlink()
    subtracts(first, open_round(League(folder, league.run), ALL[:3], attempt=2))


def test_without_every_other_honest_site_s_forgetting_no_second_sum_opens(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody notices, and still: each site that two cohorts share has to open twice."""
    without_custodian(folder)
    monkeypatch.setattr(aggregation.roles.site, "hear", lambda *_: None)
    league = League(folder)
    backup = shutil.copy(folder / "sites/site-1/journal.sqlite", tmp_path / "backup")
    open_round(league, ALL)
    put_back(folder / "sites/site-1", Path(backup))
    again = League(folder, league.run)
    plan = again.plan(ALL[:3], attempt=2)
    again.sites[FIRST].admit(plan, again.adapter)
    for honest in ALL[1:3]:
        with pytest.raises(ReplayError, match="opened this round already"):
            again.sites[honest].admit(plan, again.adapter)


def test_a_head_that_another_site_kept_holds_it_back(folder: Path, tmp_path: Path) -> None:
    without_custodian(folder)
    league = League(folder)
    backup = shutil.copy(folder / "sites/site-1/journal.sqlite", tmp_path / "backup")
    open_round(league, ALL)
    victim, keeper = league.sites[FIRST], league.sites["site-2"]
    head = victim.journal_head()
    assert head is not None
    keeper.others.keep_journals([(league.members.sites[FIRST], head)])
    put_back(folder / "sites/site-1", Path(backup))
    again = League(folder, league.run)
    kept = again.sites["site-2"].others.journals(league.members.sites[FIRST])
    with pytest.raises(JournalError, match="lacks entry"):
        again.sites[FIRST].hold_journal(kept)
    again.sites["site-2"].hold_journal(kept)  # it is not of its journal


@pytest.mark.parametrize("party", ["sites/site-1", "decryptor", "custodians/board"])
def test_a_journal_that_is_missing_is_not_begun_anew(folder: Path, party: str) -> None:
    league = League(folder)
    name = party.rpartition("/")[2]
    if not party.startswith("sites"):
        SqliteJournal(folder / party / "journal.sqlite")
    for file in (folder / party).glob("journal.sqlite*"):
        if not file.name.endswith(".made"):
            file.unlink()

    def open_again() -> object:
        if party == "decryptor":
            return open_decryptor(folder / party, config=league.config, members=league.members)
        if party.startswith("custodians"):
            return Custodian(folder / party, name, league.config)
        return League(folder, league.run).sites[name]

    with pytest.raises(JournalError, match="is missing, and there was one"):
        open_again()


def test_a_head_of_another_key_says_nothing(folder: Path, tmp_path: Path) -> None:
    """A server in league cannot lock a site out with heads of its own making."""
    site: Site = League(folder).sites[FIRST]
    stranger = Identity.generate("stranger")
    made_up = aggregation.sign_journal_head(SqliteJournal(tmp_path / "j"), stranger)
    assert made_up is not None
    site.hold_journal([made_up])
