"""Costs against dp-accounting and against exact arithmetic, and the figures that are documented."""

import math
import random
from decimal import Decimal, localcontext
from fractions import Fraction

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant, rdp_privacy_accountant

from privacy import (
    NonPrivate,
    PlanError,
    PoissonSampledGaussian,
    attack_success_bound,
    epsilon_spent,
    pld_epsilon,
    rdp_cost,
)
from privacy.accounting import rdp as acc

DELTA = 1e-5


def dp_event(event):
    gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(event.sample_rate, gaussian)
    return dp_accounting.SelfComposedDpEvent(sampled, event.steps)


def history(seed, *, least_noise=0.7):
    """One to eight different events."""
    rng = random.Random(seed)
    return [
        PoissonSampledGaussian(
            sample_rate=rng.choice([1.0, 10 ** rng.uniform(-4, 0)]),
            noise_multiplier=least_noise * 10 ** rng.uniform(0, 1.5),
            steps=rng.randint(1, 500),
        )
        for _ in range(rng.randint(1, 8))
    ]


def summed(events, orders):
    total = acc.zero_cost(orders)
    for event in events:
        total = acc.add_costs(total, rdp_cost(event, orders))
    return total


@pytest.mark.parametrize("seed", range(30))
def test_costs_are_those_of_dp_accounting_rounded_up(seed):
    orders = acc.filter_orders(random.Random(seed).choice([1.0, 2.0, 3.0, 8.0]), DELTA)
    events = history(seed)
    accountant = RdpAccountant(list(orders))
    for event in events:
        accountant.compose(dp_event(event))
    for (order, cost), rho in zip(summed(events, orders).items(), accountant.rdp, strict=True):
        ours = Fraction(cost, acc.RDP_UNIT)
        assert ours >= Fraction(float(rho)), order
        assert float(ours) == pytest.approx(float(rho), rel=1e-6, abs=1e-10)
    # one order alone, by dp-accounting's own conversion
    each = DELTA / len(orders)
    theirs = min(
        rdp_privacy_accountant.compute_epsilon([order], [rho], each)[0]
        for order, rho in zip(orders, accountant.rdp, strict=True)
    )
    assert epsilon_spent(summed(events, orders), DELTA) == pytest.approx(theirs, rel=1e-6)


def exact_rdp(event, order):
    """The binomial sum of arXiv 1908.10530, section 3.3, to sixty digits."""
    with localcontext() as context:
        context.prec = 60
        q, sigma = Decimal(event.sample_rate), Decimal(event.noise_multiplier)
        moment = sum(
            math.comb(order, k)
            * (1 - q) ** (order - k)
            * q**k
            * (Decimal(k * (k - 1)) / (2 * sigma * sigma)).exp()
            for k in range(order + 1)
        )
        return event.steps * moment.ln() / (order - 1)


@pytest.mark.parametrize("seed", range(40))
def test_costs_are_never_below_the_exact_value(seed):
    rng = random.Random(seed)
    event = PoissonSampledGaussian(
        10 ** rng.uniform(-9, -0.001), 10 ** rng.uniform(-0.5, 3), 10 ** rng.randint(0, 7)
    )
    for order in (2, 5, 18):
        cost, exact = rdp_cost(event, [order])[order], exact_rdp(event, order)
        assert Decimal(cost) >= exact * acc.RDP_UNIT
        # a step is over-counted by 1e-14 nat and the whole by a unit, besides rounding
        slack = Decimal(event.steps) * Decimal("1.1e-14") + Decimal("1e-12")
        assert Decimal(cost) / acc.RDP_UNIT <= exact * Decimal("1.000001") + slack


def test_nothing_is_free():
    for event in (PoissonSampledGaussian(1e-300, 1.0, 1), PoissonSampledGaussian(1e-9, 1e3, 1)):
        assert all(cost >= 1 for cost in rdp_cost(event, (2, 18)).values())
        assert acc.max_repetitions(acc.zero_cost((18, 19)), event, 1.0, DELTA) > 0


@pytest.mark.parametrize(
    "event",
    [
        NonPrivate("baseline"),
        PoissonSampledGaussian(1.0, 1e-200, 1),
        PoissonSampledGaussian(0.5, 1e-200, 1),
        PoissonSampledGaussian(0.5, 1e300, 1),
        PoissonSampledGaussian(0.5, 1.0, 10**400),
    ],
)
def test_what_cannot_be_computed_costs_infinitely_much(event):
    cost = rdp_cost(event, (6, 7))
    assert cost == {6: None, 7: None}
    assert epsilon_spent(cost, DELTA) == math.inf
    assert not acc.fits(cost, 1e6, DELTA)
    assert acc.max_repetitions(acc.zero_cost((6, 7)), event, 1e6, DELTA) == 0
    both = acc.add_costs(acc.zero_cost((6, 7)), cost)
    assert acc.add_costs(both, acc.zero_cost((6, 7))) == {6: None, 7: None}
    # None of it, on the other hand, costs nothing.
    assert acc.add_costs(acc.zero_cost((6, 7)), cost, 0) == {6: 0, 7: 0}


