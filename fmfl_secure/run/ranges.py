"""Ranges of figures in a record, wherever a record or a part of one comes in.

Whoever signed a figure may be wrong or may lie: a signature says who wrote it, and not that it is
possible. So each field has a range, which NaN and an infinity that means nothing are outside of,
and figures that belong together are compared where they are put together (`require`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Final

import msgspec

from fmfl_secure.errors import RunError
from privacy import MAX_EPSILON

_MOST_COMPUTED: Final = 1e12  # what is charged can be above what was granted
_TOLERANCE: Final = 1e-6  # of what two ways to add up may differ by

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Figure = Annotated[float, msgspec.Meta(ge=0, le=MAX_EPSILON)]
Granted = Annotated[float, msgspec.Meta(gt=0, le=MAX_EPSILON)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Delta = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Estimate = Annotated[float, msgspec.Meta(ge=-1e100, le=1e100)]  # of sums; a page can draw it
Spent = Annotated[float, msgspec.Meta(ge=0)]  # no bound where something was used without noise
Text = Annotated[str, msgspec.Meta(max_length=1 << 16)]  # what people typed, a reason


def require(holds: bool, otherwise: str) -> None:
    """Raise RunError unless something holds."""
    if not holds:
        raise RunError(otherwise)


def within(part: float, whole: float) -> bool:
    """Whether a part is not above the whole, but for rounding."""
    return part <= whole * (1 + _TOLERANCE) + _TOLERANCE


def grows(figures: Sequence[float]) -> bool:
    """Whether none is below the one before it, but for rounding."""
    return all(within(before, after) for before, after in pairwise(figures))


def require_figures(record: msgspec.Struct, names: Sequence[str]) -> None:
    """Raise RunError where a computed epsilon is neither in its range nor infinite."""
    for name in names:
        found = getattr(record, name)
        for value in found if isinstance(found, tuple) else (found,):
            require(
                value is None or value == math.inf or 0.0 <= value <= _MOST_COMPUTED,
                f"{name} is {value}, expected 0 to {_MOST_COMPUTED:g}, or no bound",
            )
