"""The work of a step is declared, and what it computes is what a step of any work computes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from privacy import DUMMY, ConstantWork, PlanError, StepWork, TrainingError, declare_work
from privacy.mechanism.constant_work import FAILURE, most_rows
from privacy.mechanism.training import ClippedSum
from privacy.training import measure_step

LENGTHS = (4, 9)


def tail(sizes: list[int], rate: float, rows: int) -> float:
    """P(S > rows), exactly: each size is in with this rate."""
    mass = np.array([1.0])
    for size in sizes:
        mass = np.convolve(mass, [1.0 - rate, *[0.0] * (size - 1), rate])
    return float(mass[rows + 1 :].sum())


@pytest.mark.parametrize("rate", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["all large", "all single", "mixed", "one large"])
def test_rows_stay_within_the_bound_however_they_are_spread_over_units(
    rate: float, kind: str
) -> None:
    total, most = 240, 8
    sizes = {
        "all large": [8] * 30,
        "all single": [1] * 240,
        "mixed": [8] * 10 + [3] * 20 + [1] * 100,
        "one large": [8] + [1] * 232,
    }[kind]
    assert sum(sizes) == total
    for failure in (2.0**-5, 2.0**-20, FAILURE):
        rows = most_rows(total, most, rate, failure)
        assert tail(sizes, rate, rows) <= failure
        if kind == "all large" and rate < 1.0:  # the worst case: the bound is not far above it
            exact = next(r for r in range(total + 1) if tail(sizes, rate, r) <= failure)
            assert rows <= exact + 4 * most


@pytest.mark.parametrize(
    "change", [{"total": 0}, {"at_most": 0}, {"sample_rate": 0.0}, {"failure": 1.0}]
)
def test_a_bound_of_nothing_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(PlanError, match="no bound"):
        most_rows(**{"total": 9, "at_most": 3, "sample_rate": 0.5, "failure": 0.1} | change)  # type: ignore[arg-type]


def declared(**more) -> StepWork:
    return declare_work(
        **{
            "records": 240, "at_most": 8, "sample_rate": 0.2, "steps": 40, "rows": 16, "length": 9,
            "shares": [(4, 0.25)],
        } | more
    )  # fmt: skip


def test_declared_work_follows_from_public_figures_alone() -> None:
    work = declared()
    assert work == declared()
    assert work.lengths == LENGTHS
    assert work.total_rows == 16 * sum(work.passes)
    assert work.total_tokens == 16 * sum(n * k for n, k in zip(work.passes, LENGTHS, strict=True))
    # A share of long records makes long passes fewer than if all were declared long.
    assert work.passes[1] < declared(shares=()).passes[0]
    assert declared(shares=[(4, 0.0)]).passes[1] <= 1
    with pytest.raises(PlanError, match="no passes"):
        declared(shares=[(9, 0.5)])
    with pytest.raises(PlanError, match="no passes"):
        declared(rows=1)


def random_units(generator: np.random.Generator, count: int) -> tuple[list, np.ndarray]:
    sizes = generator.choice([1, 2, 3, 8], size=count)
    records = generator.permutation(int(sizes.sum()))
    units = np.split(records, np.cumsum(sizes)[:-1]) if count else []
    cost = generator.choice([1, 3, 4, 5, 9], size=max(1, len(records)))
    return [unit.astype(np.int64) for unit in units], cost.astype(np.int64)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("count", [0, 1, 20])
def test_every_row_has_a_place_and_passes_look_alike(seed: int, count: int) -> None:
    work = StepWork(rows=8, lengths=LENGTHS, passes=(7, 12))
    units, cost = random_units(np.random.default_rng(seed), count)
    passes, over = work.arrange(units, cost)
    assert over == 0
    assert [(len(p.records), p.length) for p in passes] == [(8, 4)] * 7 + [(8, 9)] * 12
    assert all(p.records[-1] == p.owners[-1] == DUMMY for p in passes)
    records = np.concatenate([p.records for p in passes])
    owners = np.concatenate([p.owners for p in passes])
    assert sorted(records[records != DUMMY]) == sorted(r for unit in units for r in unit)
    assert all(r in units[o] for r, o in zip(records, owners, strict=True) if o != DUMMY)
    owned = owners[owners != DUMMY]
    assert np.count_nonzero(np.diff(owned, prepend=DUMMY)) == len(units), "a unit stays together"
    for one in passes:
        assert all(cost[record] <= one.length for record in one.records if record != DUMMY)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_within_the_bounds_fits(seed: int) -> None:
    """The worst that the bounds allow, of either length, in units of any sizes."""
    generator = np.random.default_rng(seed)
    work = declared()
    shares = [most_rows(t, 8, 0.2, FAILURE / 80) for t in (240, 60)]
    units, cost = random_units(generator, 400)
    taken, rows, long_rows = [], 0, 0
    for unit in units:
        is_long = int(cost[unit].max() > 4)
        if rows + len(unit) <= shares[0] and long_rows + is_long * len(unit) <= shares[1]:
            taken.append(unit)
            rows, long_rows = rows + len(unit), long_rows + is_long * len(unit)
    assert rows > shares[0] - 8
    assert work.arrange(taken, cost)[1] == 0


def test_what_does_not_fit_is_computed_and_counted() -> None:
    work = StepWork(rows=4, lengths=(9,), passes=(2,))
    units = [np.arange(n, n + 3) for n in range(0, 15, 3)]
    passes, over = work.arrange(units, np.ones(15, dtype=np.int64))
    assert over == 9
    assert [len(p.records) for p in passes] == [4] * 5
    records = np.concatenate([p.records for p in passes])
    assert sorted(records[records != DUMMY]) == list(range(15))
    with pytest.raises(PlanError, match="10 tokens"):
        work.arrange(units[:1], np.full(15, 10))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.upper(torch.tanh(self.lower(batch)))


def summed(model: nn.Module, data: torch.Tensor, units: list, work: StepWork | None, cost) -> tuple:
    seen: list[tuple[int, ...]] = []
    told: list[int] = []

    def collate(records: np.ndarray) -> torch.Tensor:
        return data[torch.from_numpy(records)]

    def padded(records: np.ndarray, length: int) -> torch.Tensor:
        seen.append((len(records), length))
        rows = collate(np.maximum(records, 0))
        rows[torch.from_numpy(records == DUMMY)] = math.nan  # may be anything
        return rows

    clipped_sum = ClippedSum(
        model,
        loss=lambda model, batch: model(batch)[:, 0],
        collate=collate,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        max_grad_norm=0.7,
        noise_stddev=1.0,
        expected_batch_size=5.0,
        physical_batch_size=6,
    )
    with clipped_sum:
        if work is None:
            clipped_sum.accumulate(units)
        else:
            clipped_sum.accumulate_evenly(units, cost, ConstantWork(work, padded, told.append))
        return clipped_sum.take_sum(), seen, told


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [0, 1, 25])
def test_the_clipped_sum_is_that_of_any_other_step(seed: int, count: int) -> None:
    """Units over several passes, a unit that is not finite, rows that do not fit: the same sum."""
    generator = np.random.default_rng(seed)
    units, cost = random_units(generator, count)
    data = torch.from_numpy(generator.normal(size=(len(cost), 3))).float()
    if count:
        data[int(units[0][0])] = math.nan
    torch.manual_seed(seed)
    model = Net()
    expected, _, _ = summed(model, data, units, None, cost)
    for passes in ((9, 12), (1, 1)):
        work = StepWork(rows=5, lengths=LENGTHS, passes=passes)
        found, seen, told = summed(model, data, units, work, cost)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
        assert bool(told) == (len(seen) > sum(passes))
        assert seen[: sum(passes)] == [(5, 4)] * passes[0] + [(5, 9)] * passes[1]
    if count > 1:
        assert float(expected.abs().max()) > 0


def test_a_unit_without_records_is_refused() -> None:
    work = StepWork(rows=5, lengths=LENGTHS, passes=(2, 2))
    empty = [np.empty(0, dtype=np.int64)]
    with pytest.raises(TrainingError, match="clipped once"):
        summed(Net(), torch.zeros(1, 3), empty, work, np.ones(1, dtype=np.int64))


def test_a_step_is_measured_on_dummies_and_leaves_the_model_as_it_was() -> None:
    model, seen = Net(), []
    before = [p.detach().clone() for p in model.parameters()]

    def padded(records: np.ndarray, length: int) -> torch.Tensor:
        assert np.all(records == DUMMY)
        seen.append(length)
        return torch.zeros(len(records), 3)

    work = StepWork(rows=5, lengths=LENGTHS, passes=(1, 2))
    took_s = measure_step(
        model,
        parameters=list(model.parameters()),
        loss=lambda model, batch: model(batch)[:, 0],
        collate=lambda _: None,
        work=ConstantWork(work, padded, lambda _: None),
    )
    assert took_s > 0
    assert seen == [4, 9, 9]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())
