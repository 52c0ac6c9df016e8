"""Races and crashes: a budget is never overspent and never under-counted."""

import multiprocessing
import os
import signal
import sqlite3
from collections import Counter

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import BudgetExhausted, Ledger, LedgerError, PoissonSampledGaussian
from privacy.accounting import fits

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)  # epsilon 3 affords 6 to 40 of it

# No thread of these tests is alive when they fork, but libraries keep pools.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def create(path):
    return Ledger.create(path, population="p", unit="record", signer=SIGNER, public_key=PUBLIC_KEY)


# Races.

PROCESSES = 8


def racer(name, jobs, outcomes, start):
    """One process: for each job, wait for all, then try one thing on the ledger."""
    for path, action in iter(jobs.get, None):
        ledger = Ledger(path, signer=SIGNER)
        start.wait()
        try:
            if action == "reserve":
                ledger.reserve(run=f"run-{name}", event=EVENT, rounds=1 + name % 2, plan="p")
            elif action == "same run":
                ledger.reserve(run="shared", event=EVENT, rounds=3, plan="p")
            elif action == "commit":
                ledger.commit(run="shared", round=name)
            elif action == "refund":
                ledger.refund(run="shared", evidence=str(name))
            elif ledger.grant(epsilon=1.0 + name, delta=1e-5).epsilon != 1.0 + name:
                raise ValueError("another process's grant came back")
            outcome = "done"
        except BudgetExhausted:
            outcome = "exhausted"
        except LedgerError as error:
            outcome = "refused" if type(error) is LedgerError else repr(error)
        except Exception as error:  # noqa: BLE001  (whatever it is, the test must see it)
            outcome = repr(error)
        outcomes.put((name, outcome))


