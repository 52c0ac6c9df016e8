"""Queries: no unit weighs more than its bound, noise is what is charged, intervals cover."""

from __future__ import annotations

import math
import statistics

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from privacy import PlanError, epsilon_spent, filter_delta, filter_orders, rdp_cost
from privacy.errors import TrainingError
from privacy.queries import (
    GaussianNoise,
    Query,
    QueryPlan,
    Release,
    SkellamShares,
    count,
    foreseen,
    on_simplex,
    project,
    share,
    unit_means,
)
from privacy.queries.protected_sum import ProtectedSum, exact_sum

ACCURACY = Query("accuracy", ("right", "wrong"), 1.0)
LOSS = Query("loss", ("loss", "units"), math.sqrt(2.0))
DELTA = 1e-5
ANYTHING = st.floats(allow_nan=True, allow_infinity=True, width=64)


def shares(**changes) -> QueryPlan:
    chosen = {
        "unit": "record",
        "population": 150,
        "min_cohort": 4,
        "colluding_sites": 1,
        "epsilon": 0.5,
        "delta": DELTA,
    }
    return QueryPlan.distributed(Release.of(ACCURACY), **{**chosen, **changes})


def local(**changes) -> QueryPlan:
    chosen = {"unit": "record", "population": 150, "epsilon": 0.5, "delta": DELTA}
    return QueryPlan.local(Release.of(ACCURACY), **{**chosen, **changes})


@settings(max_examples=40)
@given(arrays(np.float64, (3, 4), elements=ANYTHING), st.floats(1e-3, 1e3))
def test_no_vector_is_longer_than_its_bound(vectors: np.ndarray, bound: float) -> None:
    projected = project(vectors, bound)
    assert np.isfinite(projected).all()
    assert (np.linalg.norm(projected, axis=1) <= bound * (1 + 1e-9)).all()


@given(arrays(np.float64, (3, 4), elements=st.floats(-0.5, 0.5)))
def test_vectors_within_the_bound_stay_as_they_are(vectors: np.ndarray) -> None:
    assert np.array_equal(project(vectors, 1.0), vectors)


@settings(max_examples=40)
@given(
    arrays(np.float64, (2, 2), elements=ANYTHING),
    arrays(np.float64, (2, 2), elements=ANYTHING),
    st.floats(0.01, 0.99),
)
def test_a_units_joint_vector_has_norm_one_at_most(one, two, part) -> None:
    release = Release((ACCURACY, LOSS), (part, 1.0 - part))
    joint = release.joint({"accuracy": one, "loss": two})
    assert (np.linalg.norm(joint, axis=1) <= 1 + 1e-9).all()


def test_an_answer_taken_apart_is_what_was_put_together() -> None:
    release = Release((ACCURACY, LOSS), (0.8, 0.2))
    vectors = {"accuracy": np.array([[1.0, 0.0]]), "loss": np.array([[0.25, 1.0]])}
    apart = release.split(release.joint(vectors)[0])
    assert apart["accuracy"] == pytest.approx([1.0, 0.0])
    assert apart["loss"] == pytest.approx([0.25, 1.0])


def test_a_unit_of_many_records_weighs_as_one() -> None:
    records = np.array([[1.0, 0.0]] * 500 + [[0.0, 1.0]])
    means = unit_means(records, [np.arange(500), np.array([500]), np.array([], dtype=np.int64)])
    assert means.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("plan", [shares(), local()], ids=["shares", "local"])
def test_a_unit_that_breaks_the_bound_moves_the_sum_by_the_bound(plan, monkeypatch) -> None:
    """And nothing is said about it: no error, no log line leaves."""
    silence(monkeypatch)
    release = plan.release
    monster = np.array([[1e300, -1e300]])
    alone = ProtectedSum(plan).integers(release.joint({"accuracy": monster}))
    assert np.linalg.norm(alone * plan.granularity) <= 1 + 2 * plan.granularity
    with_others = np.concatenate([np.array([[1.0, 0.0]] * 10), monster])
    rest = ProtectedSum(plan).integers(release.joint({"accuracy": with_others[:-1]}))
    both = ProtectedSum(plan).integers(release.joint({"accuracy": with_others}))
    assert np.linalg.norm((both - rest) * plan.granularity) <= 1 + 2 * plan.granularity


def test_a_unit_moves_the_sum_by_itself_and_changes_no_other_s_rounding() -> None:
    generator = np.random.default_rng(5)
    joint = generator.uniform(-1, 1, (5000, 3)) / 3
    alone = np.array([[1 / 3, -1e-9, 0.1]])
    at = exact_sum(alone)
    for place in (0, 17, 5000):
        with_it = np.insert(joint, place, alone, axis=0)
        assert np.array_equal(exact_sum(with_it) - exact_sum(joint), at)
        assert not np.array_equal(with_it.sum(axis=0) - joint.sum(axis=0), alone[0])
    assert np.abs(at - alone[0]).max() <= 2.0**-37


