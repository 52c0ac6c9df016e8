"""Deltas of a ledger's grants, added up: what is refused, and what stands of what is there."""

import math
from decimal import Decimal
from functools import partial

import ledgers
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import (
    BudgetExhausted,
    Dataset,
    DatasetCap,
    Ledger,
    LedgerDamaged,
    PlanError,
    PoissonSampledGaussian,
    PrivacyPlan,
    pld_epsilon,
)
from privacy.accounting.rdp import filter_orders, rdp_cost
from privacy.ledger.export import export_json, read_export
from privacy.limits import MAX_EPSILON, add, largest_delta, rounded_up
from privacy.mechanism.distributed import DistributedPlan

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC_KEY = SIGNER.public_key().public_bytes_raw()
EVENT = PoissonSampledGaussian(0.1, 2.0, 4)
WHY = "the ethics board accepted it on 3 May: nobody is in the data who did not publish it"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(place):
    return Ledger.create(place, population="p", unit="record", signer=SIGNER, public_key=PUBLIC_KEY)


write = partial(ledgers.write, signer=SIGNER)
written_grant = partial(ledgers.written_grant, signer=SIGNER)


def written_reservation(place, *, grant, run="old", rounds=1, **more):
    body = {
        "run": run,
        "grant": grant,
        "event": EVENT.canonical(),
        "rounds": rounds,
        "cost": {str(order): cost for order, cost in rdp_cost(EVENT, (6, 7)).items()},
        "plan": "p",
        "purpose": "",
    }
    write(place, "reserve", body | more)


def reserve(ledger, run="r", *, rounds=1, **more):
    return ledger.reserve(run=run, event=EVENT, rounds=rounds, plan="p", **more)


# What a person states.


NUMBERS = [0.0, -1.0, math.nan, math.inf, -math.inf, 1e308, 2 * MAX_EPSILON, 10**400]


@pytest.mark.parametrize("value", [*NUMBERS, True, "8", None], ids=lambda value: str(value)[:9])
def test_an_epsilon_that_is_none_is_refused_by_name(ledger, value):
    with pytest.raises(PlanError, match="epsilon is"):
        ledger.grant(epsilon=value, delta=1e-5, population_size=1000)
    if value is not None:
        with pytest.raises(PlanError, match="insider_epsilon is"):
            ledger.grant(epsilon=1.0, delta=1e-5, population_size=1000, insider_epsilon=value)
    with pytest.raises(PlanError, match="epsilon is"):
        DatasetCap.of(value, 1e-5)
    with pytest.raises(PlanError, match="epsilon is"):
        filter_orders(value, 1e-5)
    assert ledger.budget().grants == []


def test_a_flag_is_no_epsilon_though_it_equals_one(ledger):
    ledger.grant(epsilon=1.0, delta=1e-5, population_size=1000)  # fills whatever is cached
    with pytest.raises(PlanError, match="epsilon is True"):
        ledger.grant(epsilon=True, delta=1e-5)


@pytest.mark.parametrize(
    "value", [0.0, -1e-5, 1.0, 1.4, math.nan, math.inf, True, False, "1e-5"], ids=str
)
def test_a_delta_that_is_none_is_refused_by_name(ledger, value):
    for refused in (
        lambda: ledger.grant(epsilon=1.0, delta=value, population_size=1, delta_reason=WHY),
        lambda: DatasetCap.of(1.0, value),
        lambda: DatasetCap(1.0, value, (6, 7)),
        lambda: plan(delta=value),
        lambda: shares(delta=value),
    ):
        with pytest.raises(PlanError, match="delta is"):
            refused()
    assert ledger.budget().grants == []


@pytest.mark.parametrize("value", [0, -1, True, 1000.0, "1000", math.inf, 1 << 54], ids=str)
def test_a_population_size_that_is_none_is_refused_by_name(ledger, value):
    with pytest.raises(PlanError, match="population_size is"):
        ledger.grant(epsilon=1.0, delta=1e-20, population_size=value)
    ledger.grant(epsilon=1.0, delta=1e-5, population_size=1000)
    with pytest.raises(PlanError, match="population_size is"):
        reserve(ledger, population_size=value)
    for make in (plan, shares):
        with pytest.raises(PlanError, match="population is"):
            make(population=value)


def plan(**changes):
    values = {
        "unit": "record", "population": 1000, "sample_rate": 0.1, "max_grad_norm": 1.0,
        "noise_multiplier": 1.0, "steps_per_round": 1, "rounds": 1, "repeats": 0, "delta": 1e-5,
    }  # fmt: skip
    return PrivacyPlan(**(values | changes))


