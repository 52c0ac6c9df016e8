import dataclasses
import math

import numpy as np
import pytest

from privacy.accounting.events import (
    NonPrivate,
    PoissonSampledGaussian,
    PoissonSampledSkellam,
    parse_event,
)
from privacy.accounting.pld import pld_epsilon
from privacy.accounting.rdp import (
    calibrate_noise_multiplier,
    epsilon_spent,
    filter_delta,
    filter_orders,
    fits,
    rdp_cost,
)
from privacy.errors import PlanError, TrainingError
from privacy.mechanism.distributed import DistributedPlan, SkellamShare
from privacy.mechanism.plan import CLIP_TOLERANCE

SETTINGS = {
    "unit": "record",
    "population": 1250,
    "largest_population": 2000,
    "sample_rate": 0.1,
    "max_grad_norm": 1.0,
    "dimension": 400,
    "min_cohort": 6,
    "colluding_sites": 2,
    "rounds": 20,
    "repeats": 1,
    "delta": 1e-5,
}


def plan(**changes):
    return DistributedPlan(**{**SETTINGS, "share_variance": 5000, **changes})


def calibrated(epsilon=2.0, **changes):
    return DistributedPlan.calibrated(**{**SETTINGS, **changes}, epsilon=epsilon)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0, 8.0])
def test_calibration_takes_the_least_noise_that_passes(epsilon):
    chosen = calibrated(epsilon)
    orders = filter_orders(epsilon, 1e-5)

    def passes(share_variance):
        event = dataclasses.replace(chosen, share_variance=share_variance).round_event()
        cost = rdp_cost(event, orders)
        return fits({a: c * 21 for a, c in cost.items()}, epsilon, filter_delta(1e-5))

    assert passes(chosen.share_variance)
    assert not passes(math.floor(chosen.share_variance * 0.999) - 1)
    # as much noise as a Gaussian needs in one place, to a thousandth
    gaussian = calibrate_noise_multiplier(epsilon=epsilon, delta=1e-5, sample_rate=0.1, steps=21)
    assert chosen.noise_multiplier == pytest.approx(gaussian, rel=2e-3)


def test_a_share_alone_protects_less_than_all_together():
    event = calibrated(1.0).round_event()
    orders = filter_orders(1.0, 1e-5)
    outside = epsilon_spent(rdp_cost(event, orders), 1e-5)
    inside = epsilon_spent(rdp_cost(event.seen_by_sites(), orders), 1e-5)
    assert event.variance == 4 * event.own_variance
    assert outside < inside
    assert event.seen_by_sites().seen_by_sites() == event.seen_by_sites()


def test_values_that_leave_fit_their_bits():
    chosen = plan()
    share = SkellamShare(chosen)
    extreme = np.full(400, 1e9)
    for sign in (1.0, -1.0):
        values = share.protect(sign * extreme)
        assert values.dtype == np.int32
        assert np.abs(values).max() <= chosen.largest_value <= 2 ** (chosen.bits - 1) - 1
    assert chosen.largest_value > 2 ** (chosen.bits - 2) - 1  # and waste no bit


def test_a_site_whose_units_all_agree_is_not_cut_off():
    """Of a site with one label, the gradient in that label's bias is of all sampled units."""
    chosen = plan(share_variance=1)
    sampled = 200.0  # of the largest site's 2,000, on average
    total = np.zeros(400)
    total[:2] = sampled, -(sampled + 5.0 * math.sqrt(sampled))
    values = SkellamShare(chosen).protect(total) * chosen.granularity
    assert values[:2] == pytest.approx(total[:2], abs=20 * chosen.granularity)
    # All sites' integers have one range, whatever their own population is.
    assert chosen.bits == plan(share_variance=1, population=50).bits
    with pytest.raises(PlanError, match="largest_population is 2000, expected at least"):
        plan(population=2001)
    # The failing arm: where the sum would be cut off, by the range of a tenth of the units.
    few = plan(share_variance=1, population=20, largest_population=200)
    cut = SkellamShare(few).protect(total) * few.granularity
    assert np.abs(cut[:2]).max() < 0.5 * sampled


