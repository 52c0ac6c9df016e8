"""`docs/private-answers.md` says what the code does: every measure, and how wide intervals are."""

from __future__ import annotations

import re

import pytest
from documented import ROOT

from fmfl_secure.measures import MEASURES
from fmfl_secure.measures.labels import Accuracy
from fmfl_secure.questions.registry import QUESTIONS
from privacy.queries import QueryPlan, Release, half_width_of_share

PAGE = (ROOT / "docs/private-answers.md").read_text(encoding="utf-8")
PEOPLE = (100, 300, 600, 1000, 3000, 10_000)
ROWS = re.findall(r"^\| ([0-9.]+) \| ([0-9]+) \| ([^\n]*) \|$", PAGE, re.MULTILINE)


def test_everything_that_may_be_asked_has_its_row() -> None:
    named = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE))
    assert {each.name for each in MEASURES} <= named
    assert set(QUESTIONS.names) <= named | {"choice"}


@pytest.mark.parametrize(("epsilon", "sites", "cells"), ROWS, ids=lambda value: value[:4])
def test_half_widths_are_those_of_the_plans(epsilon: str, sites: str, cells: str) -> None:
    query = Accuracy().query
    common = {"unit": "p", "population": 1000, "epsilon": float(epsilon), "delta": 1e-5}
    release, number = Release.of(query), int(sites)
    plans = (
        QueryPlan.distributed(release, min_cohort=number, colluding_sites=1, **common),
        QueryPlan.local(release, **common),
    )
    for people, cell in zip(PEOPLE, cells.split(" | "), strict=True):
        for plan, stated in zip(plans, cell.split(" / "), strict=True):
            width = half_width_of_share(0.6, people, plan.answer_stddev(query, number))[0]
            assert stated == ("none" if width > 1 else f"{100 * width:.1f}")