def shares(**changes):
    values = {
        "unit": "record", "population": 1000, "largest_population": 1000, "sample_rate": 0.1,
        "max_grad_norm": 1.0, "dimension": 10, "min_cohort": 3, "colluding_sites": 1,
        "share_variance": 1 << 40, "rounds": 1, "repeats": 0, "delta": 1e-5,
    }  # fmt: skip
    return DistributedPlan(**(values | changes))


# The sum of deltas.


def test_a_grant_needs_a_declared_size_until_the_ledger_knows_one(ledger):
    with pytest.raises(PlanError, match="needs the declared size") as refusal:
        ledger.grant(epsilon=1.0, delta=1e-9)
    assert "--population-size" in refusal.value.hint
    ledger.grant(epsilon=1.0, delta=1e-5, population_size=1000)
    assert ledger.grant(epsilon=1.0, delta=1e-5).population_size is None
    assert ledger.budget().population_size == 1000


def test_a_sum_above_a_tenth_of_one_over_n_is_refused_without_a_reason(ledger):
    for epsilon, delta in ((8.0, 0.5), (1.0, 0.9), (1.0, 1.1e-4)):
        with pytest.raises(PlanError, match=r"above 1 / \(10 x 1,000 declared units\)") as refusal:
            ledger.grant(epsilon=epsilon, delta=delta, population_size=1000, delta_reason="  ")
        assert "--delta-reason" in refusal.value.hint
    assert ledger.budget().guarantee() == (0.0, 0.0)
    ledger.grant(epsilon=1.0, delta=9e-5, population_size=1000)
    with pytest.raises(PlanError, match=r"add up to 0\.00011"):
        ledger.grant(epsilon=1.0, delta=2e-5)
    ledger.grant(epsilon=1.0, delta=1e-5)
    assert ledger.budget().guarantee() == (2.0, 1e-4)


@pytest.mark.parametrize("size", [1, 3, 6, 7, 10, 11, 49, 500, 1000, 4999, 10**6])
def test_the_bound_itself_is_within_the_bound_in_one_grant_or_in_ten(place, ledger, size):
    assert ledger.grant(epsilon=8.0, delta=largest_delta(size), population_size=size)
    with pytest.raises(PlanError):
        ledger.grant(epsilon=8.0, delta=largest_delta(size) / 1e6)
    ten = Ledger.create(
        place.with_name("ten"), population="p", unit="record", signer=SIGNER, public_key=PUBLIC_KEY
    )
    for _ in range(10):  # whose float sum is not the bound
        ten.grant(epsilon=8.0, delta=1e-6, population_size=10_000)
    with pytest.raises(PlanError):
        ten.grant(epsilon=8.0, delta=1e-12)
    assert ten.budget().guarantee() == (80.0, 1e-5)


def test_a_reason_is_recorded_and_is_for_the_sum_up_to_it_alone(place, ledger):
    granted = ledger.grant(epsilon=1.0, delta=1e-3, population_size=1000, delta_reason=f" {WHY} ")
    assert granted.delta_reason == WHY
    assert Ledger(place).budget().guarantee() == (1.0, 1e-3)
    assert reserve(ledger, population_size=1000).grant == 1
    with pytest.raises(PlanError, match="no reason is recorded"):
        ledger.grant(epsilon=1.0, delta=1e-9)


def test_no_reason_carries_a_sum_to_one(ledger):
    for delta in (0.5, 0.4):
        ledger.grant(epsilon=8.0, delta=delta, population_size=1000, delta_reason=WHY)
    for delta in (0.1, 0.9):
        with pytest.raises(PlanError, match="from 1 on nothing is guaranteed"):
            ledger.grant(epsilon=8.0, delta=delta, population_size=1000, delta_reason=WHY)
    assert ledger.budget().guarantee() == (16.0, 0.9)


def test_a_smaller_size_declared_later_does_not_loosen_the_bound(ledger):
    ledger.grant(epsilon=1.0, delta=1e-5, population_size=10_000)
    with pytest.raises(PlanError, match="10,000 declared units"):
        ledger.grant(epsilon=1.0, delta=1e-5, population_size=10)
    assert ledger.budget().population_size == 10_000


def test_a_larger_size_tightens_it_for_what_is_charged_already(ledger):
    ledger.grant(epsilon=8.0, delta=1e-4, population_size=1000)
    reserve(ledger)
    with pytest.raises(PlanError, match="5,000 declared units"):
        ledger.grant(epsilon=1.0, delta=1e-5, population_size=5000)
    ledger.grant(epsilon=1.0, delta=1e-5, population_size=5000, delta_reason=WHY)
    assert ledger.budget().population_size == 5000


