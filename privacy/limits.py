"""Bounds on an epsilon, a delta and a declared population size, wherever somebody states one.

A mechanism that publishes one record in n, chosen at random, is (0, 1 / n)-DP. A delta is therefore
at most `largest_delta(n)` = 1 / (10 n), n being the *declared*, rounded number of units.

Deltas and epsilons of several grants add up. They are added as they were written, in decimals: ten
grants of 1e-6 are 1e-5, and meet a bound of 1e-5 exactly.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from decimal import ROUND_CEILING, Decimal
from fractions import Fraction
from typing import TypeGuard

from privacy.errors import PlanError

# e^epsilon is far beyond any float by then: whoever writes more has mistyped. The settings' bound.
MAX_EPSILON = 1e9
MAX_POPULATION_SIZE = 1 << 53


def check_epsilon(epsilon: object, name: str = "epsilon", *, most: float = MAX_EPSILON) -> None:
    """Raise PlanError unless it is a number, 0 < epsilon <= most, and finite."""
    if not (_is_number(epsilon) and 0.0 < epsilon <= most and epsilon != math.inf):
        raise PlanError(
            f"{name} is {_shown(epsilon)}, expected a number above 0 and at most {most:g}",
            hint="Choose one between 0.5 and 8; 8 already gives no meaningful bound.",
        )


def rounded_up(epsilon: float) -> str:
    """Words what is spent or costs, in four places: never less than it is."""
    if not math.isfinite(epsilon):
        return "no bound"
    return str(Decimal(repr(epsilon)).quantize(Decimal("0.0001"), rounding=ROUND_CEILING))


def check_delta(delta: object, name: str = "delta") -> None:
    """Raise PlanError unless it is a number and 0 < delta < 1."""
    if not (_is_number(delta) and 0.0 < delta < 1.0):
        raise PlanError(
            f"{name} is {_shown(delta)}, expected a number above 0 and below 1",
            hint="Choose at most 1 / (10 x the declared population size), such as 1e-5.",
        )


def check_population_size(size: object, name: str = "population_size") -> None:
    """Raise PlanError unless it is a whole number from 1 to 2^53."""
    if type(size) is not int or not 1 <= size <= MAX_POPULATION_SIZE:
        raise PlanError(
            f"{name} is {_shown(size)}, expected a whole number, 1 to {MAX_POPULATION_SIZE}",
            hint="Give the declared, rounded number of units, as `population` in federation.toml.",
        )


def check_population_delta(
    delta: float, population_size: int, name: str = "delta", *, hint: str = ""
) -> None:
    """Raise PlanError where delta is above 1 / (10 population_size)."""
    if delta > largest_delta(population_size):
        raise PlanError(
            f"{name} is {delta}, expected at most 1 / (10 x population) = "
            f"{largest_delta(population_size):.2e}",
            hint=hint or "A delta near 1 / population would permit publishing a record outright.",
        )


def largest_delta(population_size: int) -> float:
    """The largest delta for so many units, 1 / (10 n)."""
    return 1.0 / (10.0 * population_size)


def as_written(number: float) -> Fraction:
    """A finite number by its shortest decimal form: 1e-5 and not the float nearest to it."""
    return Fraction(repr(float(number)))


def add(values: Iterable[float]) -> float:
    """The sum of numbers as they were written; infinite where one is."""
    terms = list(values)
    if not all(math.isfinite(term) for term in terms):
        return math.inf
    return float(sum((as_written(term) for term in terms), Fraction(0)))


def _is_number(value: object) -> TypeGuard[float]:
    # A flag compares like 0 or 1, and a text is no number however it reads.
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, bool | str) else str(value)
    return text if len(text) <= 40 else text[:40] + "..."