@pytest.fixture
def race():
    """Runs one action in all processes at once; name by outcome."""
    context = multiprocessing.get_context("fork")
    start, outcomes = context.Barrier(PROCESSES), context.Queue()
    queues = [context.Queue() for _ in range(PROCESSES)]
    workers = [
        context.Process(target=racer, args=(name, queues[name], outcomes, start), daemon=True)
        for name in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()

    def run(path, action):
        for queue in queues:
            queue.put((path, action))
        return dict(outcomes.get(timeout=120) for _ in range(PROCESSES))

    yield run
    for queue in queues:
        queue.put(None)
    for worker in workers:
        worker.join(timeout=30)
        assert worker.exitcode == 0


def affordable(ledger):
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(run="too-much", event=EVENT, rounds=10**6, plan="p")
    return refusal.value.affordable_rounds


def race_once(race, path):
    """Reservations, then commits, a refund and grants, each by eight processes at once."""
    ledger = create(path)
    ledger.grant(epsilon=3.0, delta=1e-5)
    ledger.reserve(run="shared", event=EVENT, rounds=3, plan="p")
    room = affordable(ledger)
    ledger.reserve(run="filler", event=EVENT, rounds=room - 5, plan="p")

    # Asked for: four times 1 round and four times 2, of the 5 that are left.
    outcomes = race(path, "reserve")
    assert set(outcomes.values()) == {"done", "exhausted"}
    given = sum(1 + name % 2 for name, outcome in outcomes.items() if outcome == "done")
    left = affordable(ledger)
    assert given + left == 5
    refused = [1 + name % 2 for name, outcome in outcomes.items() if outcome == "exhausted"]
    assert left < min(refused)  # and nobody was refused what would have fitted in the end
    (status,) = ledger.status()
    assert fits(status.charged, 3.0, 1e-5)

    head = ledger.head()
    assert set(race(path, "same run").values()) == {"done"}  # on the same terms, once for all
    assert ledger.head() == head

    assert Counter(race(path, "commit").values()) == {"done": 3, "exhausted": 5}
    assert ledger.budget().reservations["shared"].remaining_rounds == 0
    assert Counter(race(path, "refund").values()) == {"done": 1, "refused": 7}
    assert set(race(path, "grant").values()) == {"done"}
    budget = ledger.budget()
    assert sorted(grant.epsilon for grant in budget.grants[1:]) == [1.0 + n for n in range(8)]
    assert [grant.number for grant in budget.grants] == list(range(1, 10))


def test_racing_processes_never_overspend(race, tmp_path):
    for number in range(6):  # five races each
        race_once(race, tmp_path / f"{number}.sqlite")


@pytest.mark.slow
def test_a_thousand_races(race, tmp_path):
    for number in range(200):
        race_once(race, tmp_path / f"{number}.sqlite")


def test_racing_to_create_makes_one_ledger(tmp_path):
    context = multiprocessing.get_context("fork")
    for number in range(5):
        path = tmp_path / f"{number}.sqlite"
        start, outcomes = context.Barrier(4), context.Queue()

        def contend(path=path, start=start, outcomes=outcomes):
            start.wait()
            try:
                create(path)
            except Exception as error:  # noqa: BLE001
                outcomes.put(type(error).__name__)
            else:
                outcomes.put("created")

        workers = [context.Process(target=contend) for _ in range(4)]
        for worker in workers:
            worker.start()
        seen = Counter(outcomes.get(timeout=60) for _ in workers)
        for worker in workers:
            worker.join()
        assert seen == {"created": 1, "LedgerError": 3}
        assert [record.kind for record in Ledger(path).records()] == ["open"]


# Crashes: a child is killed before or after each SQL statement that it runs.


class Killed(sqlite3.Connection):
    """A connection whose process dies at one of its statements."""

    countdown = 0
    after = False

    def execute(self, sql, *parameters):
        Killed.countdown -= 1
        if Killed.countdown == 0 and not Killed.after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = super().execute(sql, *parameters)
        if Killed.countdown == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result


def die_at(statement, *, after, action):
    """Run an action in a child that dies at a statement; whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            Killed.countdown, Killed.after = statement, after
            real = sqlite3.connect
            sqlite3.connect = lambda *a, **k: real(*a, factory=Killed, **k)
            action()
        except BaseException:  # noqa: BLE001
            os._exit(3)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


ACTIONS = {
    "grant": lambda ledger: ledger.grant(epsilon=1.0, delta=1e-5),
    "reserve": lambda ledger: ledger.reserve(run="new", event=EVENT, rounds=2, plan="p"),
    "commit": lambda ledger: ledger.commit(run="old", round=2),
    "refund": lambda ledger: ledger.refund(run="old", evidence="e"),
    "non-private": lambda ledger: ledger.record_non_private(run="x", reason="y"),
}


def prepare(path):
    ledger = create(path)
    ledger.grant(epsilon=3.0, delta=1e-5)
    ledger.reserve(run="old", event=EVENT, rounds=3, plan="p")
    ledger.commit(run="old", round=1)
    return ledger


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("kind", ACTIONS)
def test_a_kill_at_any_statement_leaves_all_or_nothing(tmp_path, kind, after):
    """What a finished call reported is there, and every ledger left behind verifies and works."""
    seen = set()
    for statement in range(1, 30):
        ledger = prepare(tmp_path / f"{statement}.sqlite")
        before = ledger.records()
        # Read first, so that a call which returned is one that the child could have acted on.
        finished = die_at(statement, after=after, action=lambda kept=ledger: ACTIONS[kind](kept))
        records = Ledger(tmp_path / f"{statement}.sqlite").records()
        assert records[: len(before)] == before
        added = [record.kind for record in records[len(before) :]]
        assert added in ([], [kind])
        seen.add(len(added))
        if finished:
            assert added == [kind]
        if not added:  # nothing happened, so it can be done again
            ACTIONS[kind](ledger)
        assert [r.kind for r in ledger.records()][len(before) :] == [kind]
        if finished:
            break
    else:
        pytest.fail("the action never came to its end")
    assert seen == {0, 1}


def test_data_are_never_read_before_the_charge_is_durable(tmp_path):
    """Whatever the child did after `commit` returned, the record of it is on disk."""
    uncharged = 0
    for statement in range(1, 30):
        path, touched = tmp_path / f"{statement}.sqlite", tmp_path / f"{statement}.read"
        ledger = prepare(path)

        def train(ledger=ledger, touched=touched):
            ledger.commit(run="old", round=2)
            touched.write_text("data were read")
            ledger.commit(run="old", round=3)

        finished = die_at(statement, after=True, action=train)
        rounds = [number for number, _ in Ledger(path).budget().reservations["old"].commits]
        if touched.exists():
            assert 2 in rounds
        uncharged += rounds == [1]
        if finished:
            assert rounds == [1, 2, 3]
            break
    else:
        pytest.fail("the training never came to its end")
    assert uncharged > 0  # some deaths came early enough for there to be nothing to charge


def test_a_kill_while_creating_never_leaves_a_ledger_that_is_not_one(tmp_path):
    for statement in range(1, 30):
        path = tmp_path / f"{statement}.sqlite"
        finished = die_at(statement, after=False, action=lambda path=path: create(path))
        try:
            kinds = [record.kind for record in Ledger(path).records()]
        except LedgerError:
            assert not finished
        else:
            assert kinds == ["open"]
        if finished:
            break
    else:
        pytest.fail("creation never came to its end")


def test_a_writer_that_dies_holding_the_lock_blocks_nobody(tmp_path):
    ledger = prepare(tmp_path / "l.sqlite")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        connection = sqlite3.connect(tmp_path / "l.sqlite", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO records VALUES (99, 'half')")
        os.write(writing, b"x")
        signal.pause()
    os.read(reading, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    ledger.commit(run="old", round=2)
    assert [r.kind for r in ledger.records()] == ["open", "grant", "reserve", "commit", "commit"]
