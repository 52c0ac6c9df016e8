"""kill -9 at every step of a round: nothing is under-counted, paid twice, or released twice."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from killer import run_and_kill
from support import Quiet, make_federation

from fmfl_secure.report.results import build_record
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger

pytestmark = pytest.mark.usefixtures("quick")


@dataclass(frozen=True)
class Case:
    """Where it is killed, in a run of 3 sites and 2 rounds, and what must follow.

    Attributes:
        point: See `killer.py`.
        trained_again: Sites whose training of a round is lost and charged a second time.
        lost: Rounds that were opened and never released.
    """

    point: str
    trained_again: tuple[str, ...] = ()
    lost: tuple[int, ...] = ()


# Calls 1 to 3 are the three sites in round 1; 4 is the first site in round 2.
CASES = [
    Case("before:reserve:2"),
    Case("after:reserve:3"),
    Case("before:commit:2"),
    Case("after:commit:2", trained_again=("site-2",)),
    Case("after:train:2", trained_again=("site-2",)),
    Case("before:store:4", trained_again=("site-1",)),
    Case("after:store:4"),
    Case("after:ready:5"),
    Case("after:announce:1"),
    Case("after:cohort:1"),
    Case("after:upload:2"),
    Case("after:list:1"),
    # One site opened: it joins no further attempt, and two are too few for another sum.
    Case("after:open:1", lost=(1,)),
    Case("after:open:3", lost=(1,)),
    Case("before:release:2", lost=(2,)),
    # The decryptor recorded its release, and no site is left that could verify it.
    Case("after:release:1", lost=(1,)),
    # One site verified it, which is too few for the others to believe it; two are enough.
    Case("after:verdict:1", lost=(1,)),
    Case("after:verdict:2"),
    # All had verified it, and say so again.
    Case("before:apply:1"),
    Case("after:apply:2"),
    Case("before:finish:1"),
    Case("after:finish:1"),
    Case("after:finish:2"),
    Case("before:refund:2"),
    Case("after:refund:2"),
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    make_federation(folder, tiny_model, rounds=2)
    return folder


def check_ledgers(folder: Path, *, at_least: int) -> dict[str, list[int]]:
    """Every ledger verifies; returns the rounds each site began to train."""
    trained = {}
    for number in (1, 2, 3):
        budget = Ledger(folder / f"sites/site-{number}/ledger.sqlite").budget()
        (status,) = budget.status()
        assert status.epsilon_charged <= status.grant.epsilon
        held = list(budget.reservations.values())
        assert len(held) <= 1, "a resumed run reserves once"
        trained[f"site-{number}"] = [r for h in held for r, _ in h.commits]
        assert len(trained[f"site-{number}"]) >= at_least
    return trained


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.point)
def test_a_killed_run_resumes(tmp_path: Path, template: Path, case: Case) -> None:
    folder = tmp_path / "federation"
    shutil.copytree(template, folder)
    federation, output = folder / "federation.toml", folder / "run"
    assert run_and_kill(federation, output, case.point) == -9
    before = check_ledgers(folder, at_least=0)
    interrupted = build_record(RunStore(output))
    assert interrupted.status == "interrupted"

    observer = Quiet()
    record = LocalEngine(federation, output, resume=True, observer=observer).run()

    after = check_ledgers(folder, at_least=2)
    for site, rounds in after.items():
        assert rounds[: len(before[site])] == before[site]
        assert len(rounds) == (3 if site in case.trained_again else 2), case
    # What was stored is sent again and not trained again: each training after the resume is one
    # that the ledger had not begun, or one that was lost before it was stored.
    charged_after_resume = sum(len(after[s]) - len(before[s]) for s in after)
    assert len(observer.trained) >= charged_after_resume
    assert record.status == "finished"
    assert [r.round for r in record.rounds] == [1, 2]
    assert tuple(r.round for r in record.rounds if r.status == "lost") == case.lost
    digests = [r.release_digest for r in record.rounds if r.status == "released"]
    assert len(set(digests)) == len(digests)
    for round_record in record.rounds:
        if round_record.status == "released":
            assert round_record.cohort == ("site-1", "site-2", "site-3")
