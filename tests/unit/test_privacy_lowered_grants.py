"""A grant can be lowered or closed, and never below what is charged to it."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledgers import write

from privacy import (
    BudgetExhausted,
    Ledger,
    LedgerDamaged,
    LedgerError,
    PlanError,
    PoissonSampledGaussian,
    export_json,
    filter_orders,
    read_export,
)
from privacy.accounting.rdp import fits

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)


@pytest.fixture
def place(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(place):
    made = Ledger.create(
        place,
        population="p", unit="record", signer=SIGNER,
        public_key=SIGNER.public_key().public_bytes_raw(),
    )  # fmt: skip
    made.grant(epsilon=8.0, delta=1e-5, population_size=1000, insider_epsilon=20.0)
    return made


def room(ledger):
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(run="too-much", event=EVENT, rounds=10**6, plan="p")
    return refusal.value.affordable_rounds


def test_a_lowered_grant_affords_less_and_what_is_held_goes_on(ledger):
    ledger.reserve(run="a", event=EVENT, rounds=3, plan="p")
    before, orders = room(ledger), ledger.budget().grants[0].orders
    lowered = ledger.lower(1, epsilon=5.0, reason="a smaller study")
    assert (lowered.epsilon, lowered.insider_epsilon, lowered.orders) == (5.0, 20.0, orders)
    assert 0 < room(ledger) < before
    ledger.reserve(run="b", event=EVENT, rounds=room(ledger), plan="p")
    (status,) = ledger.status()
    assert fits(status.charged, 5.0, status.grant.filter_delta)
    for number in range(3):
        ledger.commit(run="a", round=number + 1)


def test_it_is_never_lowered_below_what_is_charged(ledger):
    ledger.reserve(run="a", event=EVENT, rounds=room(ledger), plan="p")
    for less in (7.0, 0.1):
        with pytest.raises(LedgerError, match="is spent or reserved"):
            ledger.lower(1, epsilon=less, reason="r")
    with pytest.raises(PlanError, match="can only be lowered"):
        ledger.lower(1, epsilon=9.0, reason="r")
    with pytest.raises(PlanError, match="insider_epsilon"):
        ledger.lower(1, epsilon=8.0, insider_epsilon=21.0, reason="r")
    with pytest.raises(LedgerError, match="does not exist"):
        ledger.lower(2, epsilon=1.0, reason="r")
    with pytest.raises(LedgerError, match="reason"):
        ledger.lower(1, epsilon=8.0, reason=" ")


def test_of_a_grant_that_nothing_is_charged_to_any_amount_is_left(ledger):
    """Orders that suit epsilon 8 certify nothing below 3; of one that is charged they stay."""
    fresh = ledger.grant(epsilon=1.0, delta=1e-5)
    ledger.lower(1, epsilon=1.0, insider_epsilon=2.0, reason="far less will do")
    lowered = ledger.budget().grants[0]
    assert lowered.orders == filter_orders(1.0, lowered.filter_delta)
    affordable = room(ledger)
    ledger.reserve(run="a", event=EVENT, rounds=affordable, plan="p")
    assert ledger.budget().reservations["a"].grant in {1, fresh.number}
    with pytest.raises(LedgerError, match="by its own orders"):
        ledger.lower(ledger.budget().reservations["a"].grant, epsilon=0.1, reason="r")


def test_a_run_that_never_began_is_no_charge_and_its_ledger_is_read_on(ledger, place):
    ledger.reserve(run="a", event=EVENT, rounds=3, plan="p")
    ledger.refund(run="a", evidence="end")
    before = ledger.budget().grants[0].orders
    lowered = ledger.lower(1, epsilon=1.0, insider_epsilon=3.0, reason="a smaller study")
    assert lowered.orders != before
    again = Ledger(place, signer=SIGNER)
    assert again.budget().guarantee() == (1.0, 1e-5)
    again.reserve(run="b", event=EVENT, rounds=room(again), plan="p")
    assert 0.0 < again.status()[0].epsilon_charged <= 1.0
    assert read_export(export_json(again.records()))


def test_a_guarantee_counts_what_stood_when_data_were_used(ledger):
    ledger.lower(1, epsilon=6.0, reason="nothing was used yet")
    assert ledger.budget().guarantee()[0] == 6.0
    ledger.reserve(run="a", event=EVENT, rounds=1, plan="p")
    ledger.commit(run="a", round=1)
    ledger.lower(1, epsilon=5.0, reason="seen what it released")
    ledger.lower(1, epsilon=4.5, reason="and again")
    assert ledger.budget().grants[0].epsilon == 4.5
    assert ledger.budget().guarantee()[0] == 6.0, "the amount that was fixed beforehand"


def test_a_closed_grant_affords_nothing_and_counts_only_if_it_was_used(ledger):
    ledger.grant(epsilon=1.0, delta=5e-5)
    assert ledger.budget().guarantee() == (9.0, 6e-5)
    ledger.close_grant(2, reason="was never needed")
    assert ledger.budget().guarantee() == (8.0, 1e-5)
    ledger.grant(epsilon=1.0, delta=9e-5)  # for which there is room again

    ledger.reserve(run="a", event=EVENT, rounds=3, plan="p")
    ledger.commit(run="a", round=1)
    ledger.close_grant(1, reason="the study is over")
    (first, *_) = ledger.status()
    assert (first.epsilon_left, first.is_open, first.counts) == (0.0, False, True)
    ledger.commit(run="a", round=2)  # what was reserved goes on
    ledger.refund(run="a", evidence="e")
    ledger.close_grant(3, reason="this too")
    with pytest.raises(BudgetExhausted, match="grant 1 is closed"):
        ledger.reserve(run="b", event=EVENT, rounds=1, plan="p")
    for again in (
        lambda: ledger.close_grant(1, reason="r"),
        lambda: ledger.lower(1, epsilon=1.0, reason="r"),
    ):
        with pytest.raises(LedgerError, match="grant 1 is closed: the study is over"):
            again()
    assert ledger.budget().guarantee() == (8.0, 1e-5)


def test_an_export_says_so_and_verifies(ledger):
    ledger.reserve(run="a", event=EVENT, rounds=1, plan="p")
    ledger.commit(run="a", round=1)
    ledger.lower(1, epsilon=5.0, reason="r")
    ledger.close_grant(1, reason="the study is over")
    text = export_json(ledger.records())
    (grant,) = json.loads(text)["grants"]
    assert (grant["epsilon"], grant["lowered_from"], grant["closed"]) == (
        5.0, 8.0, "the study is over",
    )  # fmt: skip
    assert read_export(text) == ledger.records()
    with pytest.raises(LedgerDamaged):
        read_export(text.replace('"lowered_from": 8.0', '"lowered_from": 3.0'))


def hexed(number):
    return float(number).hex()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("lower", {"grant": 1, "epsilon": hexed(9), "insider_epsilon": hexed(20), "reason": "r"}),
        ("lower", {"grant": 1, "epsilon": hexed(0.5), "insider_epsilon": hexed(20), "reason": "r"}),
        ("lower", {"grant": 1, "epsilon": hexed(7), "insider_epsilon": hexed(1), "reason": "r"}),
        (
            "lower",
            {"grant": 1, "epsilon": hexed(8), "insider_epsilon": hexed(20), "orders": [17, 18]},
        ),
        ("lower", {"grant": 2, "epsilon": hexed(1), "reason": "r"}),
        ("close", {"grant": 1}),
        ("close", {"grant": 1, "reason": ""}),
        ("close", {"grant": 0, "reason": "r"}),
    ],
    ids=[
        "raised",
        "below-charged",
        "insiders-below",
        "other-orders",
        "no-grant",
        "no-reason",
        "empty",
        "zero",
    ],
)
def test_a_false_change_of_a_grant_does_not_verify(ledger, place, kind, body):
    ledger.reserve(run="a", event=EVENT, rounds=room(ledger) // 2, plan="p")
    write(place, kind, body, signer=SIGNER)
    with pytest.raises(LedgerDamaged):
        Ledger(place)


def test_nothing_is_reserved_of_a_closed_grant_though_signed(ledger, place):
    ledger.reserve(run="a", event=EVENT, rounds=1, plan="p")
    body = ledger.records()[-1].body | {"run": "b"}
    ledger.close_grant(1, reason="over")
    write(place, "reserve", body, signer=SIGNER)
    with pytest.raises(LedgerDamaged):
        Ledger(place)
