"""Numbers on the page are rounded against the people in the data."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmfl_secure.report import overview, rounding

ROOT = Path(__file__).parents[2]
EPSILONS = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@given(EPSILONS)
def test_spent_is_never_rounded_down(epsilon: float) -> None:
    shown = Decimal(rounding.spent(epsilon))

    assert shown >= Decimal(repr(epsilon))
    assert shown - Decimal(repr(epsilon)) <= Decimal("0.001")


@given(EPSILONS)
def test_left_is_never_rounded_up(epsilon: float) -> None:
    shown = Decimal(rounding.left(epsilon))

    assert shown <= Decimal(repr(epsilon))
    assert Decimal(repr(epsilon)) - shown < Decimal("0.001")


@given(st.floats(min_value=1e-300, max_value=0.999, allow_nan=False))
def test_delta_is_never_rounded_down(delta: float) -> None:
    shown = rounding.small(delta)

    assert Decimal(shown) >= Decimal(repr(delta))
    assert Decimal(shown) <= Decimal(repr(delta)) * Decimal("1.1")


@given(st.floats(min_value=0, max_value=1, allow_nan=False))
def test_success_is_never_rounded_down(success: float) -> None:
    shown = rounding.percent(success).removesuffix("\N{NO-BREAK SPACE}%")

    assert Decimal(repr(success)) * 100 <= Decimal(shown) <= 100


@pytest.mark.parametrize(
    ("show", "number", "text"),
    [
        (rounding.spent, 2.7881234, "2.789"),
        (rounding.spent, 3.0, "3.000"),
        (rounding.spent, 0.1, "0.100"),
        (rounding.spent, 1e-9, "0.001"),
        (rounding.spent, 0.0, "0.000"),
        (rounding.spent, math.inf, "no bound"),
        (rounding.spent, math.nan, "no bound"),
        (rounding.left, 5.2118766, "5.211"),
        (rounding.left, 0.0009, "0.000"),
        (rounding.left, -1.0, "0"),
        (rounding.left, math.nan, "0"),
        (rounding.typed, 8.0, "8"),
        (rounding.typed, 0.5, "0.5"),
        (rounding.typed, 1e-05, "0.00001"),
        (rounding.typed, 100.0, "100"),
        (rounding.typed, math.inf, "no bound"),
        (rounding.small, 1e-5, "0.00001"),
        (rounding.small, 0.0002108553, "0.00022"),
        (rounding.small, 3.2, "1 or more"),
        (rounding.small, math.inf, "1 or more"),
        (rounding.small, 0.0, "0"),
        (rounding.percent, 0.02719, "2.72\N{NO-BREAK SPACE}%"),
        (rounding.percent, 0.99999, "100\N{NO-BREAK SPACE}%"),
        (rounding.size, 147_640, "148 kB"),
        (rounding.size, 999, "999 bytes"),
    ],
)
def test_examples(show: object, number: float, text: str) -> None:
    assert show(number) == text  # type: ignore[operator]


def test_grants_add_up_as_typed() -> None:
    assert rounding.add([0.1, 0.2]) == 0.3
    assert rounding.add([1.0, math.inf]) == math.inf


def test_group_privacy_follows_the_formula() -> None:
    for size in (2, 4):
        epsilon, delta = overview.group_privacy(3.0, 1e-5, size)
        assert epsilon == 3.0 * size
        assert delta == pytest.approx(1e-5 * math.expm1(size * 3.0) / math.expm1(3.0))


def test_group_privacy_at_the_edges() -> None:
    assert overview.group_privacy(0.0, 1e-5, 2) == (0.0, 2e-5)
    assert overview.group_privacy(500.0, 1e-5, 4) == (2000.0, math.inf)
    assert overview.group_privacy(math.inf, 1e-5, 2) == (math.inf, 1.0)


def test_with_a_digit_more_it_is_rounded_the_same_way() -> None:
    """As a terminal and the live pages have it: what is spent and left never adds up to more."""
    assert (rounding.spent_fine(1.7240357), rounding.left_fine(0.2759643)) == ("1.7241", "0.2759")
    assert (rounding.spent_fine(7.6757103), rounding.left_fine(0.3242897)) == ("7.6758", "0.3242")
    assert (rounding.spent_fine(2.5), rounding.left_fine(0.5)) == ("2.5000", "0.5000")


def test_nothing_that_is_spent_or_left_is_rounded_to_the_nearest() -> None:
    """A format such as `.4f` rounds one of the two to somebody's disadvantage."""
    nearest = re.compile(r"\{[^{}]*(epsilon|spent|left|charged|held)[^{}]*:\.[0-9]+[fg]\}")
    places = [
        ROOT / "fmfl_secure/cli",
        ROOT / "fmfl_secure/report",
        ROOT / "fmfl_secure/transports",
    ]
    found = {
        f"{file.relative_to(ROOT)}: {match[0]}"
        for place in places
        for file in place.rglob("*.py")
        for match in nearest.finditer(file.read_text(encoding="utf-8"))
    }
    assert found <= {
        "fmfl_secure/cli/afford.py: {run.epsilon:.2f}",  # on a grid of hundredths, which it is on
        "fmfl_secure/report/empirical.py: {epsilon:.2f}",  # a lower bound, rounded before
    }
