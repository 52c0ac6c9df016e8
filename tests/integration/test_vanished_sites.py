"""Sites that vanish after their upload: the round is released with their updates in it.

Real parties over each transport, as in the contract. `tests/attacks/test_feigned_vanishing.py` has
what a hostile server or site makes of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import msgspec
import pytest
from asked import PRIVACY
from contract_worlds import ContractWorld, Death, Died, charged, world_of
from sealed_falsely import deals, no_polynomial
from support import make_federation

from aggregation import Decryptor, SiteAttempt
from aggregation.roles.kept_attempt import read_kept
from aggregation.roles.site_shares import SiteShares
from fmfl_secure.parties.site import Site
from fmfl_secure.runtime.agents.site import SiteAgent
from privacy import Ledger

pytestmark = pytest.mark.usefixtures("quick_worlds")
SLOW = pytest.mark.slow
FIVE = tuple(f"site-{n}" for n in range(1, 6))
FOUR = tuple(f"site-{n}" for n in range(1, 5))
SIX = tuple(f"site-{n}" for n in range(1, 7))


Template = Callable[[str], Path]
FEDERATIONS = {
    "four": {"sites": 4, "federation": "vanished_sites = 1"},
    "five": {"sites": 5, "federation": "vanished_sites = 1"},
    "six": {"sites": 6, "federation": "vanished_sites = 1"},
    "eight": {"sites": 8, "federation": "vanished_sites = 2"},
    "shares": {
        "sites": 4,
        "federation": "vanished_sites = 1",
        "privacy": PRIVACY["distributed"],
        "grant": 20.0,
    },
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Template:
    folder = tmp_path_factory.mktemp("vanished")

    @cache
    def made(name: str) -> Path:
        more = {"rounds": 2, "steps": 1, "evaluation": False, **FEDERATIONS[name]}
        make_federation(folder / name, tiny_model, **more)
        return folder / name

    return made


def without(sites: tuple[str, ...], *gone: str) -> tuple[str, ...]:
    return tuple(name for name in sites if name not in gone)


def test_one_that_vanishes_for_good_is_in_the_sum(
    transport: str, template: Template, tmp_path: Path
) -> None:
    """And the next round goes on without it: of three, none may vanish any more."""
    world = world_of(transport, template("four"), tmp_path)
    world.dies("site-2", "opening")
    first, second = world.finish()
    assert (first.status, first.attempts, first.cohort) == ("released", 1, FOUR)
    assert first.vanished == ("site-2",)
    assert (second.status, second.cohort) == ("released", without(FOUR, "site-2"))
    assert second.vanished is msgspec.UNSET
    assert charged(world, "site-2") == [1]
    for name in without(FOUR, "site-2"):  # the sum verified, by a MAC that its update is in
        assert world.said(name, world.observer.run, 1).after == first.adapter_digest
    assert world.said("site-2", world.observer.run, 1) is None


def test_one_that_comes_back_is_in_the_next_round(
    transport: str, template: Template, tmp_path: Path
) -> None:
    world = world_of(transport, template("four"), tmp_path)
    world.dies("site-3", "opening", back="next round")
    first, second = world.finish()
    assert (first.status, first.cohort, first.vanished) == ("released", FOUR, ("site-3",))
    assert (second.status, second.cohort) == ("released", FOUR)
    assert charged(world, "site-3") == [1, 2]


@pytest.mark.parametrize(
    "gone",
    [pytest.param(("site-8",), id="one", marks=SLOW), pytest.param(("site-1", "site-5"), id="two")],
)
def test_of_eight_two_may_vanish(template: Template, tmp_path: Path, gone: tuple[str, ...]) -> None:
    """The first of the cohort among them, who drew the MAC key."""
    world = world_of("local", template("eight"), tmp_path)
    for name in gone:
        world.dies(name, "opening")
    first, second = world.finish()
    assert (first.status, first.attempts, len(first.cohort)) == ("released", 1, 8)
    assert first.vanished == gone
    assert (second.status, len(second.cohort)) == ("released", 8 - len(gone))


def die_before_they_open(
    monkeypatch: pytest.MonkeyPatch, world: ContractWorld, *names: str
) -> None:
    """In round 1, once they are asked to: nothing of an opening is recorded. Started again."""
    opens = SiteAgent._open

    def dying(self: SiteAgent, work) -> None:
        death = world.deaths.get(self.party.name if isinstance(self.party, Site) else "")
        if death is None or death.done or work.round != death.round:
            opens(self, work)
            return
        death.done = True
        raise Died

    monkeypatch.setattr(SiteAgent, "_open", dying)
    for name in names:
        world.deaths[name] = Death("open", 1, "at once", sent=False)


def kept(world: ContractWorld, name: str) -> list[tuple]:
    with closing(sqlite3.connect(world.workspace.site(name) / "attempts.sqlite")) as connection:
        return connection.execute("SELECT run, round, attempt, sealed FROM attempts").fetchall()


def test_a_restart_is_a_delay_and_what_was_kept_for_it_is_sealed_and_erased(
    transport: str, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four, where one may vanish: both open what they uploaded before they died."""
    world = world_of(transport, template("four"), tmp_path)
    die_before_they_open(monkeypatch, world, "site-2", "site-4")
    seen: dict[str, list[tuple]] = {}
    recall = SiteAttempt.recall

    def recalling(self: SiteAttempt, data: bytes, integers) -> None:
        name = self._identity.public.name
        seen[name] = kept(world, name)
        (row,) = seen[name]
        assert read_kept(data, self._round.digest).seed not in row[3]
        recall(self, data, integers)

    monkeypatch.setattr(SiteAttempt, "recall", recalling)
    records = world.finish()
    assert [(r.status, r.attempts, r.cohort) for r in records] == [("released", 1, FOUR)] * 2
    assert records[0].vanished is msgspec.UNSET
    assert {name: [row[1:3] for row in rows] for name, rows in seen.items()} == {
        "site-2": [(1, 1)],
        "site-4": [(1, 1)],
    }
    for name in FOUR:
        assert kept(world, name) == []
        assert charged(world, name) == [1, 2]


