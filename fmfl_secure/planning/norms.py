"""The norm check in figures: which values are bounded together, and how long an honest update is.

All of it follows from public settings, so that every party computes the same and nobody takes it
from another. `aggregation.protocol` has the check; `docs/protocol.md` what it proves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from aggregation import Quantization
from aggregation.protocol import LEAST_GROUP, MOST_GROUP, NormGroup, limit_of
from fmfl_secure.planning.noise import noise_of
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.settings.questions import Turn
from privacy import PlanError


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
        norm: Largest norm of an honest update of weight 1 there, in steps of the grid.
        limit: What a site of weight 1 is held to.
        of_range: The limit over that of an update at the end of its range in every value.
    """

    first: str
    last: str
    size: int
    norm: int
    limit: float
    of_range: float


def bounded_tensors(groups: Sequence[NormGroup], grid: Quantization) -> list[BoundedTensors]:
    """The groups of a plan with the names of what is in them.

    Args:
        groups: Of the plan.
        grid: Of the same round.
    """
    names: list[tuple[int, str]] = []
    end = 0
    for segment in grid.segments:
        end += segment.size
        names.append((end, segment.name))

    def name_at(place: int) -> str:
        return next(name for end, name in names if place < end)

    found, start = [], 0
    for group in groups:
        limit = limit_of(group, 1.0)
        whole = grid.limit * math.sqrt(group.size)
        first, last = name_at(start), name_at(start + group.size - 1)
        found.append(BoundedTensors(first, last, group.size, group.norm, limit, limit / whole))
        start += group.size
    return found
