"""Budgets of single data sets within a population's ledger."""

import math

import dp_accounting
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dp_accounting.rdp import RdpAccountant, rdp_privacy_accountant

from privacy import (
    Budget,
    Dataset,
    DatasetCap,
    Ledger,
    LedgerDamaged,
    LedgerError,
    PlanError,
    PoissonSampledGaussian,
    PolicyRefusal,
)
from privacy.accounting.rdp import filter_orders
from privacy.ledger.chain import new_record
from privacy.ledger.datasets import parse_dataset

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
DELTA = 1e-5
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)
CAP = DatasetCap.of(3.0, DELTA)
LETTERS, SCANS = Dataset("letters", CAP), Dataset("scans", CAP)


@pytest.fixture
def ledger(tmp_path):
    made = Ledger.create(
        tmp_path / "ledger.sqlite",
        population="cardiology",
        unit="record",
        signer=SIGNER,
        public_key=PUBLIC_KEY,
    )
    made.grant(epsilon=8.0, delta=DELTA, population_size=1000)
    return made


def reserve(ledger, run, dataset, rounds, event=EVENT):
    return ledger.reserve(run=run, event=event, rounds=rounds, plan="p", dataset=dataset)


def most(ledger, dataset):
    """Rounds that the data set's own cap still covers."""
    return ledger.budget().headroom(dataset).dataset.rounds(EVENT)


def test_a_data_set_s_cap_binds_below_its_population_s_grant(ledger):
    rounds = most(ledger, LETTERS)
    assert rounds < ledger.budget().headroom().rounds(EVENT)
    with pytest.raises(PolicyRefusal, match=r"letters.*epsilon 3 at delta 1e-05") as refusal:
        reserve(ledger, "a", LETTERS, rounds + 1)
    assert refusal.value.code == "policy.epsilon_per_dataset"
    assert f"would fit: {rounds} round" in refusal.value.hint
    assert ledger.budget().reservations == {}, "nothing was written"
    reserve(ledger, "a", LETTERS, rounds)
    with pytest.raises(PolicyRefusal, match="1 round more would go beyond"):
        reserve(ledger, "b", LETTERS, 1)


def test_the_cap_is_exact_against_dp_accounting_computed_apart(ledger):
    rounds = most(ledger, LETTERS)

    def epsilon(times):
        orders = list(filter_orders(CAP.epsilon, CAP.delta))
        accountant = RdpAccountant(orders)
        gaussian = dp_accounting.GaussianDpEvent(EVENT.noise_multiplier)
        sampled = dp_accounting.PoissonSampledDpEvent(EVENT.sample_rate, gaussian)
        accountant.compose(dp_accounting.SelfComposedDpEvent(sampled, EVENT.steps * times))
        return min(
            rdp_privacy_accountant.compute_epsilon([order], [rho], DELTA / 2)[0]
            for order, rho in zip(orders, accountant.rdp, strict=True)
        )

    assert epsilon(rounds) <= CAP.epsilon < epsilon(rounds + 1)


def test_data_sets_of_one_population_are_capped_apart_and_charge_one_grant(ledger):
    rounds = most(ledger, LETTERS)
    reserve(ledger, "a", LETTERS, rounds)
    assert most(ledger, SCANS) == rounds
    alone = ledger.status()[0].epsilon_charged
    reserve(ledger, "b", SCANS, rounds)
    assert ledger.status()[0].epsilon_charged > alone


def test_a_run_that_named_no_data_set_counts_against_each(ledger):
    before = most(ledger, LETTERS)
    reserve(ledger, "old", None, 3)
    assert most(ledger, LETTERS) == before - 3
    assert most(ledger, SCANS) == before - 3


def test_a_run_named_before_there_was_a_cap_counts_against_it(ledger):
    before = most(ledger, LETTERS)
    reserve(ledger, "a", Dataset("letters"), 3)
    assert most(ledger, LETTERS) == before - 3
    assert most(ledger, SCANS) == before


def test_rounds_that_never_started_come_back_to_the_data_set(ledger):
    before = most(ledger, LETTERS)
    reserve(ledger, "a", LETTERS, 5)
    ledger.commit(run="a", round=1)
    ledger.refund(run="a", evidence="e")
    assert most(ledger, LETTERS) == before - 1


def test_a_non_private_use_exhausts_every_data_set(ledger):
    ledger.record_non_private(run="baseline", reason="test")
    assert most(ledger, LETTERS) == 0
    assert ledger.budget().headroom(LETTERS).dataset.epsilon_spent == math.inf


