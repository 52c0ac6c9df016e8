"""Rehearsals as they travel: in one process, by the service's calls, over Flower, in processes.

Everywhere the same is found: who sends a wrong sigma is named and left out, and the others go on.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from contract_worlds import WORLDS, ContractWorld, charged
from processes import Federation
from sealed_falsely import at_random, seals
from support import make_federation, make_kits

from fmfl_secure.report.rehearsed import judge_kept
from fmfl_secure.run.record import decode_record

# In the embedded engine: test_rehearsals_in_runs.py.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_worlds")]
SERVED = pytest.mark.parametrize("transport", ["https", "flower"])
HONEST = ("site-1", "site-2", "site-3")
BAD = "site-4"


def world(
    transport: str, folder: Path, model: Path, rehearsals: str, *, vanished: int = 0
) -> ContractWorld:
    make_federation(
        folder, model, sites=4, rounds=2, steps=1, evaluation=False,
        federation=f'rehearsals = "{rehearsals}"\nvanished_sites = {vanished}',
    )  # fmt: skip
    return WORLDS[transport](folder)


@SERVED
@pytest.mark.parametrize("vanished", [0, 1])
def test_who_sends_a_wrong_sigma_is_named_before_anybody_trains(
    transport: str,
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    vanished: int,
) -> None:
    seals(monkeypatch, BAD, at_random)
    made = world(transport, tmp_path / "federation", tiny_model, "always", vanished=vanished)
    first, second = made.finish()
    named, clean = first.rehearsals
    assert (named.named, clean.named, clean.holds) == ({BAD: "secret"}, {}, True)
    for one in (first, second):
        assert (one.status, one.attempts, one.cohort) == ("released", 1, HONEST)
    for name in (*HONEST, BAD):
        assert charged(made, name) == ([] if name == BAD else [1, 2]), name
    (kept,) = judge_kept(made.folder / "run")
    assert (kept.named, kept.fault) == ({BAD: "secret"}, "")


@SERVED
def test_after_a_lost_round_too(
    transport: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seals(monkeypatch, BAD, at_random)
    first, second = world(transport, tmp_path / "federation", tiny_model, "after-failure").finish()
    assert first.status == "lost"
    assert first.rehearsals[0].named == {BAD: "secret"}
    assert (second.status, second.cohort) == ("released", HONEST)
    assert second.refusals == {BAD: "attempt.rehearsed"}


@SERVED
def test_one_that_dies_in_a_rehearsal_is_gone_and_comes_back(
    transport: str, tmp_path: Path, tiny_model: Path
) -> None:
    made = world(transport, tmp_path / "federation", tiny_model, "always")
    made.dies("site-2", "upload", number=0, back="at once")
    first, second = made.finish()
    assert len(first.rehearsals) > 1
    assert first.rehearsals[-1].holds
    assert (first.status, second.status) == ("released", "released")
    assert second.cohort == (*HONEST, BAD)


@pytest.mark.parametrize("killed", ["", "before:accept:8"], ids=["", "the server is killed in it"])
def test_in_processes_over_https(tmp_path: Path, tiny_model: Path, killed: str) -> None:
    """A server that is started again in a rehearsal holds the next one: each is joined once."""
    folder, names = tmp_path / "federation", (*HONEST, BAD)
    make_kits(
        folder, tiny_model, time="end_s = 20.0\n", sites=4, rounds=1, steps=1, evaluation=False,
        federation='rehearsals = "always"',
    )  # fmt: skip
    federation = Federation(folder)
    try:
        federation.start("server", killed)
        federation.start("decryptor")
        for name in names:
            federation.start(name, "spoils" if name == BAD else "")
        died = federation.wait(restart=bool(killed))
        state = federation.state()
    finally:
        federation.close()
    assert died == ({"server": 1} if killed else {}), state
    record = decode_record((folder / "run/report.json").read_bytes())
    (released,) = record.rounds
    assert (record.status, released.status, released.cohort) == ("finished", "released", HONEST)
    assert [each.named for each in released.rehearsals] == [{BAD: "secret"}, {}]
    assert [each.number for each in released.rehearsals] == ([2, 3] if killed else [1, 2])
    (kept,) = judge_kept(folder / "run")
    assert (kept.named, kept.fault) == ({BAD: "secret"}, "")
    (kept,) = judge_kept(folder / "run", pinned=folder / "kits/site-1")
    assert (kept.named, kept.fault) == ({BAD: "secret"}, "")
