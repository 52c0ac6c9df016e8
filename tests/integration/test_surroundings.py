"""What the surroundings fail ends no run, excludes nobody, and is charged once.

Locked databases, full disks and bad sectors are put between the parties and their files; the
clock is virtual. Over the in-process transport here, over HTTPS and Flower in the slow tests.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import forked
import pytest
from faults import Faults, Killed
from limited import run_limited, run_on_tmpfs
from support import Quiet, make_federation

from aggregation import Aggregator, Decryptor, SiteAttempt
from fmfl_secure.cli.exit_codes import ExitCode, exit_code
from fmfl_secure.errors import ANY_FAILURE, RunStopped, Unavailable, is_passing
from fmfl_secure.parties.coordinator import Coordinator
from fmfl_secure.parties.custodian import Custodian
from fmfl_secure.report.results import build_record
from fmfl_secure.runtime.patience import Patience
from fmfl_secure.storage.run_store import RunStore
from fmfl_secure.storage.update_store import UpdateStore
from fmfl_secure.transports.local.engine import LocalEngine
from privacy import Ledger

pytestmark = pytest.mark.usefixtures("quick")

SITES = ("site-1", "site-2", "site-3")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("surroundings") / "federation"
    make_federation(
        folder, tiny_model, sites=3, rounds=2, steps=1, evaluation=False,
        aggregation='custodians = ["board"]',
    )  # fmt: skip
    return folder


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    made = Faults()
    made.install(monkeypatch)
    return made


def engine(folder: Path, *, resume: bool = False) -> LocalEngine:
    return LocalEngine(folder / "federation.toml", folder / "run", resume=resume, observer=Quiet())


def charged(folder: Path) -> dict[str, list[int]]:
    """Rounds that each site's ledger was charged with, in order."""
    found = {}
    for name in SITES:
        budget = Ledger(folder / f"sites/{name}/ledger.sqlite").budget()
        found[name] = [n for held in budget.reservations.values() for n, _ in held.commits]
    return found


def assert_whole(folder: Path) -> None:
    """The run finished, nobody was left out of a round, and each was charged once."""
    record = build_record(RunStore(folder / "run"))
    assert (record.status, record.stop_reason) == ("finished", "")
    assert [r.status for r in record.rounds] == ["released"] * 2
    assert [r.cohort for r in record.rounds] == [SITES] * 2
    assert [r.refusals for r in record.rounds] == [{}] * 2
    assert charged(folder) == {name: [1, 2] for name in SITES}


def test_a_state_that_is_locked_for_long_ends_no_run(folder: Path, faults: Faults) -> None:
    started = engine(folder)
    faults.ask = faults.for_a_while("state.sqlite", 75.0)
    started.run()
    faults.ask = lambda *_: None
    assert faults.clock() >= 75.0
    assert_whole(folder)


# Calls 1 to 3 are the three sites in round 1. Statements are those that the parties' files get.
ONCE = [
    ("site-2/ledger.sqlite", "INSERT", 1),  # the reservation
    ("site-2/ledger.sqlite", "INSERT", 2),  # the charge
    ("site-2/ledger.sqlite", "COMMIT", 2),
    ("site-2/updates.sqlite", "INSERT", 1),
    ("site-2/updates.sqlite", "COMMIT", 1),
    ("site-2/journal.sqlite", "INSERT INTO entries", 2),
    ("site-2/journal.sqlite", "INSERT INTO entries", 3),
    ("site-2/journal.sqlite", "INSERT INTO entries", 4),
    ("site-2/journal.sqlite", "COMMIT", 5),
    ("site-2/anchors.sqlite", "INSERT", 2),
    ("decryptor/journal.sqlite", "INSERT INTO entries", 2),
    ("decryptor/journal.sqlite", "INSERT INTO entries", 3),  # a release, its keys gone
    ("board/journal.sqlite", "INSERT INTO entries", 2),
    ("board/journal.sqlite", "INSERT INTO entries", 3),  # the word
    ("coordinator/anchors.sqlite", "INSERT", 3),
    ("run/state.sqlite", "INSERT INTO attempts", 1),
    ("run/state.sqlite", "UPDATE attempts SET cohort", 1),
    ("run/state.sqlite", "UPDATE attempts SET opening_list", 1),
    ("run/state.sqlite", "INSERT INTO rounds", 1),
    ("run/state.sqlite", "COMMIT", 6),
]


