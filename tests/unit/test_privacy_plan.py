"""The plan refuses what does not hold together, and couples training with its charge."""

import dataclasses
import math

import pytest

from privacy import PlanError, PoissonSampledGaussian, PrivacyPlan
from privacy.accounting.events import NonPrivate, parse_event
from privacy.accounting.rdp import (
    add_costs,
    filter_orders,
    fits,
    max_repetitions,
    rdp_cost,
    zero_cost,
)
from privacy.mechanism.plan import CLIP_TOLERANCE

GOOD = {
    "unit": "patient_id",
    "population": 1000,
    "sample_rate": 0.1,
    "max_grad_norm": 0.5,
    "noise_multiplier": 2.0,
    "steps_per_round": 4,
    "rounds": 10,
    "repeats": 2,
    "delta": 1e-5,
}
CALIBRATED = {k: v for k, v in GOOD.items() if k != "noise_multiplier"} | {"epsilon": 3.0}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("unit", ""),
        ("population", 0),
        ("population", -5),
        ("population", 1000.5),
        ("sample_rate", 0.0),
        ("sample_rate", -0.1),
        ("sample_rate", 1.0001),
        ("sample_rate", math.nan),
        ("max_grad_norm", 0.0),
        ("max_grad_norm", -1.0),
        ("max_grad_norm", math.inf),
        ("max_grad_norm", math.nan),
        ("noise_multiplier", 0.0),
        ("noise_multiplier", -1.0),
        ("noise_multiplier", math.inf),
        ("noise_multiplier", math.nan),
        ("steps_per_round", 0),
        ("steps_per_round", 1.5),
        ("rounds", 0),
        ("rounds", 2.5),
        ("repeats", -1),
        ("repeats", 0.5),
        ("delta", 0.0),
        ("delta", 1.0),
        ("delta", -1e-5),
        ("delta", math.nan),
        ("delta", 1.01e-4),  # above 1 / (10 x 1000)
    ],
)
def test_refusals(field, value):
    PrivacyPlan(**GOOD)
    with pytest.raises(PlanError, match=field.removesuffix("_per_round")) as refusal:
        PrivacyPlan(**GOOD | {field: value})
    assert refusal.value.code == "plan"


def test_delta_may_be_exactly_a_tenth_of_one_over_the_population():
    PrivacyPlan(**GOOD | {"delta": 1.0 / 10_000})


def test_a_plan_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PrivacyPlan(**GOOD).noise_multiplier = 0.1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epsilon", 0.0),
        ("epsilon", -1.0),
        ("epsilon", math.inf),
        ("epsilon", math.nan),
        ("sample_rate", 0.0),
        ("sample_rate", 2.0),
        ("steps_per_round", 0),
        ("rounds", 0),
        ("repeats", -1),
        ("delta", 0.0),
        ("max_grad_norm", 0.0),
        ("population", 0),
        ("epsilon", 0.01),  # no order up to 256 certifies it at delta 1e-5
    ],
)
def test_calibration_refuses(field, value):
    with pytest.raises(PlanError):
        PrivacyPlan.calibrated(**CALIBRATED | {field: value})


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
@pytest.mark.parametrize(
    ("sample_rate", "steps", "rounds", "repeats"),
    [(0.1, 4, 10, 2), (0.01, 1, 1000, 0), (1.0, 1, 1, 0), (0.5, 3, 7, 1)],
)
def test_calibration_fits_to_the_last_round_and_no_further(
    epsilon, sample_rate, steps, rounds, repeats
):
    plan = PrivacyPlan.calibrated(
        **CALIBRATED
        | {
            "epsilon": epsilon,
            "sample_rate": sample_rate,
            "steps_per_round": steps,
            "rounds": rounds,
            "repeats": repeats,
        }
    )
    orders = filter_orders(epsilon, plan.delta)
    nothing = zero_cost(orders)
    worst = rounds + repeats
    assert max_repetitions(nothing, plan.round_event(), epsilon, plan.delta) == worst

    def afford(event, times):
        return fits(add_costs(nothing, rdp_cost(event, orders), times), epsilon, plan.delta)

    one_step = dataclasses.replace(plan.round_event(), steps=1)
    assert afford(one_step, worst * steps)
    assert not afford(one_step, worst * steps + 1)
    less_noise = dataclasses.replace(
        plan.round_event(), noise_multiplier=plan.noise_multiplier * (1 - 1e-5)
    )
    assert not afford(less_noise, worst)


def test_the_event_is_what_is_trained():
    plan = PrivacyPlan(**GOOD)
    event = plan.round_event()
    assert event == PoissonSampledGaussian(0.1, 2.0, 4)
    assert plan.expected_batch_size == 0.1 * 1000
    # The noise covers C (1 + tolerance) at the multiplier that is accounted.
    assert CLIP_TOLERANCE > 0
    assert plan.noise_stddev / (0.5 * (1 + CLIP_TOLERANCE)) == pytest.approx(2.0, rel=1e-15)
    assert plan.noise_stddev > event.noise_multiplier * plan.max_grad_norm


EVENT = PoissonSampledGaussian(0.1, 1 / 3, 7)


def test_events_round_trip_bit_for_bit():
    for event in (EVENT, PoissonSampledGaussian(1, 2, 1), NonPrivate("debugging")):
        assert parse_event(event.canonical()) == event


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "gaussian"},
        {"kind": None},
        {"sample_rate": "0x1.0p+1"},
        {"sample_rate": "nan"},
        {"sample_rate": 0.1},
        {"sample_rate": "0.1"},  # a decimal is not the canonical form
        {"noise_multiplier": "inf"},
        {"noise_multiplier": "0x1p+9999"},
        {"noise_multiplier": "x"},
        {"steps": 0},
        {"steps": "7"},
        {"steps": 7.5},
        {"extra": 1},
    ],
)
def test_events_in_another_form_are_refused(change):
    with pytest.raises(PlanError):
        parse_event(EVENT.canonical() | change)


@pytest.mark.parametrize("missing", ["kind", "sample_rate", "noise_multiplier", "steps"])
def test_events_with_a_field_missing_are_refused(missing):
    fields = EVENT.canonical()
    del fields[missing]
    with pytest.raises(PlanError):
        parse_event(fields)


@pytest.mark.parametrize("data", [None, 3, "event", [], [[1]], {}, {"kind": "non-private"}])
def test_what_is_not_an_event_is_refused(data):
    with pytest.raises(PlanError):
        parse_event(data)
