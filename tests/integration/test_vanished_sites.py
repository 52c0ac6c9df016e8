"""Sites that vanish after their upload: the round is released with their updates in it.

Real parties over each transport, as in the contract. `tests/attacks/test_feigned_vanishing.py` has
what a hostile server or site makes of it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest
from contract_worlds import WORLDS, ContractWorld
from support import make_federation

from privacy import Ledger

SLOW = pytest.mark.slow
FOUR = tuple(f"site-{n}" for n in range(1, 5))
SIX = tuple(f"site-{n}" for n in range(1, 7))


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("vanished")
    for name, sites, vanished in (("four", 4, 1), ("six", 6, 1), ("eight", 8, 2)):
        make_federation(
            folder / name, tiny_model, sites=sites, rounds=2, steps=1, evaluation=False,
            federation=f"vanished_sites = {vanished}",
        )  # fmt: skip
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the contract: plots and the admission gate have tests of their own."""
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    monkeypatch.setattr("fmfl_secure.transports.flower.server._NODES_S", 0.05)


@pytest.fixture(
    params=["local", pytest.param("https", marks=SLOW), pytest.param("flower", marks=SLOW)]
)
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


def world_of(transport: str, template: Path, tmp_path: Path) -> ContractWorld:
    return WORLDS[transport](shutil.copytree(template, tmp_path / "federation"))


def charged(world: ContractWorld, name: str) -> list[int]:
    budget = Ledger(world.workspace.site(name) / "ledger.sqlite").budget()
    return [number for held in budget.reservations.values() for number, _ in held.commits]


def without(sites: tuple[str, ...], *gone: str) -> tuple[str, ...]:
    return tuple(name for name in sites if name not in gone)


def test_one_that_vanishes_for_good_is_in_the_sum(
    transport: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    """And the next round goes on without it: of three, none may vanish any more."""
    world = world_of(transport, templates["four"], tmp_path)
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
    transport: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    world = world_of(transport, templates["four"], tmp_path)
    world.dies("site-3", "opening", back="next round")
    first, second = world.finish()
    assert (first.status, first.cohort, first.vanished) == ("released", FOUR, ("site-3",))
    assert (second.status, second.cohort) == ("released", FOUR)
    assert charged(world, "site-3") == [1, 2]


@pytest.mark.parametrize("gone", [("site-8",), ("site-1", "site-5")], ids=["one", "two"])
def test_of_eight_two_may_vanish(
    templates: dict[str, Path], tmp_path: Path, gone: tuple[str, ...]
) -> None:
    """The first of the cohort among them, who drew the MAC key."""
    world = world_of("local", templates["eight"], tmp_path)
    for name in gone:
        world.dies(name, "opening")
    first, second = world.finish()
    assert (first.status, first.attempts, len(first.cohort)) == ("released", 1, 8)
    assert first.vanished == gone
    assert (second.status, len(second.cohort)) == ("released", 8 - len(gone))


def test_one_more_costs_an_attempt_and_no_charge_if_they_come_back(
    transport: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    """Two of four are too many. The same four open again, with the integers that they stored."""
    world = world_of(transport, templates["four"], tmp_path)
    for name in ("site-2", "site-4"):
        world.dies(name, "opening", back="at once")
    records = world.finish()
    assert [(r.status, r.cohort) for r in records] == [("released", FOUR)] * 2
    assert all(charged(world, name) == [1, 2] for name in FOUR)


def test_one_more_for_good_loses_the_round(
    transport: str, templates: dict[str, Path], tmp_path: Path
) -> None:
    """Two of six, where one may: no other cohort opens in that round, and the next one does."""
    world = world_of(transport, templates["six"], tmp_path)
    for name in ("site-1", "site-6"):
        world.dies(name, "opening")
    lost, released = world.finish()
    assert lost.status == "lost"
    assert (released.status, released.cohort) == ("released", without(SIX, "site-1", "site-6"))


def test_before_the_upload_one_that_vanishes_costs_an_attempt_as_ever(
    templates: dict[str, Path], tmp_path: Path
) -> None:
    world = world_of("local", templates["four"], tmp_path)
    world.dies("site-2", "upload")
    first, _ = world.finish()
    assert (first.status, first.attempts) == ("released", 2)
    assert first.cohort == without(FOUR, "site-2")
