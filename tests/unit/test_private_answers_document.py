"""The table of `docs/private-answers.md` is what the plans come to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fmfl_secure.measures import MEASURES
from fmfl_secure.questions.document import half_widths, table

PAGE = Path(__file__).parents[2] / "docs/private-answers.md"


def test_the_page_has_the_table_that_the_code_prints() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), (
        "python -m fmfl_secure.questions.document prints it"
    )


def test_four_sites_of_150_units_are_as_the_page_says() -> None:
    local, shares, sampling = half_widths(4, 150, 0.5, min_cohort=4)
    assert (round(shares, 1), round(local, 1)) == (2.3, 4.1)
    assert "it is 2.3 points in shares and 4.1" in PAGE.read_text(encoding="utf-8")
    assert sampling == pytest.approx(3.91, abs=0.01)


def test_more_sites_units_and_epsilon_make_it_narrower_and_shares_beat_own_noise() -> None:
    start = half_widths(4, 150, 0.5, min_cohort=3)
    assert start[1] < start[0]
    for more in ((8, 150, 0.5), (4, 300, 0.5), (4, 150, 1.0)):
        sites, units, epsilon = more
        finer = half_widths(sites, units, epsilon, min_cohort=3)
        assert finer[0] < start[0]
        assert finer[1] < start[1]


def test_everything_that_may_be_asked_of_a_model_has_its_row() -> None:
    named = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert {each.name for each in MEASURES} <= named
