"""One population, one ledger, several identities: who may write what in it."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledgers import write

from privacy import (
    BudgetExhausted,
    Ledger,
    LedgerDamaged,
    LedgerError,
    LedgerLocked,
    PoissonSampledGaussian,
    export_json,
    read_export,
)


def key(number):
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def public(signer):
    return signer.public_key().public_bytes_raw()


CUSTODIAN, FIRST, SECOND, STRANGER = (key(n) for n in (1, 2, 3, 4))
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(place):
    made = Ledger.create(
        place, population="p", unit="record", signer=CUSTODIAN, public_key=public(CUSTODIAN)
    )
    made.grant(epsilon=3.0, delta=1e-5, population_size=1000)
    made.admit(public(FIRST), name="federation one")
    made.admit(public(SECOND), name="federation two")
    return made


def reserve(ledger, run, rounds=2):
    return ledger.reserve(run=run, event=EVENT, rounds=rounds, plan="p")


def test_two_federations_charge_one_budget(ledger, place):
    one, two = Ledger(place, signer=FIRST), Ledger(place, signer=SECOND)
    reserve(one, "a")
    reserve(two, "b")
    one.commit(run="a", round=1)
    two.commit(run="b", round=1)
    one.refund(run="a", evidence="e")
    with pytest.raises(BudgetExhausted) as refusal:
        reserve(two, "c", 10**6)
    alone = Ledger.create(
        place.with_name("alone"),
        population="p", unit="record", signer=CUSTODIAN, public_key=public(CUSTODIAN),
    )  # fmt: skip
    alone.grant(epsilon=3.0, delta=1e-5, population_size=1000)
    with pytest.raises(BudgetExhausted) as of_alone:
        reserve(alone, "c", 10**6)
    assert refusal.value.affordable_rounds == of_alone.value.affordable_rounds - 3
    budget = Ledger(place).budget()
    assert [held.signer for held in budget.reservations.values()] == [
        public(FIRST).hex(),
        public(SECOND).hex(),
    ]


def test_a_federation_charges_and_closes_its_own_runs_alone(ledger, place):
    one, two = Ledger(place, signer=FIRST), Ledger(place, signer=SECOND)
    reserve(one, "a")
    for other in (
        lambda: two.commit(run="a", round=1),
        lambda: two.refund(run="a", evidence="e"),
        lambda: two.release(run="a", reason="mine now", anchors=[two.anchor()]),
        lambda: reserve(two, "a"),
    ):
        with pytest.raises(LedgerError, match="another identity of this ledger"):
            other()
    ledger.release(run="a", reason="the custodian says so", anchors=[two.anchor()])
    with pytest.raises(LedgerError, match="is closed"):
        one.commit(run="a", round=1)


def test_only_a_custodian_decides(ledger, place):
    one = Ledger(place, signer=FIRST)
    for decision in (
        lambda: one.grant(epsilon=1.0, delta=1e-6),
        lambda: one.lower(1, epsilon=1.0, reason="r"),
        lambda: one.close_grant(1, reason="r"),
        lambda: one.admit(public(STRANGER), name="s"),
        lambda: one.dismiss(public(SECOND), reason="r"),
        lambda: one.recover([f"99:{'a' * 64}"], reason="r", losses=[]),
    ):
        with pytest.raises(LedgerError, match="custodian"):
            decision()
    assert len(ledger.records()) == 4


def test_a_stranger_and_whoever_was_dismissed_write_nothing(ledger, place):
    with pytest.raises(LedgerError, match="would not verify"):
        reserve(Ledger(place, signer=STRANGER), "a")
    one = Ledger(place, signer=FIRST)
    rounds = reserve(one, "a").rounds
    one.commit(run="a", round=1)
    ledger.dismiss(public(FIRST), reason="the federation is over")
    with pytest.raises(LedgerError):
        one.commit(run="a", round=2)
    with pytest.raises(LedgerError):
        reserve(Ledger(place, signer=FIRST), "b")
    held = ledger.budget().reservations["a"]
    assert held.charged_rounds == rounds, "what it holds stays held until a custodian releases it"
    ledger.release(run="a", reason="over", anchors=[ledger.anchor()])
    assert ledger.budget().reservations["a"].charged_rounds == 1
    ledger.admit(public(FIRST), name="federation one again")
    reserve(Ledger(place, signer=FIRST), "b")


def test_custody_is_handed_over_and_never_lost(ledger, place):
    with pytest.raises(LedgerError, match="last custodian"):
        ledger.dismiss(public(CUSTODIAN), reason="tired")
    ledger.admit(public(STRANGER), name="the new custodian", custodian=True)
    new = Ledger(place, signer=STRANGER)
    new.dismiss(public(CUSTODIAN), reason="its key was copied")
    new.grant(epsilon=1.0, delta=1e-6)
    with pytest.raises(LedgerError):
        ledger.grant(epsilon=1.0, delta=1e-6)
    assert new.anchor().public_key == public(STRANGER).hex()


@pytest.mark.parametrize(
    ("kind", "body", "signer"),
    [
        ("grant", {"signer": public(FIRST).hex()}, FIRST),
        ("reserve", {}, FIRST),
        ("reserve", {"signer": public(SECOND).hex()}, FIRST),
        ("reserve", {"signer": public(STRANGER).hex()}, STRANGER),
        ("reserve", {"signer": public(CUSTODIAN).hex()}, CUSTODIAN),
        ("admit", {"key": "0" * 64, "name": "s", "signer": public(FIRST).hex()}, FIRST),
        ("admit", {"key": public(FIRST).hex(), "name": "twice"}, CUSTODIAN),
        ("admit", {"key": "ab", "name": "no key"}, CUSTODIAN),
        ("dismiss", {"key": public(STRANGER).hex(), "reason": "r"}, CUSTODIAN),
        ("dismiss", {"key": public(CUSTODIAN).hex(), "reason": "r"}, CUSTODIAN),
    ],
    ids=[
        "grants", "unnamed", "as-another", "stranger", "two-names", "admits", "twice", "no-key",
        "unknown", "last-custodian",
    ],
)  # fmt: skip
def test_what_an_identity_may_not_sign_does_not_verify(ledger, place, kind, body, signer):
    """Whoever holds a key can write what the product would not."""
    terms = {
        "grant": lambda: ledger.records()[1].body | {"grant": 2},
        "reserve": lambda: _reserved(place),
    }
    write(place, kind, terms.get(kind, dict)() | body, signer=signer)
    with pytest.raises(LedgerDamaged):
        Ledger(place)


def _reserved(place):
    """The body of a sound reservation."""
    twin = place.with_name("twin")
    made = Ledger.create(
        twin, population="p", unit="record", signer=CUSTODIAN, public_key=public(CUSTODIAN)
    )
    made.grant(epsilon=3.0, delta=1e-5, population_size=1000)
    reserve(made, "a")
    return made.records()[-1].body


def test_heads_of_every_identity_hold_the_ledger(ledger, place):
    one = Ledger(place, signer=FIRST)
    early = Ledger(place).records()
    reserve(one, "a")
    kept = one.anchor()
    assert kept.public_key == public(FIRST).hex()
    assert ledger.budget().require_anchors([kept]) == 1
    from privacy import Budget

    with pytest.raises(LedgerLocked):
        Budget.replay(early).require_anchors([kept])
    # What was dismissed cannot have seen later heads, whatever it signs.
    ledger.dismiss(public(FIRST), reason="over")
    sequence, digest = ledger.head()
    from privacy import Anchor

    false = Anchor.sign(
        population="p", public_key=public(FIRST), sequence=sequence + 9, digest=digest, signer=FIRST
    )
    budget = ledger.budget()
    assert budget.own_heads([kept, false]) == [kept.head]
    foreign = Anchor.sign(
        population="p", public_key=public(STRANGER), sequence=99, digest=digest, signer=STRANGER
    )
    assert budget.own_heads([foreign]) == []


def test_an_export_names_who_signs_and_verifies(ledger, place):
    reserve(Ledger(place, signer=FIRST), "a")
    ledger.dismiss(public(SECOND), reason="over")
    text = export_json(ledger.records())
    document = json.loads(text)
    assert [(s["name"], s["dismissed"]) for s in document["signers"]] == [
        ("federation one", None),
        ("federation two", 6),
    ]
    assert document["runs"][0]["signer"] == public(FIRST).hex()
    assert read_export(text) == ledger.records()
    with pytest.raises(LedgerDamaged):
        read_export(text.replace('"name": "federation one"', '"name": "federation 1"', 1))


def test_names_and_reasons_are_asked_for(ledger):
    with pytest.raises(LedgerError, match="name"):
        ledger.admit(public(STRANGER), name=" ")
    with pytest.raises(LedgerError, match="reason"):
        ledger.dismiss(public(FIRST), reason="")
    with pytest.raises(LedgerError, match="already"):
        ledger.admit(public(CUSTODIAN), name="me")
