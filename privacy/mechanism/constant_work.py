"""The work of a step, fixed before data are read, so that its time does not tell who was sampled.

A person of many records makes a step longer whenever they are sampled, and everybody who sees when
a site answers sees that. Here a step computes a declared number of rows of declared lengths,
whatever was sampled: rows that no record fills are **dummies**, whose gradients go nowhere.

**How many rows.** Units contribute at most m rows each and T in all, both declared. By the
convexity of r -> ln(1 - q + q e^(s r)), the rows S of a Poisson sample at rate q have no heavier
exponential moments than m times a binomial of T / m trials, so that (Chernoff)

    P(S >= R) <= exp(-(T / m) KL(R / T || q)),   R > q T.

`most_rows` is the least R beyond which this is at most 2^-40, shared out over the steps of a run.

**What does not fit** is not dropped: one unit would then decide about another, and the sum would
move by more than C. It is computed in further passes of the same form, and counted. Sums are as
private as without all this; work is constant but with probability 2^-40, as long as the data are
within what was declared: outputs and work together are
(epsilon, delta + (1 + e^epsilon) 2^-40)-DP.

`planning.work` declares a site's work from its settings. In a run, `training.constant_work` fills
the dummies' place and `mechanism.training` arranges each step's sampled units in the passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import PlanError

FAILURE: Final = 2.0**-40  # that some step of a run takes more than its declared work
DUMMY: Final = -1

PaddedCollate = Callable[[NDArray[np.int64], int], Any]
"""Record indices, shape (b,), `DUMMY` at the end for dummies, and a length in tokens, to a batch
of b rows of that length."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward and backward pass.

    Attributes:
        records: int64, shape (rows,): record indices, and `DUMMY`, at the end.
        owners: int64, shape (rows,): number of each row's unit in the step, ascending; `DUMMY`.
        length: Tokens that each row is padded to.
    """

    records: NDArray[np.int64]
    owners: NDArray[np.int64]
    length: int


@dataclass(frozen=True, slots=True)
class StepWork:
    """The passes that every step computes, of fixed shapes.

    Attributes:
        rows: Rows of a pass, >= 2. The last one is always a dummy, so that no pass is without: an
            attention mask with nothing to mask takes another way through libraries.
        lengths: In tokens, ascending; the last one fits every record.
        passes: How many of each length.
    """

    rows: int
    lengths: tuple[int, ...]
    passes: tuple[int, ...]

    @property
    def total_rows(self) -> int:
        """Rows of a step, dummies included."""
        return self.rows * sum(self.passes)

    @property
    def total_tokens(self) -> int:
        """Tokens of a step, padding and dummies included."""
        return self.rows * sum(n * k for n, k in zip(self.passes, self.lengths, strict=True))

    def arrange(
        self, units: Sequence[NDArray[np.int64]], record_cost: NDArray[np.int64]
    ) -> tuple[list[Pass], int]:
        """A step's passes, with the sampled units in them.

        A unit's records stay together, at the length that its longest one needs, or at a longer
        one that has room.

        Args:
            units: Record indices of each sampled unit.
            record_cost: int64, shape (records,): length of each record in tokens.

        Returns:
            The declared passes, and after them those for what does not fit; and how many rows did
            not.

        Raises:
            PlanError: A record is longer than every length.
        """
        free = [n * (self.rows - 1) for n in self.passes]
        placed: list[list[int]] = [[] for _ in self.lengths]
        over: list[int] = []
        needed = [self._needed(record_cost[unit]) for unit in units]
        # Those that need most first: what they leave is free for shorter ones.
        for number in sorted(range(len(units)), key=lambda n: -needed[n]):
            size = len(units[number])
            for at in range(needed[number], len(free)):
                if size <= free[at]:
                    free[at] -= size
                    placed[at].append(number)
                    break
            else:
                over.append(number)
        found: list[Pass] = []
        for length, count, numbers in zip(self.lengths, self.passes, placed, strict=True):
            found += self._passes(units, numbers, length, count)
        rows_over = sum(len(units[number]) for number in over)
        extra = math.ceil(rows_over / (self.rows - 1))
        return [*found, *self._passes(units, over, self.lengths[-1], extra)], rows_over

    def _needed(self, costs: NDArray[np.int64]) -> int:
        longest = int(costs.max(initial=0))
        for at, length in enumerate(self.lengths):
            if longest <= length:
                return at
        raise PlanError(f"a record has {longest} tokens, the longest pass {self.lengths[-1]}")

    def _passes(
        self, units: Sequence[NDArray[np.int64]], numbers: list[int], length: int, count: int
    ) -> list[Pass]:
        usable = self.rows - 1
        records = np.full(count * usable, DUMMY, dtype=np.int64)
        owners = np.full(count * usable, DUMMY, dtype=np.int64)
        at = 0
        for number in numbers:
            stop = at + len(units[number])
            records[at:stop], owners[at:stop] = units[number], number
            at = stop
        last = np.array([DUMMY], dtype=np.int64)
        return [
            Pass(
                np.concatenate([records[start : start + usable], last]),
                np.concatenate([owners[start : start + usable], last]),
                length,
            )
            for start in range(0, count * usable, usable)
        ]


@dataclass(frozen=True, slots=True)
class ConstantWork:
    """Constant work for a trainer.

    Attributes:
        step: What every step computes.
        collate: Makes its batches.
        over: Told how many rows of a step did not fit, where any did not. Local only.
    """

    step: StepWork
    collate: PaddedCollate
    over: Callable[[int], None]


def most_rows(total: int, at_most: int, sample_rate: float, failure: float) -> int:
    """Rows that a Poisson sample of units exceeds with probability at most `failure`.

    Args:
        total: Rows of all units together, T >= 1.
        at_most: Rows of one unit, m >= 1.
        sample_rate: Inclusion probability q, 0 < q <= 1.
        failure: In (0, 1).

    Returns:
        The least R, q T <= R <= T, for which the bound of this module's docstring says so.

    Raises:
        PlanError: An argument is out of range.
    """
    if total < 1 or at_most < 1 or not 0.0 < sample_rate <= 1.0 or not 0.0 < failure < 1.0:
        raise PlanError(
            f"no bound for {total} rows, {at_most} a unit, at rate {sample_rate} and {failure}"
        )
    if sample_rate == 1.0:
        return total
    trials, needed = total / at_most, -math.log(failure)

    def passes(rows: int) -> bool:
        return rows >= total or trials * _divergence((rows + 1) / total, sample_rate) >= needed

    low, high = math.floor(sample_rate * total) - 1, total
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def declare_work(
    *,
    records: int,
    at_most: int,
    sample_rate: float,
    steps: int,
    rows: int,
    length: int,
    shares: Sequence[tuple[int, float]] = (),
) -> StepWork:
    """The work of a step, from declared figures alone.

    Args:
        records: Records of all units together, at most `at_most` of each.
        at_most: Records of one unit.
        sample_rate: Inclusion probability.
        steps: Of the whole run, repeats included.
        rows: Of a pass, >= 2.
        length: Tokens of the longest record.
        shares: (tokens, share), tokens ascending: at most so large a share of the records belong
            to units with a record longer than that.

    Raises:
        PlanError: A figure is out of range, or lengths do not ascend.
    """
    lengths = (*(tokens for tokens, _ in shares), length)
    if rows < 2 or steps < 1 or lengths[0] < 1 or list(lengths) != sorted(set(lengths)):
        raise PlanError(f"no passes of {rows} rows and lengths {lengths} in {steps} steps")
    failure = FAILURE / (steps * len(lengths))
    # Of records that need at least each of the lengths.
    totals = [records, *(math.ceil(records * share) for _, share in shares)]
    bounds = [most_rows(t, at_most, sample_rate, failure) if t else 0 for t in totals]
    bounds = [max(bounds[n:]) for n in range(len(bounds))]
    # A unit stays together: each length may have room for all but one row of one unit left.
    slack = at_most - 1
    needed = [
        bound - following + slack for bound, following in zip(bounds, [*bounds[1:], 0], strict=True)
    ]
    return StepWork(rows, lengths, tuple(math.ceil(n / (rows - 1)) for n in needed))


def _divergence(share: float, rate: float) -> float:
    """Kullback-Leibler divergence of two coins, in nat."""
    found = share * math.log(share / rate) if share > 0.0 else 0.0
    if share < 1.0:
        found += (1.0 - share) * math.log((1.0 - share) / (1.0 - rate))
    return found