# A run says for how many units it is planned.


def test_a_run_of_more_units_than_the_delta_allows_is_refused(ledger):
    ledger.grant(epsilon=8.0, delta=1e-4, population_size=1000)
    with pytest.raises(BudgetExhausted, match="2,000 declared units") as refusal:
        reserve(ledger, population_size=2000)
    assert refusal.value.affordable_rounds == 0
    assert "--delta-reason" in refusal.value.hint
    assert ledger.budget().population_size == 1000
    assert reserve(ledger, population_size=900).population_size == 900
    assert ledger.budget().population_size == 1000


def test_a_run_of_more_units_counts_for_whatever_comes_later(place, ledger):
    ledger.grant(epsilon=8.0, delta=1e-5, population_size=1000)
    reserve(ledger, population_size=5000)
    assert Ledger(place).budget().population_size == 5000
    with pytest.raises(PlanError, match="5,000 declared units"):
        ledger.grant(epsilon=1.0, delta=5e-5, population_size=1000)
    ledger.grant(epsilon=1.0, delta=1e-5)
    with pytest.raises(BudgetExhausted, match="50,000 declared units"):
        reserve(ledger, "s", population_size=50_000)


def test_a_data_set_s_cap_is_bound_by_the_size_too(ledger):
    ledger.grant(epsilon=8.0, delta=1e-5, population_size=1000)
    for delta in (0.9, 1.1e-4):
        dataset = Dataset("letters", DatasetCap.of(4.0, delta))
        with pytest.raises(PlanError, match="max_delta_per_dataset is"):
            reserve(ledger, dataset=dataset)
    assert reserve(ledger, dataset=Dataset("letters", DatasetCap.of(4.0, 1e-4)))
    with pytest.raises(PlanError, match="max_delta_per_dataset is"):
        reserve(ledger, "s", dataset=Dataset("x", DatasetCap.of(4.0, 1e-4)), population_size=2000)


# Ledgers of 0.1.0, which asked nothing, and records that somebody signed by hand.


def test_an_ordinary_old_ledger_opens_and_affords_as_before(place, ledger):
    written_grant(place, epsilon=3.0, delta=1e-5)
    budget = Ledger(place).budget()
    assert budget.population_size is None
    assert budget.guarantee() == (3.0, 1e-5)
    assert [status.objection for status in budget.status()] == [""]
    assert reserve(ledger, population_size=500).grant == 1
    assert Ledger(place).budget().population_size == 500


def test_deltas_of_more_than_one_are_shown_and_promise_nothing(place, ledger):
    written_grant(place, epsilon=8.0, delta=0.5)
    written_grant(place, epsilon=1.0, delta=0.9)
    budget = Ledger(place).budget()
    assert budget.guarantee() == (8.0, 0.5), "the second affords nothing, and promises nothing"
    assert [bool(status.objection) for status in budget.status()] == [False, True]
    assert budget.status()[1].epsilon_left == 0.0
    with pytest.raises(BudgetExhausted, match=r"grant 1 affords nothing.*grant 2 affords nothing"):
        reserve(ledger, population_size=500)
    ledger.grant(epsilon=2.0, delta=1e-5, population_size=500)
    assert reserve(ledger, population_size=500).grant == 3
    assert ledger.budget().guarantee() == (2.0, 1e-5)


def test_a_charged_sum_of_one_or_more_is_no_guarantee_and_affords_nothing(place, ledger):
    ledger.grant(epsilon=8.0, delta=1e-5, population_size=500)
    written_reservation(place, grant=written_grant(place, epsilon=8.0, delta=0.9), run="a")
    written_reservation(place, grant=written_grant(place, epsilon=8.0, delta=0.5), run="b")
    budget = Ledger(place).budget()
    assert budget.guarantee() == (math.inf, 1.0)
    assert all(status.objection for status in budget.status())
    assert pld_epsilon([EVENT], budget.guarantee()[1]) == math.inf
    with pytest.raises(BudgetExhausted, match="the deltas add up to 1 or more"):
        reserve(ledger)
    with pytest.raises(PlanError, match="from 1 on"):
        ledger.grant(epsilon=1.0, delta=1e-9, delta_reason=WHY)