def silence(monkeypatch: pytest.MonkeyPatch) -> None:
    from privacy.queries import protected_sum

    class Silent:
        def __init__(self, *_: object) -> None:
            pass

        def normal(self, n: int) -> np.ndarray:
            return np.zeros(n)

        def integers(self, n: int) -> np.ndarray:
            return np.zeros(n, dtype=np.int64)

    monkeypatch.setattr(protected_sum, "GaussianSource", Silent)
    monkeypatch.setattr(protected_sum, "SkellamSource", Silent)


@pytest.mark.parametrize("answers", [1, 5])
@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0])
def test_local_noise_costs_what_dp_accounting_says(epsilon: float, answers: int) -> None:
    """Renyi accounting of the same Gaussian, computed apart, at the orders of the filter."""
    plan = local(epsilon=epsilon, answers=answers)
    assert isinstance(plan.noise, GaussianNoise)
    orders = filter_orders(epsilon, DELTA)
    apart = []
    for order in orders:  # the filter shares delta among its orders
        accountant = RdpAccountant(orders=[order])
        accountant.compose(dp_accounting.GaussianDpEvent(plan.noise.noise_multiplier), answers)
        apart.append(accountant.get_epsilon(DELTA / len(orders)))
    cost = rdp_cost(plan.event(), orders)
    charged = epsilon_spent({o: c * answers for o, c in cost.items()}, DELTA)
    assert charged == pytest.approx(min(apart), rel=1e-6)
    assert 0.995 * epsilon <= charged <= epsilon


@pytest.mark.parametrize("epsilon", [0.3, 1.0, 3.0])
def test_shares_are_as_good_as_the_gaussian_of_the_same_deviation(epsilon: float) -> None:
    plan = shares(epsilon=epsilon)
    event = plan.event()
    cost = rdp_cost(event, filter_orders(epsilon, DELTA))
    charged = epsilon_spent(cost, filter_delta(DELTA))
    assert 0.99 * epsilon <= charged <= epsilon
    gaussian = local(epsilon=epsilon).noise.noise_multiplier
    honest = math.sqrt(3) * plan.noise_stddev
    assert gaussian <= honest <= 1.03 * gaussian


def test_what_other_sites_learn_is_the_second_figure() -> None:
    """Three of four shares missing: 0.91 for 0.5 in exact terms, a tenth more in whole tenths."""
    assert 0.9 <= shares().insider_epsilon() <= 1.0
    with pytest.raises(PlanError, match="one figure"):
        local().insider_epsilon()


def test_repeats_are_paid_in_advance() -> None:
    assert local(repeats=1).noise.noise_multiplier == local(answers=2).noise.noise_multiplier
    assert shares(repeats=1).noise == shares(answers=2).noise


@pytest.mark.parametrize("population", [100, 10_000])
def test_nothing_wraps_and_nobody_is_cut_off(population: int) -> None:
    for plan in (shares(population=population), local(population=population)):
        everyone = np.tile([[1.0, 0.0]], (population, 1))
        integers = ProtectedSum(plan).integers(plan.release.joint({"accuracy": everyone}))
        assert np.abs(integers).max() <= plan.largest_value < 2 ** (plan.bits - 1)
        near = 8 * plan.noise_stddev + population * 1e-6 + plan.granularity
        assert integers[0] * plan.granularity == pytest.approx(population, abs=near)


def test_the_noise_of_a_cohort_is_the_one_that_is_stated() -> None:
    """Kolmogorov-Smirnov: it accepts the stated deviation, and rejects 3/2 and 2/3 of it."""
    from scipy import stats

    for plan in (shares(), local()):
        nobody = plan.release.joint({"accuracy": np.zeros((1, 2))})
        site = ProtectedSum(plan)
        sums = np.array([sum(site.integers(nobody) for _ in range(2)) for _ in range(1000)])
        values = (sums * plan.granularity).reshape(-1)
        stated = plan.answer_stddev(ACCURACY, 2)
        assert stats.kstest(values / stated, "norm").pvalue > 1e-6
        for factor in (2 / 3, 3 / 2):
            assert stats.kstest(values / (stated * factor), "norm").pvalue < 1e-6


@pytest.mark.parametrize("truth", [0.02, 0.6, 0.95])
@pytest.mark.parametrize("units", [60, 600])
def test_intervals_cover(truth: float, units: int) -> None:
    """In 10,000 draws, at least 94 % of the 95 % intervals hold the truth, of either sort."""
    generator = np.random.default_rng(7)
    stddev, draws = 8.0, 10_000
    right = generator.binomial(units, truth, size=draws)
    noise = generator.normal(scale=stddev, size=(draws, 2))
    cells = np.stack([right, units - right], axis=1) + noise
    figures = [share(row, part=[0], whole=[0, 1], stddev=stddev) for row in cells]
    answered = [n for n, figure in enumerate(figures) if figure.value is not None]
    own = [figures[n].noise[0] <= right[n] / units <= figures[n].noise[1] for n in answered]
    drawn = [figures[n].sampling[0] <= truth <= figures[n].sampling[1] for n in answered]
    assert np.mean(own) >= 0.94
    assert np.mean(drawn) >= 0.94
    assert len(answered) >= (0.99 if units == 600 else 0.9) * draws