def test_a_resumed_run_keeps_its_data_set_and_pays_once(ledger):
    held = reserve(ledger, "a", LETTERS, 5)
    assert reserve(ledger, "a", LETTERS, 5) == held
    assert reserve(ledger, "a", Dataset("letters"), 5) == held, "a cap that was taken away"
    for other in (SCANS, None):
        with pytest.raises(LedgerError, match="another data set"):
            reserve(ledger, "a", other, 5)


def test_a_cap_that_was_lowered_stops_a_run_that_is_held(ledger):
    reserve(ledger, "a", LETTERS, 20)
    tight = Dataset("letters", DatasetCap.of(0.5, DELTA))
    with pytest.raises(PolicyRefusal, match="above it already") as refusal:
        reserve(ledger, "a", tight, 20)
    assert refusal.value.code == "policy.epsilon_per_dataset"


def test_a_reservation_reads_back_as_it_was_made(ledger):
    for run, dataset in (("a", LETTERS), ("b", Dataset("scans")), ("c", None)):
        reserve(ledger, run, dataset, 1)
        assert ledger.budget().reservations[run].dataset == dataset
    assert [record.body.get("dataset") for record in ledger.records()[2:]] == [
        {"name": "letters", "epsilon": (3.0).hex(), "delta": DELTA.hex(), "orders": [*CAP.orders]},
        {"name": "scans"},
        None,
    ]


def appended(ledger, **changes):
    """The ledger's records with another reservation after them, signed, whatever it says."""
    records = ledger.records()
    body = dict(records[-1].body) | {"run": "forged"} | changes
    body = {name: value for name, value in body.items() if value is not ...}
    return [
        *records,
        new_record(previous=records[-1], kind="reserve", body=body, signer=SIGNER),
    ]


def test_replay_checks_a_data_set_s_cap_though_signed(ledger):
    rounds = most(ledger, LETTERS)
    reserve(ledger, "a", LETTERS, rounds)
    with pytest.raises(LedgerDamaged, match="does not add up"):
        Budget.replay(appended(ledger, rounds=1))
    Budget.replay(appended(ledger, rounds=1, dataset={"name": "scans"}))
    Budget.replay(appended(ledger, rounds=1, dataset=...))


def capped(**changes):
    sound = {"name": "x", "epsilon": (3.0).hex(), "delta": DELTA.hex(), "orders": [6, 7]}
    return sound | changes


def test_a_sound_data_set_is_read_whatever_its_orders(ledger):
    """Orders were fixed when it was written; a later choice of orders changes nothing."""
    for orders in ([6, 7], [5], [4, 9, 30]):
        assert parse_dataset(capped(orders=orders)).cap.orders == tuple(orders)
        reserve(ledger, f"run-{orders}", parse_dataset(capped(orders=orders)), 1)
    ledger.budget()


@pytest.mark.parametrize(
    "dataset",
    [
        None,
        "letters",
        [],
        {},
        {"name": ""},
        {"name": 5},
        {"name": "x" * 201},
        {"name": "x", "epsilon": (1.0).hex(), "orders": [6, 7]},
        {"name": "x", "epsilon": (1.0).hex(), "delta": (1e-5).hex()},
        {"name": "x", "delta": (1e-5).hex()},
        capped(epsilon="inf"),
        capped(epsilon="0x1p+0"),
        capped(epsilon=1.0),
        capped(delta=(1.0).hex()),
        capped(orders=[]),
        capped(orders=[1, 2]),
        capped(orders=[7, 6]),
        capped(orders=[6, 6]),
        capped(orders=[6.0]),
        capped(orders=[True, 6]),
        capped(orders="67"),
        capped(orders=None),
        {"name": "x", "more": 1},
    ],
    ids=str,
)
def test_a_malformed_data_set_is_refused_though_signed(ledger, dataset):
    with pytest.raises(PlanError):
        parse_dataset(dataset)
    reserve(ledger, "a", None, 1)
    with pytest.raises(LedgerDamaged):
        Budget.replay(appended(ledger, dataset=dataset))


def test_a_cap_without_a_usable_order_is_refused():
    with pytest.raises(PlanError, match="no Renyi order"):
        DatasetCap.of(1e-3, 1e-9)


@pytest.mark.parametrize(
    "name", ["letters ", " letters", "let\u200bters", "letters\N{NO-BREAK SPACE}"]
)
def test_a_name_that_reads_the_same_buys_no_second_cap(ledger, name):
    rounds = most(ledger, LETTERS)
    reserve(ledger, "a", LETTERS, rounds)
    with pytest.raises(PolicyRefusal, match="epsilon 3"):
        reserve(ledger, "b", Dataset(name, CAP), 1)
    assert reserve(ledger, "a", Dataset(name, CAP), rounds).dataset == LETTERS, "and is the same"