def test_one_more_costs_an_attempt_and_no_charge_if_they_come_back(
    transport: str, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of four are too many, with nothing kept. The same four open again, the same integers."""
    monkeypatch.setattr(Site, "keep", lambda *_: None)
    world = world_of(transport, template("four"), tmp_path)
    die_before_they_open(monkeypatch, world, "site-2", "site-4")
    records = world.finish()
    assert [(r.status, r.attempts, r.cohort) for r in records] == [
        ("released", 2, FOUR),
        ("released", 1, FOUR),
    ]
    assert all(charged(world, name) == [1, 2] for name in FOUR)


def test_a_decryptor_that_dies_with_its_keys_costs_an_attempt_too(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After all have opened: the same open again, where they would join no other attempt else."""
    world = world_of("local", template("four"), tmp_path)
    world.deaths["decryptor"] = Death("release", 1, "at once", sent=False, done=True)
    released, died = Decryptor.release, []

    def dying(self: Decryptor, *given, **more) -> bytes:
        if not died:
            died.append(self)
            raise Died
        return released(self, *given, **more)

    monkeypatch.setattr(Decryptor, "release", dying)
    first, second = world.finish()
    assert (first.status, first.attempts, first.cohort) == ("released", 2, FOUR)
    assert second.status == "released"


def test_one_more_for_good_loses_the_round(
    transport: str, template: Template, tmp_path: Path
) -> None:
    """Two of six, where one may: no other cohort opens in that round, and the next one does."""
    world = world_of(transport, template("six"), tmp_path)
    for name in ("site-1", "site-6"):
        world.dies(name, "opening")
    lost, released = world.finish()
    assert lost.status == "lost"
    assert (released.status, released.cohort) == ("released", without(SIX, "site-1", "site-6"))


def test_before_the_upload_one_that_vanishes_costs_an_attempt_as_ever(
    template: Template, tmp_path: Path
) -> None:
    world = world_of("local", template("four"), tmp_path)
    world.dies("site-2", "upload")
    first, _ = world.finish()
    assert (first.status, first.attempts) == ("released", 2)
    assert first.cohort == without(FOUR, "site-2")


@pytest.mark.slow
def test_with_noise_in_shares_the_figures_are_the_same(template: Template, tmp_path: Path) -> None:
    """A vanished site's share of noise is in the sum, and accounting knows of nobody that did."""
    spent = []
    for name in ("all", "one-vanishes"):
        world = world_of("local", template("shares"), tmp_path / name)
        if name == "one-vanishes":
            world.dies("site-2", "opening", number=2)
        records = world.finish()
        assert [(r.status, r.cohort) for r in records] == [("released", FOUR)] * 2
        ledger = Ledger(world.workspace.site("site-1") / "ledger.sqlite")
        (status,) = ledger.budget().status()
        assert status.epsilon_charged > 0
        spent.append(status.epsilon_charged)
        assert all(charged(world, each) == [1, 2] for each in FOUR)
    assert spent[0] == spent[1]


BAD = "site-2"
INVALID = {BAD: "attempt.invalid"}


def for_nobody(self: SiteShares, cohort, deal, seed):
    """Boxes that open for none of the others."""
    made, key = deal(self, cohort, seed)
    return [(bytes(len(box)), commitment) for box, commitment in made], key


def test_a_dealer_of_false_shares_is_left_out_by_name(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All others say so, each with a proof; nothing was uploaded, and the run goes on."""
    deals(monkeypatch, BAD, for_nobody)
    world = world_of("local", template("five"), tmp_path)
    first, second = world.finish()
    assert (first.status, first.attempts) == ("released", 2)
    assert first.cohort == second.cohort == without(FIVE, BAD)
    assert first.refusals == second.refusals == INVALID


@pytest.mark.parametrize("vanishes", [False, True], ids=["opens", "vanishes"])
def test_so_is_who_dealt_what_gives_no_seed(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vanishes: bool
) -> None:
    """While it opens it costs nothing. If it vanishes the round is lost, and its name is known."""
    deals(monkeypatch, BAD, no_polynomial)
    world = world_of("local", template("five"), tmp_path)
    if vanishes:
        world.dies(BAD, "opening")
    first, second = world.finish()
    assert first.status == ("lost" if vanishes else "released")
    assert first.cohort == (() if vanishes else FIVE)
    assert first.refusals == second.refusals == INVALID
    assert (second.status, second.cohort) == ("released", without(FIVE, BAD))