def test_counts_cover_and_are_of_these_units() -> None:
    generator = np.random.default_rng(8)
    found = [count(40 + x, 5.0) for x in generator.normal(scale=5.0, size=10_000)]
    assert np.mean([f.noise[0] <= 40 <= f.noise[1] for f in found]) >= 0.94
    assert all(figure.sampling is None for figure in found)


def test_what_is_expected_is_what_comes() -> None:
    def figures(cells: np.ndarray) -> dict:
        return {"rate": share(cells, part=[0], whole=[0, 1], stddev=8.0), "n": count(cells[0], 8.0)}

    found = foreseen(figures, np.array([[360.0, 240.0]]), 8.0)
    rate = figures(np.array([360.0, 240.0]))["rate"]
    half = (rate.noise[1] - rate.noise[0]) / 2
    assert half < found["rate"].noise < 1.06 * half
    half = (rate.sampling[1] - rate.sampling[0]) / 2
    assert half < found["rate"].sampling < 1.06 * half
    assert found["n"].sampling is None
    assert found["n"].noise == pytest.approx(1.96 * 8, rel=1e-3)


def test_where_answers_would_often_say_nothing_that_is_foreseen() -> None:
    def figures(cells: np.ndarray) -> dict:
        return {"rate": share(cells, part=[0], whole=[0, 1], stddev=8.0)}

    assert foreseen(figures, np.array([[30.0, 20.0]]), 8.0)["rate"].noise < 0.5
    assert math.isinf(foreseen(figures, np.array([[18.0, 12.0]]), 8.0)["rate"].noise)


def test_a_ratio_whose_denominator_may_be_zero_is_no_figure() -> None:
    figure = share(np.array([5.0, 3.0]), part=[0], whole=[0, 1], stddev=8.0)
    assert figure == type(figure)(None, None, None)


@given(arrays(np.float64, 5, elements=st.floats(-100, 100)), st.floats(0, 100))
def test_counts_after_projection_are_counts(cells: np.ndarray, total: float) -> None:
    found = on_simplex(cells, total)
    assert (found >= 0).all()
    assert found.sum() == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Query("", ("a",), 1.0),
        lambda: Query("q", ("a", "a"), 1.0),
        lambda: Query("q", (), 1.0),
        lambda: Query("q", ("a",), math.nan),
        lambda: Query("q", ("a",), 0.0),
        lambda: Release((ACCURACY, ACCURACY), (0.5, 0.5)),
        lambda: Release((ACCURACY,), (0.5,)),
        lambda: Release((ACCURACY, LOSS), (1.5, -0.5)),
        lambda: Release((), ()),
        lambda: local(delta=0.01),
        lambda: local(answers=0),
        lambda: local(epsilon=-1.0),
        lambda: shares(colluding_sites=4),
        lambda: shares(epsilon=41.0),
        lambda: SkellamShares(4, 1, 0),
    ],
    ids=range(15),
)
def test_what_cannot_be_is_refused(make) -> None:
    with pytest.raises(PlanError):
        make()


def test_other_vectors_than_the_releases_are_refused() -> None:
    release = Release.of(ACCURACY)
    with pytest.raises(TrainingError, match="not those"):
        release.joint({"other": np.zeros((1, 2))})
    with pytest.raises(TrainingError, match="shape"):
        release.joint({"accuracy": np.zeros((1, 3))})
    with pytest.raises(TrainingError, match="shape"):
        ProtectedSum(shares()).integers(np.zeros((1, 3)))


@pytest.mark.parametrize(("epsilon", "answers"), [(0.3, 1), (0.5, 1), (1.0, 1), (1.0, 4)])
def test_an_exact_answer_has_the_noise_of_the_gaussians_own_curve(
    epsilon: float, answers: int
) -> None:
    """The closed form of Balle and Wang 2018 (arXiv 1805.06530, Eq. 6), computed apart."""
    multiplier = local(epsilon=epsilon, answers=answers, exact=True).noise.noise_multiplier
    filtered = local(epsilon=epsilon, answers=answers).noise.noise_multiplier
    assert multiplier < 0.9 * filtered

    def delta(sigma: float) -> float:
        of = statistics.NormalDist().cdf
        a, b = 1.0 / (2.0 * sigma), epsilon * sigma
        return of(a - b) - math.exp(epsilon) * of(-a - b)

    together = multiplier / math.sqrt(answers)  # so many Gaussians are one
    assert delta(together) <= DELTA
    assert delta(0.997 * together) > DELTA
    if (epsilon, answers) == (0.5, 1):
        assert (multiplier, filtered) == pytest.approx((7.03, 7.99), abs=0.005)