def test_what_is_charged_above_the_bound_needs_a_reason_before_anything_goes_on(place, ledger):
    ledger.grant(epsilon=8.0, delta=1e-5, population_size=1000)
    written_reservation(place, grant=written_grant(place, epsilon=8.0, delta=1e-2))
    with pytest.raises(BudgetExhausted, match="grant 1 affords nothing: grant 2 is charged"):
        reserve(ledger)
    with pytest.raises(PlanError, match="no reason is recorded"):
        ledger.grant(epsilon=1.0, delta=1e-6)
    assert ledger.budget().guarantee() == (8.0, 1e-2), "the first has promised nothing yet"
    ledger.grant(epsilon=1.0, delta=1e-6, delta_reason=WHY)
    assert reserve(ledger).grant == 1
    assert ledger.budget().guarantee() == (17.0, 0.010011)
    assert [bool(s.objection) for s in ledger.status()] == [False, True, False]


def test_an_old_run_on_a_grant_that_does_not_stand_does_not_go_on(place, ledger):
    written_reservation(place, grant=written_grant(place, epsilon=8.0, delta=0.01), run="old")
    with pytest.raises(BudgetExhausted, match="run old holds rounds of grant 1") as refusal:
        reserve(ledger, "old", population_size=1000)
    assert refusal.value.hint
    assert reserve(ledger, "old", population_size=10).run == "old"


def test_an_absurd_epsilon_of_old_is_shown_and_affords_nothing(place, ledger):
    written_grant(place, epsilon=1e300, delta=1e-5)
    written_grant(
        place,
        signer=SIGNER,
        epsilon=2.0,
        delta=1e-5,
        insider_epsilon=(1e300).hex(),
        insider_orders=[4],
    )
    budget = Ledger(place).budget()
    assert budget.guarantee() == (0.0, 0.0)
    assert [s.objection[:24] for s in budget.status()] == [
        "epsilon is 1e+300, above",
        "insider_epsilon is 1e+30",
    ]
    with pytest.raises(BudgetExhausted):
        reserve(ledger)


def test_a_reservation_that_declares_a_size_is_asked_whether_its_grant_stands(place, ledger):
    written_grant(place, epsilon=8.0, delta=0.01)
    written_reservation(place, grant=1, population_size=1000)
    with pytest.raises(LedgerDamaged, match=r"reserves of grant 1.*above"):
        Ledger(place)


@pytest.mark.parametrize(
    "field",
    [
        {"population_size": 0},
        {"population_size": -5},
        {"population_size": True},
        {"population_size": 10.5},
        {"population_size": "10"},
        {"population_size": None},
        {"delta_reason": 5},
        {"delta_reason": None},
        {"delta_reason": ["why"]},
    ],
    ids=str,
)
def test_a_malformed_field_is_damage(place, ledger, field):
    written_grant(place, epsilon=1.0, delta=1e-5, **field)
    with pytest.raises(LedgerDamaged):
        Ledger(place)


def test_a_blank_reason_is_none(place, ledger):
    written_grant(
        place, signer=SIGNER, epsilon=1.0, delta=1e-2, population_size=1000, delta_reason=" \n "
    )
    with pytest.raises(BudgetExhausted, match="no reason is recorded"):
        reserve(ledger)


# The export.


def test_an_export_tells_size_reason_and_what_does_not_stand(place, ledger):
    ledger.grant(epsilon=1.0, delta=1e-3, population_size=1000, delta_reason=WHY)
    written_grant(place, epsilon=1.0, delta=0.9)
    text = export_json(Ledger(place).records())
    assert '"population_size": 1000' in text
    assert text.count(WHY) == 2, "with the grant, and in its record"
    assert text.count('"affords_nothing": true') == 1
    assert read_export(text)
    for said, instead in ((f'"delta_reason": "{WHY}"', '"delta_reason": "all is well"'),
                          ('"affords_nothing": true', '"affords_nothing": false'),
                          ('"population_size": 1000', '"population_size": 10')):  # fmt: skip
        assert said in text
        with pytest.raises(LedgerDamaged):
            read_export(text.replace(said, instead, 1))


def test_an_export_of_an_old_ledger_has_the_fields_that_it_had(place, ledger):
    written_grant(place, epsilon=3.0, delta=1e-5)
    text = export_json(Ledger(place).records())
    for field in ("population_size", "delta_reason", "affords_nothing"):
        assert field not in text


def test_numbers_are_added_as_they_are_written():
    assert add([0.1, 0.2]) == 0.3
    assert add([1e-6] * 10) == float(Decimal("1e-5"))
    assert add([1.0, math.inf]) == math.inf
    assert add([]) == 0.0


def test_a_refusal_tells_no_less_than_is_spent():
    figures = (3.00000001, 1.72404, 3.0, 1e9, 5e-324, math.inf)
    assert [rounded_up(each) for each in figures] == [
        "3.0001", "1.7241", "3.0000", "1000000000.0000", "0.0001", "no bound",
    ]  # fmt: skip
