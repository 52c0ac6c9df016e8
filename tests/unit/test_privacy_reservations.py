"""Reservations end: by time, or by their owner; and whatever ended never begins again."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledgers import write

from privacy import (
    Anchor,
    BudgetExhausted,
    Ledger,
    LedgerDamaged,
    LedgerError,
    LedgerLocked,
    PoissonSampledGaussian,
    export_json,
    read_export,
)
from privacy.ledger import times

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)
DAY = timedelta(days=1)


class Clock:
    def __init__(self):
        self.now = datetime(2027, 3, 1, 12, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(times, "_clock", clock)
    return clock


@pytest.fixture
def place(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(place, clock):
    made = Ledger.create(place, population="p", unit="record", signer=SIGNER, public_key=PUBLIC_KEY)
    made.grant(epsilon=3.0, delta=1e-5, population_size=1000)
    return made


def all_of_it(ledger, run, **more):
    """Reserve all that the grant affords; how many rounds."""
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(run=run, event=EVENT, rounds=10**6, plan="p", **more)
    rounds = refusal.value.affordable_rounds
    if rounds:
        ledger.reserve(run=run, event=EVENT, rounds=rounds, plan="p", **more)
    return rounds


def kinds(ledger):
    return [record.kind for record in ledger.records()]


def test_the_owner_closes_a_run_that_nobody_ends(ledger):
    rounds = all_of_it(ledger, "invented")
    ledger.commit(run="invented", round=1)
    spent = ledger.status()[0].committed
    assert all_of_it(ledger, "honest") == 0, "and nobody could do anything about it"

    back = ledger.release(run="invented", reason="nobody knows it", anchors=[ledger.anchor()])
    assert back == rounds - 1
    (status,) = ledger.status()
    assert status.charged == status.committed == spent, "what was begun stays charged"
    assert all_of_it(ledger, "honest") == rounds - 1, "and the rest is there for others"


def test_a_released_run_never_begins_again(ledger):
    ledger.reserve(run="a", event=EVENT, rounds=3, plan="p")
    anchors = [ledger.anchor()]
    ledger.release(run="a", reason="over", anchors=anchors)
    before = ledger.head()
    for attempt in (
        lambda: ledger.commit(run="a", round=1),
        lambda: ledger.reserve(run="a", event=EVENT, rounds=3, plan="p"),
        lambda: ledger.reserve(run="a", event=EVENT, rounds=1, plan="q"),
        lambda: ledger.refund(run="a", evidence="e"),
        lambda: ledger.release(run="a", reason="again", anchors=anchors),
    ):
        with pytest.raises(LedgerError, match=r"is closed \(over\)"):
            attempt()
    assert ledger.head() == before


def test_a_release_needs_heads_that_others_kept(ledger, place, tmp_path):
    ledger.reserve(run="a", event=EVENT, rounds=3, plan="p")
    with pytest.raises(LedgerError, match="none of the anchors is of this ledger"):
        ledger.release(run="a", reason="over", anchors=[])
    other = Ledger.create(
        tmp_path / "other.sqlite",
        population="others", unit="record", signer=SIGNER, public_key=PUBLIC_KEY,
    )  # fmt: skip
    with pytest.raises(LedgerError, match="none of the anchors is of this ledger"):
        ledger.release(run="a", reason="over", anchors=[other.anchor()])
    with pytest.raises(LedgerError, match="reason"):
        ledger.release(run="a", reason=" ", anchors=[ledger.anchor()])

    # A ledger put back has forgotten a training, and would give back what that cost.
    yesterday = place.with_name("yesterday.sqlite")
    with closing(sqlite3.connect(place)) as live, closing(sqlite3.connect(yesterday)) as copy:
        live.backup(copy)
    ledger.commit(run="a", round=1)
    kept = ledger.anchor()
    with pytest.raises(LedgerLocked):
        Ledger(yesterday, signer=SIGNER).release(run="a", reason="over", anchors=[kept])


def test_what_has_not_begun_in_time_never_begins(ledger, clock):
    rounds = all_of_it(ledger, "slow", lasts=3 * DAY)
    ledger.commit(run="slow", round=1)
    clock.now += 3 * DAY - timedelta(seconds=1)
    ledger.commit(run="slow", round=2)
    clock.now += timedelta(seconds=1)
    with pytest.raises(LedgerError, match="expired at 2027-03-04T12:00:00"):
        ledger.commit(run="slow", round=3)
    with pytest.raises(LedgerError, match="expired"):
        ledger.reserve(run="slow", event=EVENT, rounds=rounds, plan="p")
    assert all_of_it(ledger, "next") == rounds - 2, "which closed what had expired"
    assert kinds(ledger)[-2:] == ["expire", "reserve"]
    held = ledger.budget().reservations["slow"]
    assert (held.open, held.released, held.charged_rounds) == (False, "expired", 2)


def test_a_clock_that_is_put_back_opens_nothing_again(ledger, clock):
    rounds = all_of_it(ledger, "slow", lasts=DAY)
    clock.now += DAY
    ledger.grant(epsilon=0.5, delta=1e-6)  # any record at that time
    clock.now -= 2 * DAY
    with pytest.raises(LedgerError, match="expired"):
        ledger.commit(run="slow", round=1)
    ledger.reserve(run="next", event=EVENT, rounds=rounds, plan="p")
    with pytest.raises(LedgerError, match="is closed"):
        ledger.commit(run="slow", round=1)
    at = [record.at for record in ledger.records()]
    assert at == sorted(at)


def test_every_reservation_has_an_expiry(ledger):
    held = ledger.reserve(run="a", event=EVENT, rounds=1, plan="p")
    assert held.expires == "2027-03-31T12:00:00+00:00"
    with pytest.raises(LedgerError, match="at least a second"):
        ledger.reserve(run="b", event=EVENT, rounds=1, plan="p", lasts=timedelta(0))


def test_exports_say_how_a_run_ended(ledger, clock):
    ledger.reserve(run="a", event=EVENT, rounds=1, plan="p", call="sha256:ab", lasts=DAY)
    ledger.reserve(run="b", event=EVENT, rounds=1, plan="p")
    ledger.release(run="b", reason="unknown here", anchors=[ledger.anchor()])
    clock.now += DAY
    ledger.reserve(run="c", event=EVENT, rounds=1, plan="p")
    text = export_json(ledger.records())
    runs = {run["run"]: run for run in json.loads(text)["runs"]}
    assert (runs["a"]["released"], runs["a"]["call"]) == ("expired", "sha256:ab")
    assert runs["b"]["released"] == "unknown here"
    assert read_export(text) == ledger.records()
    with pytest.raises(LedgerDamaged):
        read_export(text.replace('"released": "unknown here"', '"released": "all was well"'))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("release", {"run": "a", "rounds": 3, "reason": "more than is left"}),
        ("release", {"run": "a", "rounds": 2, "reason": ""}),
        ("release", {"run": "a", "rounds": 2}),
        ("release", {"run": "b", "rounds": 0, "reason": "never reserved"}),
        ("expire", {"run": "a", "rounds": 2}),
    ],
    ids=["gives-back-too-much", "no-reason", "reason-missing", "no-such-run", "before-its-time"],
)
def test_a_ledger_with_a_false_end_does_not_verify(ledger, place, kind, body):
    ledger.reserve(run="a", event=EVENT, rounds=3, plan="p")
    ledger.commit(run="a", round=1)
    write(place, kind, body, signer=SIGNER)
    with pytest.raises(LedgerDamaged):
        Ledger(place)


def test_a_ledger_with_a_training_after_its_time_does_not_verify(ledger, place, clock):
    ledger.reserve(run="a", event=EVENT, rounds=3, plan="p", lasts=DAY)
    clock.now += DAY
    write(place, "commit", {"run": "a", "round": 1}, signer=SIGNER)
    with pytest.raises(LedgerDamaged):
        Ledger(place)


def test_an_anchor_of_another_key_is_no_anchor(ledger):
    stranger = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
    ledger.reserve(run="a", event=EVENT, rounds=1, plan="p")
    sequence, digest = ledger.head()
    false = Anchor.sign(
        population="p", public_key=stranger.public_key().public_bytes_raw(),
        sequence=sequence, digest=digest, signer=stranger,
    )  # fmt: skip
    with pytest.raises(LedgerError, match="none of the anchors"):
        ledger.release(run="a", reason="over", anchors=[false])
