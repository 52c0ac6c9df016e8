"""Shares of distributed noise in a ledger: what everyone learns, and what other sites learn."""

import dataclasses
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import (
    Budget,
    BudgetExhausted,
    Dataset,
    DatasetCap,
    Ledger,
    LedgerDamaged,
    PlanError,
    PoissonSampledGaussian,
)
from privacy.accounting.rdp import FAILURE_SHARE, add_costs, filter_delta, fits, rdp_cost, zero_cost
from privacy.ledger.chain import verify_lines
from privacy.ledger.export import export_json, read_export
from privacy.mechanism.distributed import DistributedPlan

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
DELTA = 1e-5
OWN = PoissonSampledGaussian(0.1, 2.0, 1)  # noise of the site's own


@pytest.fixture(scope="module")
def plan():
    return DistributedPlan.calibrated(
        unit="record",
        population=1000,
        largest_population=1000,
        sample_rate=0.1,
        max_grad_norm=1.0,
        dimension=500,
        min_cohort=4,
        colluding_sites=1,
        rounds=20,
        repeats=0,
        epsilon=2.0,
        delta=DELTA,
    )


@pytest.fixture
def ledger(tmp_path):
    return Ledger.create(
        tmp_path / "ledger.sqlite",
        population="people",
        unit="record",
        signer=SIGNER,
        public_key=PUBLIC_KEY,
    )


def reserve(ledger, event, rounds, run="run", **more):
    return ledger.reserve(run=run, event=event, rounds=rounds, plan="p", **more)


def test_a_calibrated_run_fits_its_two_figures_to_the_last_step(ledger, plan):
    ledger.grant(
        epsilon=2.0, delta=DELTA, population_size=1000, insider_epsilon=plan.insider_epsilon()
    )
    reserve(ledger, plan.round_event(), 20)
    for number in range(1, 21):
        ledger.commit(run="run", round=number)
    (status,) = ledger.status()
    assert 1.95 < status.epsilon_committed <= 2.0
    assert status.epsilon_committed < status.insider_epsilon_committed <= plan.insider_epsilon()
    assert status.insider_epsilon_charged == status.insider_epsilon_committed
    assert 0 < status.failures <= DELTA * FAILURE_SHARE
    with pytest.raises(BudgetExhausted):
        reserve(ledger, plan.round_event(), 1, run="one more")


def test_the_second_figure_refuses_what_the_first_would_allow(ledger, plan):
    # Enough for outsiders many times over, and a tenth too little for insiders.
    insider = plan.insider_epsilon() - 0.1
    ledger.grant(epsilon=insider, delta=DELTA, population_size=1000, insider_epsilon=insider)
    event = plan.round_event()
    orders = ledger.status()[0].grant.orders
    alone = add_costs(zero_cost(orders), rdp_cost(event, orders), 20)
    assert fits(alone, insider, filter_delta(DELTA))
    with pytest.raises(BudgetExhausted) as refusal:
        reserve(ledger, event, 20)
    most = refusal.value.affordable_rounds
    assert 0 < most < 20
    reserve(ledger, event, most)
    with pytest.raises(BudgetExhausted):
        reserve(ledger, event, 1, run="one more")


def test_a_grant_that_does_not_name_other_sites_permits_no_shares(ledger, plan):
    ledger.grant(epsilon=1000.0, delta=DELTA, population_size=1000)
    with pytest.raises(BudgetExhausted) as refusal:
        reserve(ledger, plan.round_event(), 1)
    assert refusal.value.affordable_rounds == 0
    reserve(ledger, OWN, 1)
    assert ledger.status()[0].insider_epsilon_charged is None


def test_noise_of_its_own_counts_in_both_figures(ledger):
    ledger.grant(epsilon=2.0, delta=DELTA, population_size=1000, insider_epsilon=4.0)
    reserve(ledger, OWN, 10)
    (status,) = ledger.status()
    for orders, charged in (
        (status.grant.orders, status.charged),
        (status.grant.insider_orders, status.insider_charged),
    ):
        assert charged == add_costs(zero_cost(orders), rdp_cost(OWN, orders), 10)
    assert status.failures == 0


def test_failures_are_bounded_by_their_share_of_delta(ledger, plan):
    ledger.grant(epsilon=30.0, delta=DELTA, population_size=1000, insider_epsilon=39.0)
    share = DELTA * FAILURE_SHARE
    risky = dataclasses.replace(plan.round_event(), failure_probability=share / 2.5)
    with pytest.raises(BudgetExhausted) as refusal:
        reserve(ledger, risky, 3)
    assert refusal.value.affordable_rounds == 2
    reserve(ledger, risky, 2)


def test_a_smaller_figure_for_other_sites_than_for_everyone_is_refused(ledger):
    with pytest.raises(PlanError, match="expected at least epsilon 2"):
        ledger.grant(epsilon=2.0, delta=DELTA, population_size=1000, insider_epsilon=1.0)
    assert ledger.status() == []


@pytest.mark.parametrize(
    "change",
    [
        {"insider_epsilon": (1.0).hex()},  # below epsilon
        {"insider_epsilon": (100.0).hex()},  # another than its orders' is sound, and not signed
        {"insider_orders": []},
        {"insider_orders": [1, 2]},
        {"insider_epsilon": "many"},
    ],
)
def test_a_changed_second_figure_does_not_verify(ledger, change):
    ledger.grant(epsilon=2.0, delta=DELTA, population_size=1000, insider_epsilon=4.0)
    lines = [record.to_line() for record in ledger.records()]
    changed = json.loads(lines[1])
    changed["body"].update(change)
    lines[1] = json.dumps(changed, sort_keys=True, separators=(",", ":"))
    with pytest.raises(LedgerDamaged):
        Budget.replay(verify_lines(lines))


def test_the_export_tells_both_figures_and_checks_them(ledger, plan, tmp_path):
    ledger.grant(
        epsilon=2.0, delta=DELTA, population_size=1000, insider_epsilon=plan.insider_epsilon()
    )
    reserve(ledger, plan.round_event(), 20)
    ledger.commit(run="run", round=1)
    text = export_json(ledger.records())
    document = json.loads(text)
    assert document["grants"][0]["insider_epsilon"] == plan.insider_epsilon()
    assert (
        document["grants"][0]["insider_epsilon_charged"] > document["grants"][0]["epsilon_charged"]
    )
    read_export(text)
    forged = text.replace('"insider_epsilon_charged": ', '"insider_epsilon_charged": 1')
    with pytest.raises(LedgerDamaged):
        read_export(forged)


def test_a_data_sets_cap_counts_shares_as_everyone_sees_them(ledger, plan):
    ledger.grant(epsilon=20.0, delta=DELTA, population_size=1000, insider_epsilon=39.0)
    capped = Dataset("scans", DatasetCap.of(2.0, DELTA))
    reserve(ledger, plan.round_event(), 20, dataset=capped)
    assert ledger.budget().headroom(capped).rounds(plan.round_event()) == 0
    assert ledger.budget().headroom().rounds(plan.round_event()) > 0
