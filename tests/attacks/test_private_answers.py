"""What somebody who knows everything else learns of one person from answers, and from liars.

Each attack works where it should: without noise, or against what is not claimed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from asked import silence

from aggregation import Identity
from privacy import (
    BudgetExhausted,
    Ledger,
    PoissonSampledGaussian,
    add_costs,
    attack_success_bound,
    epsilon_spent,
    rdp_cost,
    zero_cost,
)
from privacy.queries import Query, QueryPlan, Release
from privacy.queries.plan import GaussianNoise
from privacy.queries.protected_sum import ProtectedSum

DELTA, DRAWS, FALSE_POSITIVES = 1e-5, 600, 0.05
LABELS = Query("labels", ("no", "yes"), 1.0)
UNITS = Query("units", ("site-1", "site-2"), 1.0)
RELEASE = Release.of(LABELS, UNITS)


def plan(kind: str, epsilon: float, answers: int) -> QueryPlan:
    common = {
        "unit": "record", "population": 150, "epsilon": epsilon, "delta": DELTA,
        "answers": answers,
    }  # fmt: skip
    if kind == "local":
        return QueryPlan.local(RELEASE, **common)
    return QueryPlan.distributed(RELEASE, min_cohort=4, colluding_sites=1, **common)


def rows(people: int) -> dict[str, np.ndarray]:
    return {"labels": np.array([[0.0, 1.0]] * people), "units": np.array([[1.0, 0.0]] * people)}


def seen(made: QueryPlan, people: int) -> np.ndarray:
    """A released sum less what is known of everybody else, along the target's own direction."""
    known = made.release.joint(rows(50)).sum(axis=0)
    target = made.release.joint(rows(1))[0]
    total = ProtectedSum(made).integers(made.release.joint(rows(people)))
    shares = 0 if isinstance(made.noise, GaussianNoise) else 2  # of the other honest sites
    for _ in range(shares):
        total = total + ProtectedSum(made).integers(np.zeros((0, made.release.dimension)))
    return (total * made.granularity - known) @ target


@pytest.mark.parametrize("kind", ["local", "distributed"])
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_differencing_two_answers_is_bounded_by_what_both_were_charged(
    kind: str, epsilon: float
) -> None:
    """One answer was asked while the target was there, or was not; the other after they had gone.

    The attacker subtracts one from the other, and knows all other people.
    """
    made = plan(kind, epsilon, answers=2)
    after = np.array([seen(made, 50) for _ in range(DRAWS)])
    there = np.array([seen(made, 51) for _ in range(DRAWS)]) - after
    gone = np.array([seen(made, 50) for _ in range(DRAWS)]) - after[::-1]
    threshold = np.quantile(gone, 1.0 - FALSE_POSITIVES)
    found = float((there > threshold).mean())
    bound = attack_success_bound(epsilon, DELTA, FALSE_POSITIVES)
    error = 3.0 * np.sqrt(0.25 / DRAWS) + 3.0 * np.sqrt(FALSE_POSITIVES / DRAWS)
    assert found <= bound + error
    # Nobody who knows only that much does better than the single answer that holds the target.
    alone = np.array([seen(made, 51) for _ in range(DRAWS)])
    best = float((alone > np.quantile(after, 1.0 - FALSE_POSITIVES)).mean())
    assert best <= bound + error
    assert found <= best + error


def test_without_noise_the_same_attack_finds_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan("local", 0.5, answers=2)
    silence(monkeypatch)
    there = [seen(made, 51) - seen(made, 50) for _ in range(20)]
    gone = [seen(made, 50) - seen(made, 50) for _ in range(20)]
    assert min(there) > 0.9
    assert max(gone) < 0.1


@pytest.mark.parametrize("times", [4])
def test_averaging_many_answers_gains_no_more_than_they_were_charged(times: int) -> None:
    """Asked so often, within one epsilon: each answer is noisier, and their mean no better."""
    once, often = plan("local", 1.0, answers=1), plan("local", 1.0, answers=times)
    single = np.array([seen(once, 51) for _ in range(DRAWS)])
    mean = np.array(
        [np.mean([seen(often, 51) for _ in range(times)]) for _ in range(DRAWS // times)]
    )
    assert mean.std() >= 0.7 * single.std()  # five standard errors; half would be a gain


def test_a_unit_of_any_vector_is_found_no_better_than_one_at_the_bound() -> None:
    """Vectors beyond the bound, not finite, or of opposite signs: the projected one moves by 1."""
    made = plan("local", 0.5, answers=1)
    for monster in (1e300, -1e300, np.inf, np.nan, 1.0000001):
        own = {name: np.full((1, 2), monster) for name in ("labels", "units")}
        assert np.linalg.norm(made.release.joint(own)) <= 1.0 + 2.0**-20


def test_one_liar_moves_an_answer_by_as_much_as_the_grid_allows() -> None:
    """Not protected from, and said: a site's integers are taken as they come."""
    made = plan("distributed", 0.5, answers=1)
    honest = ProtectedSum(made).integers(made.release.joint(rows(150)))
    lie = np.full_like(honest, made.largest_value)
    moved = made.release.split((lie - honest) * made.granularity)["labels"]
    assert moved.max() > 100, "more than half of all units there are, by one site"


@pytest.mark.parametrize("seed", range(3))
def test_trainings_and_answers_that_race_never_hold_more_than_was_granted(
    tmp_path: Path, seed: int
) -> None:
    """Eight processes' worth of ledgers on one file, each after the last of the budget."""
    signer = Identity.generate("site-1")
    place = tmp_path / "ledger.sqlite"
    ledger = Ledger.create(
        place, population="patients", unit="record", signer=signer, public_key=signer.public.key
    )
    ledger.grant(epsilon=2.0, delta=DELTA, population_size=150)
    answer = plan("local", 0.9, answers=1).event()
    training = PoissonSampledGaussian(0.1, 1.2, 4)
    order = np.random.default_rng(seed).permutation(8)
    admitted: list[str] = []

    def run(number: int) -> None:
        own = Ledger(place, signer=signer)
        event, rounds = (answer, 1) if order[number] % 2 else (training, 2)
        name = f"{number:08x}" + (".answers" if order[number] % 2 else "")
        try:
            own.reserve(run=name, event=event, rounds=rounds, plan="p", population_size=150)
        except BudgetExhausted:
            return
        own.commit(run=name, round=1)
        admitted.append(name)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    budget = Ledger(place).budget()
    (status,) = budget.status()
    assert set(budget.reservations) == set(admitted)
    assert 0 < len(admitted) < 8
    assert status.epsilon_charged <= 2.0
    orders = status.grant.orders
    total = zero_cost(orders)
    for name in admitted:
        cost = rdp_cost(answer if name.endswith(".answers") else training, orders)
        total = add_costs(total, cost)
    assert status.epsilon_committed == pytest.approx(epsilon_spent(total, DELTA), rel=1e-9)