def test_the_mean_of_many_shares_is_the_sum_that_went_in():
    chosen = plan(dimension=50, share_variance=400)
    share = SkellamShare(chosen)
    total = np.linspace(-2.0, 2.0, 50)
    drawn = np.stack([share.protect(total) for _ in range(4000)]) * chosen.granularity
    spread = chosen.granularity * math.sqrt(400.25)
    assert np.abs(drawn.mean(axis=0) - total).max() < 6 * spread / math.sqrt(4000)
    deviation = drawn.std(axis=0).mean()
    assert spread * 0.98 < deviation < spread * 1.02
    # the failing arms
    for factor in (2 / 3, 3 / 2):
        assert not spread * 0.98 < deviation * factor < spread * 1.02


def test_the_event_holds_what_one_unit_can_move():
    chosen = plan()
    norm_in_steps = chosen.max_grad_norm * (1 + CLIP_TOLERANCE) / chosen.granularity
    assert norm_in_steps == pytest.approx(5 * math.sqrt(400))
    event = chosen.round_event()
    assert event.squared_l2 > norm_in_steps**2
    assert event.l1 >= math.sqrt(event.squared_l2)
    assert event.failure_probability * 21 < 1e-5 * 2**-15
    assert event.steps == 1


def test_the_canonical_form_is_exact():
    event = plan().round_event()
    assert parse_event(event.canonical()) == event
    for name in ("squared_l2", "variance", "failure_probability", "own_variance"):
        broken = {k: v for k, v in event.canonical().items() if k != name}
        with pytest.raises(PlanError, match="malformed"):
            parse_event(broken)
    with pytest.raises(PlanError, match="unknown fields"):
        parse_event({**event.canonical(), "more": 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("squared_l2", 0),
        ("squared_l2", 1.5),
        ("l1", -1),
        ("variance", 0),
        ("own_variance", 0),
        ("own_variance", 10**9),
        ("steps", True),
        ("sample_rate", 0.0),
        ("failure_probability", 1.0),
        ("failure_probability", -1e-9),
    ],
)
def test_an_event_out_of_range_is_refused(name, value):
    fields = dataclasses.asdict(plan().round_event())
    with pytest.raises(PlanError, match=name):
        PoissonSampledSkellam(**{**fields, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("unit", ""),
        ("population", 0),
        ("population", 20_000),  # delta is above 1 / (10 n)
        ("sample_rate", 1.5),
        ("max_grad_norm", 0.0),
        ("dimension", 0),
        ("dimension", (1 << 24) + 1),
        ("min_cohort", 1),
        ("colluding_sites", 6),
        ("colluding_sites", -1),
        ("share_variance", 0),
        ("rounds", 0),
        ("repeats", -1),
        ("delta", 1.0),
    ],
)
def test_a_plan_out_of_range_is_refused(name, value):
    with pytest.raises(PlanError):
        plan(**{name: value})


def test_a_target_that_no_noise_meets_is_refused():
    with pytest.raises(PlanError, match="at most 40"):
        calibrated(41.0)
    with pytest.raises(PlanError, match="no noise share"):
        calibrated(0.3, rounds=10**9, sample_rate=1.0, dimension=1 << 24)


def test_other_sums_than_the_plans_are_refused():
    share = SkellamShare(plan())
    with pytest.raises(TrainingError, match="shape"):
        share.protect(np.zeros(401))
    with pytest.raises(TrainingError, match="finite"):
        share.protect(np.full(400, np.nan))


def test_the_reference_epsilon_of_shares_is_near_the_gaussians_and_not_below_it():
    chosen = calibrated(2.0)
    steps = [chosen.round_event()] * 20
    gaussian = PoissonSampledGaussian(0.1, chosen.noise_multiplier, 20)
    ours, pld = pld_epsilon(steps, 1e-5), pld_epsilon([gaussian], 1e-5)
    assert pld < ours < 1.25 * pld  # Renyi DP is looser than PLD, as in any such composition
    assert ours < 2.0
    assert pld_epsilon([*steps, gaussian], 1e-5) > ours
    assert pld_epsilon([*steps, NonPrivate("test")], 1e-5) == math.inf
    assert pld_epsilon(steps, 1e-13) == math.inf  # the failures alone are above such a delta
