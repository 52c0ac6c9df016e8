"""Heads that others kept: what is checked against them, what is locked, what a recovery does."""

import json
import math

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import (
    Anchor,
    BudgetExhausted,
    Ledger,
    LedgerError,
    LedgerLocked,
    NonPrivate,
    PoissonSampledGaussian,
    epsilon_spent,
    rdp_cost,
    read_anchors,
)
from privacy.accounting.rdp import add_costs
from privacy.ledger.chain import canonical_json

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)
DELTA = 1e-5


def create(place, population="p", signer=SIGNER):
    ledger = Ledger.create(
        place,
        population=population,
        unit="record",
        signer=signer,
        public_key=signer.public_key().public_bytes_raw(),
    )
    ledger.grant(epsilon=3.0, delta=DELTA, population_size=1000)
    return ledger


@pytest.fixture
def place(places):
    return places.new()


@pytest.fixture
def ledger(place):
    return create(place)


def train(ledger, run, rounds, *, reserved=None, close=False):
    ledger.reserve(run=run, event=EVENT, rounds=reserved or rounds, plan="p")
    for number in range(1, rounds + 1):
        ledger.commit(run=run, round=number)
    if close:
        ledger.refund(run=run, evidence="e")


# Anchors themselves.


def test_an_anchor_is_the_head_signed(ledger):
    anchor = ledger.anchor()
    assert (anchor.sequence, anchor.digest) == ledger.head()
    assert anchor.head == "{}:{}".format(*ledger.head())
    assert anchor.population == "p"
    assert Anchor.parse(anchor.line) == anchor
    assert ledger.hold_to([anchor]) == 1


def test_an_anchor_tells_nothing_of_the_records(ledger):
    """Two ledgers that say the same have anchors that differ in what is random, and only there."""
    fields = json.loads(ledger.anchor().line)
    assert set(fields) == {"population", "public_key", "sequence", "digest", "at", "signature"}


def test_an_altered_anchor_is_refused(ledger):
    fields = json.loads(ledger.anchor().line)
    for name, value in {
        "population": "q",
        "public_key": STRANGER.public_key().public_bytes_raw().hex(),
        "sequence": 3,
        "digest": "0" * 64,
        "at": "2020-01-01T00:00:00+00:00",
        "signature": "0" * 128,
    }.items():
        with pytest.raises(LedgerError, match="not signed by the site"):
            Anchor.parse(canonical_json(fields | {name: value}))
    for name in fields:
        for value in (None, [1], "", "x", True, -1, 0):
            with pytest.raises(LedgerError, match="anchor"):
                Anchor.parse(canonical_json(fields | {name: value}))
        with pytest.raises(LedgerError, match="not a ledger's anchor"):
            Anchor.parse(canonical_json({k: v for k, v in fields.items() if k != name}))
    line = canonical_json(fields)
    junk = ("", "x", "null", "[]", "1", "{}", "[" * 9000, line + " ", line + line, line[:-1])
    for text in (*junk, json.dumps(fields), "9" * 4097):
        with pytest.raises(LedgerError, match="not a ledger's anchor"):
            Anchor.parse(text)


def test_an_anchor_of_another_signer_is_not_made(place):
    create(place)
    with pytest.raises(LedgerError, match="not signed by the site"):
        Ledger(place, signer=STRANGER).anchor()