SAMPLE = (1, 3, 11, 18)  # the others in the slow tests


@pytest.mark.parametrize(
    "where",
    [
        pytest.param(
            where,
            id="-".join(map(str, where)).replace("/", "-"),
            marks=() if place in SAMPLE else pytest.mark.slow,
        )
        for place, where in enumerate(ONCE)
    ],
)
def test_one_failed_write_changes_nothing(
    folder: Path, faults: Faults, where: tuple[str, str, int]
) -> None:
    started = engine(folder)
    faults.ask = faults.once(*where)
    started.run()
    faults.ask = lambda *_: None
    assert len(faults.told) == 1
    assert_whole(folder)


@pytest.mark.parametrize(
    "file",
    [
        "run/state.sqlite",
        *(
            pytest.param(file, marks=pytest.mark.slow)
            for file in (
                "site-2/ledger.sqlite",
                "site-2/journal.sqlite",
                "site-2/updates.sqlite",
                "site-2/anchors.sqlite",
                "decryptor/journal.sqlite",
                "board/journal.sqlite",
                "coordinator/anchors.sqlite",
            )
        ),
    ],
)
def test_what_stays_away_interrupts_and_the_run_goes_on(
    folder: Path, faults: Faults, file: str
) -> None:
    started = engine(folder)
    faults.ask = faults.for_a_while(file, 1e9, code="SQLITE_FULL")
    with pytest.raises(Exception, match="full") as told:
        started.run()
    assert told.value.nature == "passing"
    assert 600.0 <= faults.clock() < 3600.0
    faults.ask = lambda *_: None
    assert build_record(RunStore(folder / "run")).status == "interrupted"
    engine(folder, resume=True).run()
    assert_whole(folder)


def test_a_file_that_is_gone_is_damage_and_no_end(folder: Path) -> None:
    started = engine(folder)
    kept = folder / "kept"
    kept.mkdir()
    for file in (folder / "run").glob("state.sqlite*"):
        shutil.move(file, kept)
    with pytest.raises(Exception, match="nothing is at") as told:
        started.run()
    assert told.value.nature == "damage"
    for file in kept.iterdir():
        shutil.move(file, folder / "run")
    engine(folder, resume=True).run()
    assert_whole(folder)


