"""Races and crashes: a budget is never overspent and never under-counted, with every store."""

import multiprocessing
import os
import signal
import sqlite3
from collections import Counter

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stores import PostgresPlaces

from privacy import BudgetExhausted, Ledger, LedgerError, PoissonSampledGaussian
from privacy.accounting.rdp import fits
from privacy.storage import open_store

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)  # epsilon 3 affords 6 to 40 of it

# No thread of these tests is alive when they fork, but libraries keep pools.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def create(place):
    return Ledger.create(place, population="p", unit="record", signer=SIGNER, public_key=PUBLIC_KEY)


# Races.

PROCESSES = 8


def racer(name, jobs, outcomes, start):
    """One process: for each job, wait for all, then try one thing on the ledger."""
    for place, action in iter(jobs.get, None):
        ledger = Ledger(place, signer=SIGNER)
        start.wait()
        try:
            if action == "reserve":
                ledger.reserve(run=f"run-{name}", event=EVENT, rounds=1 + name % 2, plan="p")
            elif action == "exact":
                ledger.reserve(run=f"run-{name}", event=EVENT, rounds=3, plan="fixed")
            elif action == "same run":
                ledger.reserve(run="shared", event=EVENT, rounds=3, plan="p")
            elif action == "commit" or (action == "commit or release" and name % 2):
                ledger.commit(run="shared", round=name)
            elif action == "commit or release":
                ledger.release(run="shared", reason=str(name), anchors=[ledger.anchor()])
            elif action == "refund":
                ledger.refund(run="shared", evidence=str(name))
            elif (
                ledger.grant(epsilon=1.0 + name, delta=1e-5, population_size=1000).epsilon
                != 1.0 + name
            ):
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

    def run(place, action):
        for queue in queues:
            queue.put((place, action))
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


def race_for_the_last(race, place):
    """Eight processes ask for 1 and 2 rounds each, 12 in all, of the 5 that are left."""
    ledger = create(place)
    ledger.grant(epsilon=3.0, delta=1e-5, population_size=1000)
    ledger.reserve(run="shared", event=EVENT, rounds=3, plan="p")
    room = affordable(ledger)
    ledger.reserve(run="filler", event=EVENT, rounds=room - 5, plan="p")

    outcomes = race(place, "reserve")
    assert set(outcomes.values()) == {"done", "exhausted"}
    given = sum(1 + name % 2 for name, outcome in outcomes.items() if outcome == "done")
    left = affordable(ledger)
    assert given + left == 5
    refused = [1 + name % 2 for name, outcome in outcomes.items() if outcome == "exhausted"]
    assert left < min(refused)  # and nobody was refused what would have fitted in the end
    (status,) = ledger.status()
    assert fits(status.charged, 3.0, 1e-5)
    return ledger


def race_for_everything(race, place):
    """After the last of a budget: the same run, commits, a refund and grants."""
    ledger = race_for_the_last(race, place)
    head = ledger.head()
    assert set(race(place, "same run").values()) == {"done"}  # on the same terms, once for all
    assert ledger.head() == head

    assert Counter(race(place, "commit").values()) == {"done": 3, "exhausted": 5}
    assert ledger.budget().reservations["shared"].remaining_rounds == 0
    assert Counter(race(place, "refund").values()) == {"done": 1, "refused": 7}
    assert set(race(place, "grant").values()) == {"done"}
    budget = ledger.budget()
    assert sorted(grant.epsilon for grant in budget.grants[1:]) == [1.0 + n for n in range(8)]
    assert [grant.number for grant in budget.grants] == list(range(1, 10))


def test_racing_processes_never_overspend(race, places):
    for number in range(3):  # five races each
        race_for_everything(race, places.new(str(number)))


def test_racing_runs_share_no_exact_grant(race, places):
    """All are of the settings that it is for, and it is for one."""
    place = places.new()
    ledger = create(place)
    ledger.grant_exact(
        epsilon=2.0, delta=1e-5, event=EVENT, rounds=3, plan="fixed", population_size=1000
    )
    assert Counter(race(place, "exact").values()) == {"done": 1, "exhausted": 7}
    assert len(ledger.budget().reservations) == 1


def test_a_release_races_commits(race, places):
    """Each training stands before the release, and was not given back, or was refused."""
    for number in range(3):
        place = places.new(str(number))
        ledger = create(place)
        ledger.grant(epsilon=3.0, delta=1e-5, population_size=1000)
        ledger.reserve(run="shared", event=EVENT, rounds=6, plan="p")
        outcomes = race(place, "commit or release")
        assert set(outcomes.values()) == {"done", "refused"}
        records = ledger.records()
        kinds = [record.kind for record in records[3:]]
        begun = kinds.count("commit")
        assert kinds == ["commit"] * begun + ["release"]
        assert records[-1].body["rounds"] == 6 - begun
        assert begun == sum(outcomes[name] == "done" for name in outcomes if name % 2)
        held = ledger.budget().reservations["shared"]
        assert (held.open, held.charged_rounds) == (False, begun)


@pytest.mark.slow
def test_a_thousand_races(race, places):
    """For the last of a budget, a thousand times."""
    for number in range(1000):
        place = places.new(str(number))
        race_for_the_last(race, place)
        places.remove(place)


def test_racing_to_create_makes_one_ledger(places):
    context = multiprocessing.get_context("fork")
    for number in range(5):
        place = places.new(str(number))
        start, outcomes = context.Barrier(4), context.Queue()

        def contend(place=place, start=start, outcomes=outcomes):
            start.wait()
            try:
                create(place)
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
        assert [record.kind for record in Ledger(place).records()] == ["open"]


# Crashes: a child is killed before or after each SQL statement that it runs, or, where a server
# runs it, once it was sent.


