"""The norm check in figures: which values are bounded together, and how long an honest update is.

All of it follows from public settings, so that every party computes the same and nobody takes it
from another. `aggregation.protocol` has the check; `docs/protocol.md` what it proves.

`parties.coordinator` writes groups into a plan by `norm_groups`, `parties.site` compares them with
its own, and `fmfl-secure plan` lists them by `bounded_tensors`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import msgspec

from aggregation import Quantization
from aggregation.protocol import LEAST_GROUP, MOST_GROUP, NormGroup, limit_of, rows_of
from fmfl_secure.planning.noise import noise_of
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.questions import Turn
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot
from privacy import PlanError

# How many times its limit a coalition may exceed, and with which probability at most: of 64
# projections and of 32 (docs/protocol.md).
_MISSED: Final = {64: (1.6, 6.3e-5), 32: (2.0, 8.4e-4)}


def norm_groups(
    config: FederationConfig, turn: Turn, grid: Quantization
) -> tuple[NormGroup, ...] | msgspec.UnsetType:
    """The groups of a round's plan; none where the settings or the round have no check.

    Args:
        config: The settings.
        turn: What the round is for. What is asked is not checked: its range is all that is known.
        grid: Of what it uploads.

    Raises:
        PlanError: The update is too small for any group.
    """
    if not config.federation.norm_check or turn.asked is not None:
        return msgspec.UNSET
    if grid.size < LEAST_GROUP:
        raise PlanError(
            f"federation.norm_check: an update of {grid.size} values has no group that could be "
            f"checked, which takes {LEAST_GROUP}",
            hint="Set federation.norm_check = false, or train a larger adapter.",
        )
    noise = noise_of(config)
    step = grid.segments[0].range / grid.limit  # one for all where it matters: of gradients
    return tuple(
        NormGroup(size, math.ceil(noise.largest_norm(config, size, step, grid.limit)))
        for size in group_sizes([segment.size for segment in grid.segments])
    )


def rehearsed_norms(
    config: FederationConfig, grid: Quantization
) -> tuple[NormGroup, ...] | msgspec.UnsetType:
    """The groups of a rehearsal: as long as its public integers may be. None as in `norm_groups`.

    Args:
        config: The settings.
        grid: Of the rehearsal.
    """
    if not config.federation.norm_check or grid.size < LEAST_GROUP:
        return msgspec.UNSET
    sizes = group_sizes([grid.size])
    return tuple(NormGroup(size, math.ceil(grid.limit * math.sqrt(size))) for size in sizes)


def group_sizes(sizes: Sequence[int]) -> list[int]:
    """Cut tensors, one after the other, into groups of 512 to 16,384 values.

    A tensor of at least 512 is a group, or several of nearly one size; smaller ones are put
    together until they are one, and what is left joins the group before, or after.

    Args:
        sizes: Values of each tensor; 512 together at least.
    """
    found: list[int] = []
    small = 0
    for size in sizes:
        if size < LEAST_GROUP:
            small += size
            if small >= LEAST_GROUP:
                found.append(small)
                small = 0
            continue
        if small and found:
            found[-1] += small
        elif small:
            size += small  # noqa: PLW2901 - there is no group before
        small = 0
        found.append(size)
    if small and found:
        found[-1] += small
    return [part for size in found for part in _parts(size)]


def _parts(size: int) -> Iterator[int]:
    """A size in as few parts as are allowed, which differ by one at most."""
    count = -(-size // MOST_GROUP)
    for place in range(count):
        yield (size * (place + 1)) // count - (size * place) // count


@dataclass(frozen=True, slots=True)
class BoundedTensors:
    """A group, for people.

    Attributes:
        first: Name of the first tensor that has values in it.
        last: Name of the last.
        size: Values.
        projections: Numbers that each site shows of it.
        honest: Largest norm of an honest update there, over that of one at the end of its range.
        limit: What a site is held to, in the same measure.
        mean: How far one hostile site can move the mean, in the same measure; further with
            probability `missed` a round. So many of them go so many times as far.
        missed: That probability.
    """

    first: str
    last: str
    size: int
    projections: int
    honest: float
    limit: float
    mean: float
    missed: float


def bounded_tensors(
    config: FederationConfig, tensors: Sequence[tuple[str, int]], size: int
) -> list[BoundedTensors]:
    """Lists the groups of tensors that a norm check bounds; none without one.

    Args:
        config: The settings.
        tensors: Name and size of each tensor of a round of training.
        size: Trained parameters of the round that trains most.

    Raises:
        PlanError: The update is too small for any group.
    """
    if not config.trains:
        return []
    layout = FlatLayout(tuple(TensorSlot(name, (values,)) for name, values in tensors))
    grid = noise_of(config).grid(config, layout, size)
    groups = norm_groups(config, Turn(training=1), grid)
    if isinstance(groups, msgspec.UnsetType):
        return []
    ends = list(accumulate(values for _, values in tensors))
    found, start = [], 0
    for group in groups:
        rows, whole = rows_of(group.size), grid.limit * math.sqrt(group.size)
        times, missed = _MISSED[rows]
        limit = limit_of(group, 1.0) / whole
        found.append(
            BoundedTensors(
                first=tensors[bisect_right(ends, start)][0],
                last=tensors[bisect_right(ends, start + group.size - 1)][0],
                size=group.size,
                projections=rows,
                honest=group.norm / whole,
                limit=limit,
                mean=times * limit / len(config.sites),
                missed=missed,
            )
        )
        start += group.size
    return found
