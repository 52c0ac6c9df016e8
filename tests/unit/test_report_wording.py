"""What an epsilon is said to mean."""

from __future__ import annotations

import pytest
from test_report_page import text_of
from test_report_records import a_grant, a_mechanism, a_site, a_statement, finished

from fmfl_secure.report import verdict as meaning
from fmfl_secure.report.names import listing, who
from fmfl_secure.run.record import RunRecord


def granted(epsilon: float) -> RunRecord:
    statement = a_statement("clinic-a", grants=(a_grant(epsilon, spent=epsilon * 0.9),))
    return finished(mechanism=a_mechanism(epsilon), sites=(a_site("clinic-a", statement),))


@pytest.mark.parametrize(
    ("epsilon", "at_1", "at_5", "word"),
    [
        (1.0, "2.72", "13.6", "strong limit"),
        (3.0, "20.09", "95.28", "clear limit at 1 %, no meaningful bound at 5 %"),
        (5.0, "99.34", "99.36", "no meaningful bound"),
        (8.0, "99.97", "99.97", "no meaningful bound"),
        (12.0, "100", "100", "no meaningful bound"),
    ],
)
def test_verdict(epsilon: float, at_1: str, at_5: str, word: str) -> None:
    verdict = meaning.verdict(epsilon, 1e-5)

    assert verdict.at_1 == f"{at_1}\N{NO-BREAK SPACE}%"
    assert verdict.at_5 == f"{at_5}\N{NO-BREAK SPACE}%"
    assert verdict.word.replace("\N{NO-BREAK SPACE}", " ") == word


@pytest.mark.parametrize("epsilon", [8.0, 8.5, 20.0, float("inf"), float("nan")])
def test_large_epsilon_is_no_meaningful_bound(epsilon: float) -> None:
    verdict = meaning.verdict(epsilon, 1e-5)

    assert verdict.void
    assert "no meaningful bound" in verdict.sentence


def test_page_at_epsilon_1_states_the_limit() -> None:
    text = text_of(granted(1.0))

    assert "Epsilon 1 means: an attacker who wrongly names 1 % of the people" in text
    assert "Epsilon 1 is no meaningful bound" not in text


def test_page_at_epsilon_3_states_both_rates() -> None:
    text = text_of(granted(3.0))

    assert "at most 20.09 % of those who are (clear limit)" in text
    assert "at most 95.28 % (no meaningful bound)" in text


def test_page_at_epsilon_8_says_so_up_front() -> None:
    text = text_of(granted(8.0))

    assert "Epsilon 8 is no meaningful bound" in text[: text.index("1. Budget")]
    assert "a strong limit" not in text


def test_delta_of_a_large_group_is_void() -> None:
    assert "1 or more" in text_of(granted(8.0))


@pytest.mark.parametrize(
    ("names", "text"),
    [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")],
)
def test_listing(names: list[str], text: str) -> None:
    assert listing(names) == text


def test_who() -> None:
    assert who(["a", "b", "c", "d"], 4) == "all 4 sites"
    assert who(["a", "b"], 4) == "a and b"
    assert who(["a", "b", "c", "d"], 9) == "4 sites, a among them"
    assert who(["a"], 1) == "a"