class Death:
    """At which statement this process dies, and whether before it, once sent, or after."""

    countdown = 0
    when = ""

    @classmethod
    def arm(cls, statement, when, kind):
        cls.countdown, cls.when = statement, when
        if kind == "sqlite":
            real = sqlite3.connect
            sqlite3.connect = lambda *a, **k: real(*a, factory=KilledSqlite, **k)
        else:
            import psycopg

            psycopg.Connection.execute = killed_postgres(psycopg.Connection.execute)

    @classmethod
    def comes(cls, *whens):
        if cls.countdown == 0 and cls.when in whens:
            os.kill(os.getpid(), signal.SIGKILL)


class KilledSqlite(sqlite3.Connection):
    def execute(self, sql, *parameters):
        Death.countdown -= 1
        Death.comes("before")
        result = super().execute(sql, *parameters)
        Death.comes("after")
        return result


def killed_postgres(execute):
    def armed(self, query, params=None, **more):
        Death.countdown -= 1
        Death.comes("before")
        if Death.countdown == 0 and Death.when == "sent" and params is None:
            text = query if isinstance(query, bytes) else query.encode()
            self.pgconn.send_query(text)
            while self.pgconn.flush():
                pass
            Death.comes("sent")
        result = execute(self, query, params, **more)
        Death.comes("after", "sent")
        return result

    return armed


def die_at(statement, *, when, places, action):
    """Run an action in a child that dies at a statement; whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            Death.arm(statement, when, places.kind)
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


HEAD = f"9:{'a' * 64}"
ACTIONS = {
    "grant": lambda ledger: ledger.grant(epsilon=1.0, delta=1e-5, population_size=1000),
    "reserve": lambda ledger: ledger.reserve(run="new", event=EVENT, rounds=2, plan="p"),
    "commit": lambda ledger: ledger.commit(run="old", round=2),
    "refund": lambda ledger: ledger.refund(run="old", evidence="e"),
    "release": lambda ledger: ledger.release(run="old", reason="r", anchors=[ledger.anchor()]),
    "recover": lambda ledger: ledger.recover([HEAD], reason="r", losses=[(1, EVENT, 1)]),
    "non-private": lambda ledger: ledger.record_non_private(run="x", reason="y"),
}


def prepare(place):
    ledger = create(place)
    ledger.grant(epsilon=3.0, delta=1e-5, population_size=1000)
    ledger.reserve(run="old", event=EVENT, rounds=3, plan="p")
    ledger.commit(run="old", round=1)
    return place


def kill_at_each_statement(places, kind, when):
    """What a finished call reported is there, and every ledger left behind verifies and works."""
    template, seen = prepare(places.new()), set()
    before = Ledger(template).records()
    for statement in range(1, 40):
        # Opened first, so that the child's statements are those of the action alone.
        ledger = Ledger(places.copy(template, f"{kind}-{statement}"), signer=SIGNER)
        finished = die_at(
            statement,
            when=when,
            places=places,
            action=lambda kept=ledger: ACTIONS[kind](kept),
        )
        records = ledger.records()
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


CHARGES = ("reserve", "commit", "release")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", CHARGES)
def test_a_kill_at_any_statement_leaves_all_or_nothing(places, kind, when):
    kill_at_each_statement(places, kind, when)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", sorted(set(ACTIONS) - set(CHARGES)))
def test_a_kill_at_any_statement_of_the_rest_too(places, kind, when):
    kill_at_each_statement(places, kind, when)


@pytest.mark.parametrize("kind", ["reserve", "commit"])
def test_a_kill_with_any_statement_on_its_way_leaves_all_or_nothing(postgres, kind):
    """The server has what it takes to commit, and nobody is there to hear that it did."""
    kill_at_each_statement(PostgresPlaces(postgres), kind, "sent")


def test_data_are_never_read_before_the_charge_is_durable(places, tmp_path):
    """Whatever the child did after `commit` returned, the record of it is on disk."""
    template, uncharged = prepare(places.new()), 0
    for statement in range(1, 40):
        place, touched = places.copy(template, str(statement)), tmp_path / f"{statement}.read"
        ledger = Ledger(place, signer=SIGNER)

        def train(ledger=ledger, touched=touched):
            ledger.commit(run="old", round=2)
            touched.write_text("data were read")
            ledger.commit(run="old", round=3)

        finished = die_at(statement, when="after", places=places, action=train)
        rounds = [number for number, _ in Ledger(place).budget().reservations["old"].commits]
        if touched.exists():
            assert 2 in rounds
        uncharged += rounds == [1]
        if finished:
            assert rounds == [1, 2, 3]
            break
    else:
        pytest.fail("the training never came to its end")
    assert uncharged > 0  # some deaths came early enough for there to be nothing to charge


def test_a_kill_while_creating_never_leaves_a_ledger_that_is_not_one(places):
    for statement in range(1, 40):
        place = places.new(str(statement))
        finished = die_at(
            statement, when="before", places=places, action=lambda place=place: create(place)
        )
        try:
            kinds = [record.kind for record in Ledger(place).records()]
        except LedgerError:
            assert not finished
        else:
            assert kinds == ["open"]
        if finished:
            break
    else:
        pytest.fail("creation never came to its end")


def test_a_writer_that_dies_holding_the_lock_blocks_nobody(places):
    place = prepare(places.new())
    ledger = Ledger(place, signer=SIGNER)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open_store(place).write() as transaction:
            transaction.execute("INSERT INTO records VALUES (99, 'half')")
            os.write(writing, b"x")
            signal.pause()
    os.read(reading, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    ledger.commit(run="old", round=2)
    assert [r.kind for r in ledger.records()] == ["open", "grant", "reserve", "commit", "commit"]
