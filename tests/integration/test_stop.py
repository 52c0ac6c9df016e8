"""`fmfl-secure stop`: signed, durable, and nobody who knows of it begins a round after it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from answered import read_answer
from support import Quiet, make_federation

from aggregation import AggregationError, Identity
from fmfl_secure.errors import RunError, RunStopped
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.parties.stops import Stops, stop_run, take_stop
from fmfl_secure.parties.workspace import Members, initialise
from fmfl_secure.run.record import RoundRecord
from fmfl_secure.run.stop import RunHalted, sign_stop
from fmfl_secure.runtime.agents.base import Agent
from fmfl_secure.runtime.server import RunServer
from fmfl_secure.runtime.task_board import STOP, Step
from fmfl_secure.runtime.transport import DocumentRef, Work
from fmfl_secure.settings.federation import load_federation
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger

RUN = "00ff00ff"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out most of a tiny run's time: plots and admission gate have tests of their own."""
    monkeypatch.setattr("fmfl_secure.report.results.write_report", lambda *_: None)
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("template") / "federation"
    federation = make_federation(folder, tiny_model, rounds=3, evaluation=False)
    settings = federation.read_text()
    federation.write_text(f'{settings}\n[aggregation]\ncustodians = ["board"]\n')
    initialise(folder, epsilon=None, delta=None, simulated=True)
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "federation"))


class After(Quiet):
    """Does something once the first round has ended."""

    def __init__(self, what: Callable[[str], object]) -> None:
        super().__init__()
        self._what = what

    def round_finished(
        self, record: RoundRecord, epsilon: dict[str, float], upload_bytes: int
    ) -> None:
        super().round_finished(record, epsilon, upload_bytes)
        if record.round == 1:
            self._what(self.run)


def run(folder: Path, what: Callable[[str], object], *, resume: bool = False) -> After:
    observer = After(what)
    LocalEngine(folder / "federation.toml", folder / "run", resume=resume, observer=observer).run()
    return observer


def committed(folder: Path) -> list[int]:
    """Trainings that each site's ledger was charged for."""
    budgets = [
        Ledger(folder / f"sites/site-{number}/ledger.sqlite").budget() for number in (1, 2, 3)
    ]
    return [sum(len(held.commits) for held in each.reservations.values()) for each in budgets]


def released(folder: Path) -> int:
    return len(RunStore(folder / "run").rounds())


def test_the_coordinator_s_stop_ends_a_run_for_good(folder: Path) -> None:
    with pytest.raises(RunStopped, match=r"coordinator stopped run .*: a mistake in the data"):
        run(folder, lambda run: stop_run(folder, run, "a mistake in the data"))
    assert (released(folder), committed(folder)) == (1, [1, 1, 1])
    with pytest.raises(RunError, match="there is nothing to resume"):
        run(folder, lambda _: None, resume=True)


def test_a_stop_that_came_while_nothing_ran_holds_when_it_is_started_again(folder: Path) -> None:
    class Killed(BaseException):
        pass

    def dies(run: str) -> None:
        stop_run(folder, run, "while it was down")
        raise Killed

    with pytest.raises(Killed):
        run(folder, dies)
    with pytest.raises(RunStopped, match="while it was down"):
        run(folder, lambda _: None, resume=True)
    assert (released(folder), committed(folder)) == (1, [1, 1, 1])


def test_a_custodian_s_stop_lets_nothing_open_whatever_the_server_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that hides it: it knows of no stop, and asks for round after round."""
    monkeypatch.setattr(Stops, "require_none", hidden_from(RunServer, Stops.require_none))
    board = folder / "custodians/board"
    with pytest.raises(RunStopped, match="board"):
        run(folder, lambda run: stop_run(board, run, "consent was withdrawn"))
    assert released(folder) == 1, "no sum was opened after it"
    assert max(committed(folder)) <= 2, "what remains: a site may train once more, in vain"


def hidden_from(_: type[RunServer], check: Callable[..., None]) -> Callable[..., None]:
    """What a server of the adversary's asks: nothing. All others ask as they do."""

    def hides(self: Stops, run: str) -> None:
        caller = sys._getframe(1).f_code.co_filename
        if not caller.endswith("runtime/server.py"):
            check(self, run)

    return hides


def test_sites_that_were_given_a_stop_train_no_more_whatever_the_server_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stops, "require_none", hidden_from(RunServer, Stops.require_none))

    def stop(run: str) -> None:
        _, path = stop_run(folder / "custodians/board", run, "consent was withdrawn")
        for number in (1, 2, 3):
            take_stop(folder / f"sites/site-{number}", path.read_bytes())

    with pytest.raises(RunStopped):
        run(folder, stop)
    assert (released(folder), committed(folder)) == (1, [1, 1, 1]), "nothing more was charged"