def test_non_private_use_is_infinite_by_pld_too():
    assert pld_epsilon([PoissonSampledGaussian(0.1, 2.0, 4), NonPrivate("x")], DELTA) == math.inf
    assert pld_epsilon([], DELTA) == 0.0


@pytest.mark.parametrize("epsilon", [0.7, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_the_filter_s_bound_is_dp_accounting_s_conversion(epsilon, delta):
    for order in (*range(2, 25), 100):
        bound = acc.rdp_bound(order, epsilon, delta)
        # to the unit, against sixty digits
        with localcontext() as context:
            context.prec = 60
            a = Decimal(order)
            exact = Decimal(epsilon) + (a / (a - 1)).ln()
            exact += (Decimal(delta).ln() + a.ln()) / (a - 1)
        assert bound <= exact * acc.RDP_UNIT
        assert bound >= exact * acc.RDP_UNIT - (abs(exact) * acc.RDP_UNIT * Decimal("1.1e-10") + 2)
        if bound > 10**9:
            rho = bound / acc.RDP_UNIT
            converted, _ = rdp_privacy_accountant.compute_epsilon([order], [rho], delta)
            assert converted == pytest.approx(epsilon, rel=1e-8)
            assert acc.epsilon_of_rdp(order, bound, delta) == pytest.approx(epsilon, rel=1e-8)
            assert acc.epsilon_of_rdp(order, bound, delta) <= epsilon


@pytest.mark.parametrize(
    ("epsilon", "good"),
    [(1, (17, 18)), (2, (8, 9)), (3, (6, 7)), (4, (5, 6)), (6, (4, 5)), (8, (3, 4))],
)
def test_orders_are_the_good_pairs(epsilon, good):
    orders = acc.filter_orders(float(epsilon), DELTA)
    assert abs(orders[0] - good[0]) <= 1
    assert orders[1] == orders[0] + 1

    def mean_noise(pair):
        return math.prod(
            acc._least_noise(q, steps, pair, epsilon, DELTA, tolerance=1e-4)
            for q, steps in acc._REFERENCE_WORKLOADS
        ) ** (1 / len(acc._REFERENCE_WORKLOADS))

    assert mean_noise(orders) <= 1.001 * mean_noise(good)
    # the reject arm: a pair that is far off needs clearly more noise
    assert mean_noise((2 * good[0], 2 * good[0] + 1)) > 1.03 * mean_noise(orders)


def plain_least_noise(sample_rate, steps, orders, epsilon, delta, *, tolerance):
    """The bisection without its short cuts."""

    def passes(noise_multiplier):
        event = PoissonSampledGaussian(sample_rate, noise_multiplier, steps)
        return any(
            cost + steps <= acc.rdp_bound(order, epsilon, delta / len(orders))
            for order, cost in zip(orders, acc._renyi_costs(event, orders), strict=True)
        )

    low, high = 0.05, 1.0
    while not passes(high):
        low, high = high, high * 2.0
    while high / low > 1.0 + tolerance:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def plain_filter_orders(epsilon, delta):
    """Every pair from below, until three in a row are worse than the best."""
    best = None
    for order in range(2, acc.MAX_ORDER):
        pair = (order, order + 1)
        if all(acc.rdp_bound(o, epsilon, delta / 2) <= 0 for o in pair):
            continue
        score = sum(
            math.log(plain_least_noise(q, steps, pair, epsilon, delta, tolerance=1e-3))
            for q, steps in acc._REFERENCE_WORKLOADS
        )
        if best is None or score < best[0]:
            best = (score, order)
        elif order > best[1] + 3:
            break
    return best[1], best[1] + 1


@pytest.mark.parametrize("delta", [1e-4, 1e-6])
@pytest.mark.parametrize("epsilon", [0.7, 1.3, 2.0, 3.0, 4.4, 8.0, 30.0])
def test_orders_are_those_of_the_plain_search(epsilon, delta):
    assert acc.filter_orders(epsilon, delta) == plain_filter_orders(epsilon, delta)


@pytest.mark.slow
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
@pytest.mark.parametrize(
    "epsilon", [0.1, 0.15, 0.25, 0.4, 0.6, 0.85, 1.0, 1.7, 2.6, 5.0, 15.0, 60.0]
)
def test_orders_are_those_of_the_plain_search_on_a_wider_grid(epsilon, delta):
    assert acc.filter_orders(epsilon, delta) == plain_filter_orders(epsilon, delta)


@pytest.mark.parametrize("seed", range(25))
def test_calibrated_noise_is_that_of_the_plain_bisection(seed):
    rng = random.Random(seed)
    epsilon, delta = 10 ** rng.uniform(-0.3, 1.5), 10 ** rng.uniform(-9, -3)
    sample_rate, steps = rng.choice([1.0, 0.2, 10 ** rng.uniform(-4, 0)]), rng.choice([1, 30, 2000])
    orders = acc.filter_orders(epsilon, delta)
    workload = (sample_rate, steps, orders, epsilon, delta)
    found = acc._least_noise(*workload, tolerance=1e-6)
    assert found == plain_least_noise(*workload, tolerance=1e-6)


def test_a_pair_whose_bound_is_a_hair_above_zero_is_passed_over():
    # At this epsilon order 13 can spend 1e-9 nat and no more, far less than any noise costs.
    each = DELTA / 2
    hair = -math.log(13 / 12) - (math.log(each) + math.log(13)) / 12 + 1e-9
    assert 0 < acc.rdp_bound(13, hair, each) < 2000
    assert acc.filter_orders(hair, DELTA)[0] > 13


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [(0.0, 1e-5), (-1.0, 1e-5), (math.nan, 1e-5), (1.0, 0.0), (1.0, 1.0), (1e-3, 1e-9)],
)
def test_orders_refuse_what_no_order_certifies(epsilon, delta):
    with pytest.raises(PlanError):
        acc.filter_orders(epsilon, delta)


def test_noise_that_would_have_to_be_huge_is_refused():
    with pytest.raises(PlanError, match="no noise multiplier"):
        acc.calibrate_noise_multiplier(epsilon=1.0, delta=1e-5, sample_rate=1.0, steps=10**9)


# The documented workloads: (q, sigma, T) -> RDP on dp-accounting's default grid, and PLD.
DOCUMENTED = [((0.01, 1.0, 1000), 2.101, 1.829), ((0.1, 2.0, 40), 1.663, 1.484)]


@pytest.mark.parametrize(("workload", "rdp", "pld"), DOCUMENTED)
def test_the_documented_table(workload, rdp, pld):
    event = PoissonSampledGaussian(*workload)
    wide = RdpAccountant()
    wide.compose(dp_event(event))
    assert wide.get_epsilon(DELTA) == pytest.approx(rdp, abs=6e-4)
    assert pld_epsilon([event], DELTA) == pytest.approx(pld, abs=6e-4)
    # The filter's two orders cost up to 6 % of epsilon and never undercut the wide grid.
    ours = min(
        epsilon_spent(rdp_cost(event, acc.filter_orders(e, DELTA)), DELTA)
        for e in (1.7, 1.8, 2.0, 2.2, 2.3)
    )
    assert rdp <= ours + 6e-4
    assert ours <= 1.06 * rdp


@pytest.mark.parametrize(
    "events",
    [
        [PoissonSampledGaussian(0.01, 1.0, 1000)],
        [PoissonSampledGaussian(0.1, 2.0, 40)],
        [PoissonSampledGaussian(0.01, 20.0, 1000)],  # losses far below the discretisation
        [PoissonSampledGaussian(1.0, 5.0, 3), PoissonSampledGaussian(0.05, 1.5, 100)],
    ],
)
def test_pld_is_that_of_dp_accounting_at_its_own_resolution(events):
    accountant = PLDAccountant()
    for event in events:
        accountant.compose(dp_event(event))
    theirs = accountant.get_epsilon(DELTA)
    assert pld_epsilon(events, DELTA) == pytest.approx(theirs, rel=0.01, abs=2e-4)
    assert pld_epsilon(reversed(events), DELTA) == pld_epsilon(events, DELTA)


@pytest.mark.parametrize(
    ("epsilon", "percent"), [(1.0, 2.7), (3.0, 20.1), (8.0, 99.97), (math.inf, 100.0)]
)
def test_attack_success_bound(epsilon, percent):
    assert 100 * attack_success_bound(epsilon, DELTA, 0.01) == pytest.approx(percent, abs=0.05)


def test_attack_success_bound_stays_between_the_rate_and_one():
    for epsilon in (1e-6, 0.1, 1.0, 8.0, 100.0, 1e4):
        for rate in (0.0, 1e-3, 0.5, 1.0):
            bound = attack_success_bound(epsilon, DELTA, rate)
            assert min(rate, 1.0) <= bound <= 1.0
    assert 100 * attack_success_bound(8.0, DELTA, 0.01) == pytest.approx(99.97, abs=0.005)
