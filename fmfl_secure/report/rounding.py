"""Numbers as text, rounded so that a reader never believes in more privacy than there is.

What is spent, charged or risked is rounded up in the last digit shown, what is left is rounded
down, and what somebody typed (a grant, a delta) is shown as typed. Decimal arithmetic starts from
a float's shortest decimal form, so 0.1 stays 0.1 instead of becoming 0.101.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal, localcontext

EPSILON_PLACES = 3
FINE_PLACES = 4  # on a terminal and on live pages
PERCENT_PLACES = 2
NO_BOUND = "no bound"

# Sums of typed numbers must stay exact, so that grants add up on the page as they do by hand.
_EXACT = Context(prec=60)


def spent(epsilon: float, places: int = EPSILON_PLACES) -> str:
    """An epsilon that is spent, charged or bounds a risk: rounded up, `no bound` if infinite."""
    if not math.isfinite(epsilon):
        return NO_BOUND
    return _fixed(_decimal(epsilon), places, ROUND_CEILING)


def left(epsilon: float, places: int = EPSILON_PLACES) -> str:
    """An epsilon that is left: rounded down, and never below nothing."""
    if not math.isfinite(epsilon) or epsilon <= 0:
        return "0"
    return _fixed(_decimal(epsilon), places, ROUND_FLOOR)


def spent_fine(epsilon: float) -> str:
    """The same as `spent` with a digit more."""
    return spent(epsilon, FINE_PLACES)


def left_fine(epsilon: float) -> str:
    """The same as `left` with a digit more."""
    return left(epsilon, FINE_PLACES)


def typed(number: float) -> str:
    """A number as it was typed: 8, 0.5, 0.00001; all its digits, no exponent."""
    if not math.isfinite(number):
        return NO_BOUND
    return _plain(_decimal(number))


def add(numbers: Iterable[float]) -> float:
    """Add typed numbers as a person would, in decimals: 0.1 and 0.2 are 0.3."""
    values = list(numbers)
    if not all(math.isfinite(value) for value in values):
        return math.inf
    with localcontext(_EXACT):
        return float(sum((_decimal(value) for value in values), Decimal(0)))


def small(delta: float) -> str:
    """A computed delta: two significant digits, rounded up; plain above 0.0001."""
    if not math.isfinite(delta) or delta >= 1:
        return "1 or more"
    if delta <= 0:
        return "0"
    exact = _decimal(delta)
    digits = exact.quantize(
        Decimal((0, (1,), exact.adjusted() - 1)), rounding=ROUND_CEILING, context=_EXACT
    )
    return _plain(digits)


def percent(probability: float) -> str:
    """A bound on an attacker's success: rounded up, 100 % at most."""
    if not math.isfinite(probability):
        return "100\N{NO-BREAK SPACE}%"
    with localcontext(_EXACT):
        bounded = min(max(_decimal(probability), Decimal(0)), Decimal(1)) * 100
        text = _plain(bounded.quantize(Decimal((0, (1,), -PERCENT_PLACES)), rounding=ROUND_CEILING))
    return f"{text}\N{NO-BREAK SPACE}%"


def count(number: int) -> str:
    """A whole number with thin groups of three: 1,000,000."""
    return f"{number:,}"


def size(size_bytes: int) -> str:
    """A size in decimal units."""
    value, unit = float(size_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{size_bytes} bytes" if unit == "bytes" else f"{value:.3g} {unit}"


def _decimal(number: float) -> Decimal:
    return Decimal(repr(float(number)))


def _fixed(number: Decimal, places: int, rounding: str) -> str:
    step = Decimal((0, (1,), -places))
    return format(number.quantize(step, rounding=rounding, context=_EXACT), "f")


def _plain(number: Decimal) -> str:
    text = format(number, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