def test_the_decryptor_opens_nothing_of_a_run_that_it_knows_to_be_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that goes on all the same, and sites that were told nothing."""
    monkeypatch.setattr(Stops, "require_none", hidden_from(RunServer, Stops.require_none))

    def stop(run: str) -> None:
        board = Identity.load(folder / "custodians/board/identity.pem")
        told = Stops(folder / "decryptor", Members.load(folder / "members.json"))
        told.keep(sign_stop(board, run, "board", "consent was withdrawn"))

    monkeypatch.setattr(Agent, "_give_stops", lambda *_: None)
    with pytest.raises(RunStopped):
        run(folder, stop)
    assert (released(folder), committed(folder)) == (1, [1, 1, 1]), "no keys, so no training"


def test_what_a_server_says_is_a_stop_stops_nobody(folder: Path) -> None:
    """The coordinator's server could end a run; it cannot say that a custodian did."""
    members = Members.load(folder / "members.json")
    key = Identity.load(folder / "coordinator/identity.pem")
    agent = LocalEngine(
        folder / "federation.toml", folder / "run", resume=False, observer=Quiet()
    )._agents["site-1"]
    forged = sign_stop(key, RUN, "board", "said by the server")
    agent.transport.fetch = lambda _: forged  # type: ignore[method-assign]
    document = DocumentRef("0" * 64, len(forged))
    work = Work(1, Step.END, RUN, 0, 0, {f"{STOP}board": document}, [], 0, 1 << 20)
    agent._take_stops(work)
    agent.transport.fetch = lambda _: bytes(64) + b'{"run":"\xff"}'  # type: ignore[method-assign]
    agent._take_stops(work)  # what is no UTF-8 ended the process of whoever was handed it
    Stops(folder / "sites/site-1", members).require_none(RUN)


def test_a_custodian_gives_no_word_in_a_new_process_either(folder: Path) -> None:
    board = folder / "custodians/board"
    stop_run(board, RUN, "consent was withdrawn")
    members = Members.load(board / "members.json")
    with pytest.raises(RunHalted, match="consent was withdrawn") as halted:
        Stops(board, members).require_none(RUN)
    assert halted.value.code == "stopped"
    Stops(board, members).require_none("00ff00fe")  # another run goes on
    opened = Custodian(board, "board", load_federation(folder / "federation.toml"))
    opened._run = RUN  # as after a plan of it
    with pytest.raises(RunHalted):
        opened.approve(b"", b"", [])


def test_nobody_else_stops_a_run(folder: Path) -> None:
    site = folder / "sites/site-1"
    with pytest.raises(RunError, match="site-1 can stop no run"):
        stop_run(site, RUN, "a site's own wish")
    key = Identity.load(site / "identity.pem")
    for party in ("board", "coordinator"):
        with pytest.raises(AggregationError):
            take_stop(folder / "sites/site-2", sign_stop(key, RUN, party, "forged"))
    with pytest.raises(RunError, match="'site-1' stops no run here"):
        take_stop(folder / "sites/site-2", sign_stop(key, RUN, "site-1", "its own name"))
    assert not (folder / "sites/site-2/stops").exists()
    board = Identity.load(folder / "custodians/board/identity.pem")
    other = sign_stop(board, RUN, "board", "another reason")
    with pytest.raises((AggregationError, RunError)):
        take_stop(folder / "sites/site-2", other.replace(RUN.encode(), b"00ff00fe"))


def test_a_stop_that_was_damaged_stops_all_the_same(folder: Path) -> None:
    board = folder / "custodians/board"
    _, path = stop_run(board, RUN, "consent was withdrawn")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RunHalted, match="is no stop that holds"):
        Stops(board, Members.load(board / "members.json")).require_none(RUN)


@pytest.mark.parametrize(
    ("name", "reason", "says"),
    [("../../x", "why", "no id of a run"), (RUN, " ", "expected 1 to"), (RUN, "x" * 501, "501")],
    ids=["path", "empty", "long"],
)
def test_what_is_no_stop_is_not_signed(folder: Path, name: str, reason: str, says: str) -> None:
    with pytest.raises(RunError, match=says):
        stop_run(folder, name, reason)
    assert not (folder / "stops").exists()


def test_the_command_signs_keeps_and_takes(folder: Path, main: Any) -> None:
    board, site = folder / "custodians/board", folder / "sites/site-1"
    code, printed, errors = main(
        "stop", board, "--run", RUN, "--reason", "consent was withdrawn", "--json"
    )
    assert code == 0
    kept = read_answer("stop", printed)
    assert (kept["party"], kept["run"]) == ("board", RUN)
    assert "send that file to" in errors
    code, printed, _ = main("stop", site, "--take", kept["file"], "--json")
    assert (code, json.loads(printed)["at"]) == (0, kept["at"])
    assert main("stop", site, "--run", RUN)[0] == 1
    assert main("stop", site, "--take", kept["file"], "--run", RUN)[0] == 1
    code, _, errors = main("stop", site, "--take", site / "nothing")
    assert (code, "Traceback" in errors) == (1, False)