def test_a_disk_that_fails_at_the_end_keeps_the_run(
    folder: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter's files are written last: their disk may fail, and be mended."""
    started, sync = engine(folder), os.fsync

    def failing(descriptor: int) -> None:
        if faults.clock() < 100.0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    started.run()
    assert faults.clock() >= 100.0
    assert (folder / "run/adapter").is_dir()
    assert_whole(folder)


# Each at its second call, whoever makes that: other calls and parties are met in the slow tests.
NO_MEMORY = [
    (Ledger, "reserve"), (Ledger, "commit"), (Ledger, "refund"), (UpdateStore, "get"),
    (SiteAttempt, "ready"), (SiteAttempt, "exchange"), (SiteAttempt, "upload"),
    (SiteAttempt, "open"), (SiteAttempt, "verify"), (Decryptor, "announce"),
    (Decryptor, "confirm"), (Decryptor, "release"), (Custodian, "ready"), (Custodian, "approve"),
    (Aggregator, "add"), (Aggregator, "total"), (Coordinator, "apply"), (RunStore, "fix_cohort"),
    (RunStore, "list_openings"), (RunStore, "finish_round"),
]  # fmt: skip
_MEMORY_SAMPLE = (1, 6, 11)


@pytest.mark.parametrize(
    ("owner", "call"),
    [
        pytest.param(
            *where,
            id=f"{where[0].__name__}-{where[1]}",
            marks=() if place in _MEMORY_SAMPLE else pytest.mark.slow,
        )
        for place, where in enumerate(NO_MEMORY)
    ],
)
def test_memory_that_is_short_for_a_moment_ends_and_excludes_nothing(
    folder: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch, owner: type, call: str
) -> None:
    started, original, calls = engine(folder), getattr(owner, call), []

    def short(self, *given, **named):
        calls.append(call)
        if len(calls) == 2:
            raise MemoryError
        return original(self, *given, **named)

    monkeypatch.setattr(owner, call, short)
    started.run()
    assert len(calls) > 2
    assert faults.clock() > 0
    assert_whole(folder)


def test_memory_that_stays_short_interrupts(
    folder: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Decryptor, "release", raises(MemoryError()))
        with pytest.raises(MemoryError) as told:
            engine(folder).run()
    assert exit_code(told.value) == ExitCode.INTERRUPTED
    assert faults.clock() >= 600.0
    record = build_record(RunStore(folder / "run"))
    assert record.status == "interrupted"
    assert "there is not enough memory" in record.stop_reason
    # Its secrets were in memory: the opened round is lost, and nobody is left out.
    engine(folder, resume=True).run()
    record = build_record(RunStore(folder / "run"))
    assert record.status == "finished"
    assert all(not r.refusals for r in record.rounds)


def raises(error: Exception):
    def call(*_, **__):
        raise error

    return call


@pytest.mark.slow  # processes of their own
@pytest.mark.parametrize("limit", ["AS", "DATA"])
@pytest.mark.parametrize("mib", [0, 2, 4, 8, 12, 16, 24, 32, 48, 64])
def test_a_limit_of_memory_damages_nothing(folder: Path, limit: str, mib: int) -> None:
    """It is a passing fault, or a named end: a training that finds no memory is a failed one.

    Some libraries end the process themselves where memory is short, as the system may; SEAL waits
    for ever for a lock of its own, and is ended.
    """
    process = forked.start(run_limited, folder, limit, mib << 20)
    process.join(timeout=120)
    if process.exitcode is None:
        process.kill()
        process.join()
    said = (folder / "said").read_text() if (folder / "said").exists() else ""
    assert not said or process.exitcode in {ExitCode.INTERRUPTED, ExitCode.STOPPED}, said
    died = not said and process.exitcode != 0
    store = RunStore(folder / "run")
    if not store.state.ended:
        with suppress(RunStopped):  # sites that failed in a training stay out
            engine(folder, resume=True).run()
    record = build_record(RunStore(folder / "run"))
    refusals = {code for each in record.rounds for code in each.refusals.values()}
    refusals |= {site.refusal for site in record.sites if site.refusal}
    assert refusals <= {"failed"}, record.stop_reason
    assert record.status == "finished" or refusals, record.stop_reason
    for rounds in charged(folder).values():
        assert died or len(set(rounds)) == len(rounds)


WRITERS = ["run", "sites/site-2", "decryptor", "custodians/board", "coordinator"]


@pytest.mark.parametrize(
    ("writer", "room"),
    [("decryptor", 32)]
    + [
        pytest.param(writer, room, marks=pytest.mark.slow)
        for writer in WRITERS
        for room in (16, 32, 64, 128, 256, 400)
        if (writer, room) != ("decryptor", 32)
    ],
)
def test_a_small_disk_interrupts_and_on_a_larger_one_the_run_goes_on(
    folder: Path, writer: str, room: int
) -> None:
    """A tmpfs of a few hundred KiB, filled by what its writer writes, and then made larger."""
    process = forked.start(run_on_tmpfs, folder, writer, room)
    process.join(timeout=300)
    if (folder / "skipped").exists():
        pytest.skip((folder / "skipped").read_text())
    assert process.exitcode == 0
    said = (folder / "said").read_text() if (folder / "said").exists() else ""
    assert not said or said.startswith("75 "), said
    assert said or room > 32, "so little room is filled"
    shutil.copytree(folder / "after", folder / writer, dirs_exist_ok=True)
    record = build_record(RunStore(folder / "run"))
    assert (record.status, record.stop_reason) == ("finished", "")
    assert all(not each.refusals for each in record.rounds)
    assert sum(each.status == "lost" for each in record.rounds) <= bool(said)
    for rounds in charged(folder).values():
        assert len(set(rounds)) == len(rounds)


@pytest.mark.slow  # processes of their own
@pytest.mark.parametrize(
    ("limit", "amount"),
    [("NOFILE", 0), ("NOFILE", 3), ("FSIZE", 4096), ("FSIZE", 65_536), ("FSIZE", 200_000)],
)
def test_a_limit_of_the_system_interrupts_and_the_run_goes_on(
    folder: Path, limit: str, amount: int
) -> None:
    """What a full tmpfs, or a process without descriptors, does to whoever writes first."""
    process = forked.start(run_limited, folder, limit, amount)
    process.join(timeout=300)
    said = (folder / "said").read_text() if (folder / "said").exists() else ""
    assert process.exitcode in {0, 75}, said
    assert (process.exitcode == 0) == (not said)
    if process.exitcode:
        engine(folder, resume=True).run()
    assert_whole(folder)


def test_patience_ends_and_begins_anew(faults: Faults) -> None:
    patience, error = Patience(100.0, clock=faults.clock), Unavailable("the disk is full")

    def spell() -> list[float]:
        pauses: list[float] = []

        def wait_for_ever() -> None:
            while True:
                pauses.append(patience.pause_after(error))
                faults.clock.now += pauses[-1]

        with pytest.raises(Unavailable, match="the disk is full"):
            wait_for_ever()
        return pauses

    first = spell()
    assert first[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(first) == 30.0
    assert 100.0 <= sum(first) <= 130.0
    patience.worked()
    assert spell() == first
    faults.clock.now += 301.0  # long after, it is another one
    assert patience.pause_after(error) == 0.5


@pytest.mark.parametrize("seed", range(1))
def test_random_faults(folder: Path, faults: Faults, seed: int) -> None:
    _random_run(folder, faults, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 200))
def test_random_faults_in_numbers(folder: Path, faults: Faults, seed: int) -> None:
    _random_run(folder, faults, seed)


def _random_run(folder: Path, faults: Faults, seed: int) -> None:
    """Storage fails at random; in two of three runs the process dies once, and is started again.

    It dies at the server's own state: what a site was charged for and could not store before a kill
    is charged again, which is what `test_kill_and_resume` is about.
    """
    started, resumed = engine(folder), 0
    faults.ask = faults.at_random(seed)
    if seed % 3:
        faults.kill_by = ("state.sqlite", random.Random(seed).randrange(5, 150))
    while True:
        try:
            started.run()
        except (Killed, *ANY_FAILURE) as error:
            # It may fail for ten minutes on end: whoever runs it starts it again.
            if resumed == 5 or not (isinstance(error, Killed) or is_passing(error)):
                raise
            resumed += 1
            faults.kill_by = ("", 0)
            ask, faults.ask = faults.ask, lambda *_: None
            if RunStore(folder / "run").state.ended:  # killed while it wrote its results
                break
            started = engine(folder, resume=True)
            faults.ask = ask
        else:
            break
    faults.ask, faults.kill_by = lambda *_: None, ("", 0)
    assert faults.told
    record = build_record(RunStore(folder / "run"))
    assert (record.status, record.stop_reason) == ("finished", "")
    assert all(not r.refusals for r in record.rounds)
    # An end may cost an opened round, whose secrets were in memory; a passing fault costs none.
    assert sum(r.status == "lost" for r in record.rounds) <= resumed
    for rounds in charged(folder).values():
        assert len(set(rounds)) == len(rounds)
