"""kill -9 of each process at each step of the protocol: started again, the run goes on."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from postgres import OWNER, PASSWORD, Cluster
from processes import Federation
from support import make_kits

from fmfl_secure.run.record import decode_record
from privacy import Ledger

pytestmark = pytest.mark.slow  # processes of their own, and waiting for their time limits

SITES = ("site-1", "site-2", "site-3")


@dataclass(frozen=True)
class Case:
    """Who is killed and where, in a run of 3 sites and 1 round, and what must follow.

    Attributes:
        party: Whose process.
        point: See `killer.py`.
        trained_again: Sites whose training is lost and charged a second time.
        lost: The round was opened and never released.
    """

    party: str
    point: str
    trained_again: tuple[str, ...] = ()
    lost: bool = False


DEFAULT = [
    Case("server", "after:list:1"),
    # Its keys were in memory: what sites opened for opens no more, and two are too few.
    Case("decryptor", "after:release:1"),
    # What it opened is recorded, and is all that it sends.
    Case("site-2", "after:open:1"),
]
MATRIX = [
    Case("server", "before:join:2"),
    Case("server", "after:join:3"),
    *(Case("server", f"{when}:accept:{n}") for when in ("before", "after") for n in range(1, 21)),
    Case("server", "before:cohort:1"),
    Case("server", "after:cohort:1"),
    Case("server", "before:list:1"),
    Case("server", "before:apply:1"),
    Case("server", "after:apply:1"),
    Case("server", "before:finish:1"),
    Case("server", "after:finish:1"),
    Case("server", "before:end:1"),
    Case("server", "after:end:1"),
    Case("decryptor", "before:announce:1"),
    Case("decryptor", "after:announce:1"),
    Case("decryptor", "before:confirm:1"),
    Case("decryptor", "after:confirm:1"),
    Case("decryptor", "before:release:1", lost=True),
    Case("site-2", "before:reserve:1"),
    Case("site-2", "after:reserve:1"),
    Case("site-2", "before:commit:1"),
    Case("site-2", "after:commit:1", trained_again=("site-2",)),
    Case("site-2", "after:train:1", trained_again=("site-2",)),
    Case("site-2", "before:store:1", trained_again=("site-2",)),
    Case("site-2", "after:store:1"),
    Case("site-2", "before:ready:1"),
    Case("site-2", "after:ready:1"),
    Case("site-2", "before:exchange:1"),
    Case("site-2", "after:exchange:1"),
    Case("site-2", "before:upload:1"),
    Case("site-2", "after:upload:1"),
    Case("site-2", "before:open:1", lost=True),
    Case("site-2", "before:verify:1"),
    Case("site-2", "after:verify:1"),
    Case("site-2", "before:released:1"),
    Case("site-2", "after:released:1"),
    Case("site-2", "before:refund:1"),
    Case("site-2", "after:refund:1"),
    Case("site-2", "before:head:1"),
    Case("site-2", "after:head:1"),
    Case("site-2", "before:head:2"),
    Case("site-2", "after:head:2"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    make_kits(folder, tiny_model, rounds=1, evaluation=False)
    return folder


def releases(folder: Path) -> int:
    """Releases that the decryptor recorded."""
    with closing(sqlite3.connect(folder / "kits/decryptor/journal.sqlite")) as connection:
        query = "SELECT count(*) FROM entries WHERE kind = 'decryptor/released'"
        return int(connection.execute(query).fetchone()[0])


@pytest.mark.parametrize(
    "case",
    [*DEFAULT, *(pytest.param(case, marks=pytest.mark.slow) for case in MATRIX)],
    ids=lambda case: f"{case.party}-{case.point}",
)
def test_a_killed_process_costs_nothing_twice(tmp_path: Path, template: Path, case: Case) -> None:
    folder = tmp_path / "federation"
    shutil.copytree(template, folder)
    survive(folder, case)


@pytest.mark.parametrize(
    "point", ["after:join:3", "before:accept:7", "after:accept:11", "after:list:1", "after:end:1"]
)
def test_a_killed_server_goes_on_from_postgresql(
    tmp_path: Path, template: Path, postgres: Cluster, point: str
) -> None:
    folder = tmp_path / "federation"
    shutil.copytree(template, folder)
    settings = folder / "kits/server/service.toml"
    url = postgres.url(f"kills_{point.replace(':', '_')}", user=OWNER)
    settings.write_text(f'store = "{url}"\n' + settings.read_text())
    survive(folder, Case("server", point))
    assert not (folder / "kits/server/service.sqlite").exists()
    assert not (folder / "kits/server/coordinator/anchors.sqlite").exists()
    assert [file.name for file in (folder / "run").glob("state.*")] == ["state.url"]
    for file in folder.rglob("*"):
        if file.is_file() and file != settings:
            for secret in (PASSWORD, quote(PASSWORD, safe="")):
                assert secret.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    "case",
    [
        *(Case("board", f"{when}:keys:1") for when in ("before", "after")),
        *(Case("board", f"{when}:approve:1") for when in ("before", "after")),
        Case("server", "before:accept:1"),
        Case("server", "after:accept:1"),
        Case("server", "before:accept:16"),  # the word of board
        Case("server", "after:accept:16"),
        Case("decryptor", "after:confirm:1"),
    ],
    ids=lambda case: f"{case.party}-{case.point}",
)
def test_with_a_custodian_too_a_kill_costs_nothing_twice(
    tmp_path: Path, tiny_model: Path, case: Case
) -> None:
    folder = tmp_path / "federation"
    custodians = 'custodians = ["board"]'
    make_kits(folder, tiny_model, rounds=1, evaluation=False, aggregation=custodians)
    survive(folder, case, parties=("server", "decryptor", "board", *SITES))


def survive(
    folder: Path, case: Case, *, parties: tuple[str, ...] = ("server", "decryptor", *SITES)
) -> None:
    """Run a federation in which a process is killed, and check what came of it."""
    federation = Federation(folder)
    try:
        for name in parties:
            federation.start(name, case.point if name == case.party else "")
        killed = federation.wait(restart=True)
        state = federation.state()
    finally:
        federation.close()
    assert killed == {case.party: 1}, state
    record = decode_record((folder / "run/report.json").read_bytes())
    assert record.status == "finished", state
    (round_record,) = record.rounds
    assert round_record.status == ("lost" if case.lost else "released"), state
    assert releases(folder) == (0 if case.lost else 1), "one release a round, never two"
    if not case.lost:
        assert round_record.cohort == SITES, state
    for name in SITES:
        budget = Ledger(folder / f"kits/{name}/ledger.sqlite").budget()
        (held,) = budget.reservations.values()
        trainings = 2 if name in case.trained_again else 1
        assert [number for number, _ in held.commits] == [1] * trainings
        assert not held.open, "a site that was killed at the end closed the run all the same"
        (status,) = budget.status()
        assert status.epsilon_charged <= status.grant.epsilon