def test_anchors_are_read_from_a_file_or_a_folder(places, tmp_path):
    lines = []
    folder = tmp_path / "officer"
    folder.mkdir()
    for number in range(3):
        lines.append(create(places.new(str(number))).anchor())
        (folder / f"{number}.txt").write_text(lines[-1].line + "\n\n")
    (folder / ".hidden").write_text("junk")
    assert read_anchors(folder) == lines
    together = tmp_path / "together"
    together.write_text("".join(anchor.line + "\n" for anchor in lines))
    assert read_anchors(together) == lines
    empty = tmp_path / "empty"
    empty.mkdir()
    assert read_anchors(empty) == []
    (folder / "3.txt").write_text(lines[0].line[:-2])
    with pytest.raises(LedgerError, match=r"3\.txt: a line is not a ledger's anchor"):
        read_anchors(folder)
    (folder / "3.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(LedgerError, match="cannot read the anchors"):
        read_anchors(folder)
    with pytest.raises(LedgerError, match="cannot read the anchors") as refusal:
        read_anchors(tmp_path / "unmounted")
    assert "mounted" in refusal.value.hint


def test_anchors_of_other_ledgers_are_passed_over(places, ledger):
    others = [
        create(places.new("q"), population="q").anchor(),
        create(places.new("s"), signer=STRANGER).anchor(),
    ]
    assert ledger.hold_to(others) == 0
    train(ledger, "r", 1)
    assert ledger.hold_to([*others, ledger.anchor()]) == 1


# Locking.


@pytest.fixture
def rolled_back(places, place, ledger):
    """A ledger put back to before run b, whose heads others kept; and what it had spent."""
    train(ledger, "a", 2, close=True)
    backup = places.lines(place)
    train(ledger, "b", 3, reserved=5)
    anchors = [ledger.anchor()]
    ledger.refund(run="b", evidence="e")
    anchors.append(ledger.anchor())
    (status,) = ledger.status()
    places.replace(place, backup)
    return anchors, status


def test_a_rolled_back_ledger_charges_nothing_until_it_is_recovered(place, rolled_back):
    anchors, _ = rolled_back
    ledger = Ledger(place, signer=SIGNER)
    ledger.reserve(run="before", event=EVENT, rounds=1, plan="p")  # nobody asked for the heads
    with pytest.raises(LedgerLocked, match="truncated or rolled back") as refusal:
        ledger.hold_to(anchors)
    assert refusal.value.code == "ledger-locked"
    assert set(refusal.value.heads) == {anchor.head for anchor in anchors}
    assert "fmfl-secure ledger recover" in refusal.value.hint
    head = ledger.head()
    for attempt in (
        lambda: ledger.reserve(run="c", event=EVENT, rounds=1, plan="p"),
        lambda: ledger.reserve(run="before", event=EVENT, rounds=1, plan="p"),
        lambda: ledger.commit(run="before", round=1),
        lambda: ledger.refund(run="before", evidence="e"),
    ):
        with pytest.raises(LedgerLocked):
            attempt()
    assert ledger.head() == head
    # What adds to the charges, or is the custodian's own, is never held up.
    ledger.record_non_private(run="x", reason="y")
    ledger.grant(epsilon=1.0, delta=DELTA, population_size=1000)


def test_a_fork_is_detected_also_when_it_has_grown_past_the_head(place, rolled_back):
    anchors, _ = rolled_back
    ledger = Ledger(place, signer=SIGNER)
    train(ledger, "other", 6, close=True)
    assert ledger.head()[0] > anchors[-1].sequence
    with pytest.raises(LedgerLocked, match="forked"):
        ledger.hold_to(anchors)


def test_a_ledger_that_is_ahead_of_every_anchor_is_fine(ledger):
    anchors = []
    for number in range(3):
        anchors.append(ledger.anchor())
        train(ledger, f"run-{number}", 1, close=True)
    assert ledger.hold_to(anchors) == 3
    train(ledger, "last", 1)


def test_a_ledger_made_anew_by_the_same_identity_is_locked(places, place, ledger):
    train(ledger, "a", 2)
    anchor = ledger.anchor()
    places.remove(place)
    fresh = create(place)
    with pytest.raises(LedgerLocked, match="rolled back"):
        Ledger(place).hold_to([anchor])
    train(fresh, "b", 4)
    with pytest.raises(LedgerLocked, match="forked"):
        Ledger(place).hold_to([anchor])


def test_a_process_notices_that_its_own_records_are_gone(places, place, ledger):
    """Put back under a run in progress: the object that wrote the records misses them."""
    train(ledger, "a", 1, reserved=3)
    backup = places.lines(place)
    ledger.commit(run="a", round=2)
    places.replace(place, backup)
    with pytest.raises(LedgerLocked, match="rolled back"):
        ledger.commit(run="a", round=3)
    with pytest.raises(LedgerLocked, match="rolled back"):
        ledger.refund(run="a", evidence="e")


# Recovery.


def test_after_a_recovery_it_goes_on_and_nothing_is_under_counted(place, rolled_back):
    anchors, before = rolled_back
    ledger = Ledger(place, signer=SIGNER)
    with pytest.raises(LedgerLocked) as refusal:
        ledger.hold_to(anchors)
    recovery = ledger.recover(refusal.value.heads, reason="backup put back", losses=[(1, EVENT, 3)])
    assert recovery.heads == tuple(sorted(a.head for a in anchors))
    assert recovery.reason == "backup put back"
    (status,) = ledger.status()
    assert status.committed == status.charged == before.committed
    assert status.epsilon_committed == before.epsilon_committed
    again = Ledger(place, signer=SIGNER)
    assert again.hold_to(anchors) == 2
    train(again, "b", 1, close=True)  # the lost run's id is free: its history is not here
    (status,) = again.status()
    assert status.committed == add_costs(before.committed, rdp_cost(EVENT, before.committed))
    spent = [spend.epsilon for spend in again.budget().history]
    assert spent == sorted(spent)
    assert spent[-1] == status.epsilon_committed == epsilon_spent(status.committed, DELTA)
    assert again.budget().events() == [
        EVENT,
        EVENT,
        EVENT,
        PoissonSampledGaussian(0.1, 2.0, 12),
    ]
    assert again.budget().guarantee() == (3.0, DELTA)


def test_charging_everything_leaves_nothing_of_grants_made_so_far(place, rolled_back):
    anchors, _ = rolled_back
    ledger = Ledger(place, signer=SIGNER)
    ledger.recover([a.head for a in anchors], reason="nobody knows", losses=None)
    assert ledger.hold_to(anchors) == 2
    (status,) = ledger.status()
    assert status.epsilon_charged == math.inf
    assert status.epsilon_left == 0.0
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(run="c", event=EVENT, rounds=1, plan="p")
    assert refusal.value.affordable_rounds == 0
    assert NonPrivate("lost, and not known") in ledger.budget().events()
    ledger.grant(
        epsilon=1.0, delta=DELTA, population_size=1000
    )  # which the custodian may, with that in the records
    assert ledger.reserve(run="c", event=EVENT, rounds=1, plan="p").grant == 2
    assert ledger.budget().guarantee() == (math.inf, 2 * DELTA)


def test_charges_beyond_a_grant_are_told_and_not_forgotten(place, rolled_back):
    """What happened, happened: the guarantee is then what was charged."""
    anchors, _ = rolled_back
    ledger = Ledger(place, signer=SIGNER)
    losses = [(1, EVENT, 60), (1, PoissonSampledGaussian(0.5, 1.0, 3), 2)]
    ledger.recover([a.head for a in anchors], reason="two runs were lost", losses=losses)
    (status,) = ledger.status()
    assert status.epsilon_charged > 3.0
    assert ledger.budget().guarantee() == (status.epsilon_charged, DELTA)
    with pytest.raises(BudgetExhausted):
        ledger.reserve(run="c", event=EVENT, rounds=1, plan="p")


def test_charging_nothing_is_a_statement_too(place, rolled_back):
    anchors, _ = rolled_back
    ledger = Ledger(place, signer=SIGNER)
    (before,) = ledger.status()
    ledger.recover([a.head for a in anchors], reason="only grants were lost", losses=[])
    assert ledger.status() == [before]
    assert ledger.hold_to(anchors) == 2


def test_a_recovery_settles_the_heads_it_names_and_no_others(place, rolled_back):
    anchors, _ = rolled_back
    ledger = Ledger(place, signer=SIGNER)
    ledger.recover([anchors[-1].head], reason="r", losses=[(1, EVENT, 3)])
    assert ledger.hold_to(anchors[-1:]) == 1
    with pytest.raises(LedgerLocked) as refusal:  # it could be of a second lost history
        ledger.hold_to(anchors)
    assert refusal.value.heads == (anchors[0].head,)
    ledger.recover([anchors[0].head], reason="the same history", losses=[])
    assert ledger.hold_to(anchors) == 2


def test_what_is_no_recovery_is_refused(place, rolled_back):
    anchors, _ = rolled_back
    ledger = Ledger(place, signer=SIGNER)
    head, own = anchors[0].head, "{}:{}".format(*ledger.head())
    kinds = [record.kind for record in ledger.records()]
    for heads, reason, losses, match in (
        ([], "r", None, "needs the heads"),
        ([head], " ", None, "needs the heads that were lost, and a reason"),
        ([own], "r", None, "nothing was lost there"),
        ([head, own], "r", None, "nothing was lost there"),
        (["rubbish"], "r", None, "not an anchor"),
        ([head], "r", [(2, EVENT, 1)], "grant 2 does not exist"),
        ([head], "r", [(0, EVENT, 1)], "grant 0 does not exist"),
        ([head], "r", [(1, EVENT, 0)], "at least 1"),
    ):
        with pytest.raises(LedgerError, match=match) as refusal:
            ledger.recover(heads, reason=reason, losses=losses)
        assert not isinstance(refusal.value, LedgerLocked)
    assert [record.kind for record in ledger.records()] == kinds


def test_a_recovery_cannot_be_taken_back(places, place, rolled_back):
    """Its own head is kept by others in turn."""
    anchors, _ = rolled_back
    ledger = Ledger(place, signer=SIGNER)
    backup = places.lines(place)
    ledger.recover([a.head for a in anchors], reason="r", losses=[(1, EVENT, 3)])
    anchors = [*anchors, ledger.anchor()]
    places.replace(place, backup)
    with pytest.raises(LedgerLocked) as refusal:
        Ledger(place, signer=SIGNER).hold_to(anchors)
    assert len(refusal.value.heads) == 3


# Names of populations that read the same.


@pytest.mark.parametrize("name", ["", " ", "wards ", "wa\u200brds", "wards\N{NO-BREAK SPACE}a"])
def test_no_ledger_is_made_for_a_name_with_what_nobody_sees(places, name):
    with pytest.raises(LedgerError, match="name is"):
        create(places.new(), population=name)


def test_a_head_of_a_name_that_reads_the_same_is_kept_to(places, monkeypatch):
    """Old ledgers may have such names: one opens, and is held to the anchors of the plain one."""
    held = create(places.new(), population="wards")
    train(held, "a", 2)
    anchor = held.anchor()
    monkeypatch.setattr("privacy.ledger.custody.plain", lambda name: name)
    again = create(places.new("again"), population="wards ")
    assert again.budget().population == "wards "
    with pytest.raises(LedgerLocked):
        again.hold_to([anchor])
