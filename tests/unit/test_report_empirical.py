"""The words for an audit: they stop where they must, and never oversell."""

from __future__ import annotations

import re

import msgspec
import pytest
from html_page import Page
from test_report_page import page_of
from test_report_records import an_audit, audited, finished, refuted, without_privacy

from fmfl_secure.report import empirical, render_html

OVERSELLS = re.compile(
    r"\b(safe|secure|guaranteed|verified|confirmed?|certified|proven)\b", re.IGNORECASE
)


def section(name: str) -> str:
    text = Page(page_of(name)).text
    return text[text.index("8. Empirical check") : text.index("9. What is not protected")]


def test_a_bound_below_the_claim_is_no_certificate() -> None:
    text = section("audited")
    for words in (
        "epsilon 0.499 at delta 0.00001, with 95 % confidence",
        "epsilon 2.432 for these 24 steps, by PLD; 2.789 is charged",
        "4.17 with noise eight times too small; 1.11 with half of the noise; 0.37 with all of it",
        "The claim was not contradicted. That is all this says",
        "a bound below the claim proves nothing",
        "not a certificate",
        "would most likely not have noticed half of the noise missing",
        "cannot see the noise's tails",
        "used nobody's data and cost no budget",
        "1,000, each in the data with probability 1/2",
        "200 that a canary was in, 0 that one was not, fixed beforehand; 138 were right",
    ):
        assert words in text
    assert not OVERSELLS.search(text)
    assert empirical.warnings(audited()) == []


def test_a_bound_above_the_claim_says_stop_before_anything_else() -> None:
    page = Page(page_of("refuted"))
    assert page.text.count("STOP. The empirical check contradicts the claimed epsilon") == 2
    assert page.text.index("STOP.") < page.text.index("In short")
    text = section("refuted")
    assert "at least epsilon 4.171, against a claim of 2.432" in text
    assert "in at most 5 % of checks" in text
    assert "17 of them beside the model's own layers" in text
    for soothing in ("not contradicted", "proves nothing", "smoke alarm"):
        assert soothing not in text
    assert "bad" in {cell.get("class") for cell in page.named("td")}
    assert empirical.warnings(refuted()) == [empirical.alarm(refuted().audit)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expected_noise_eighth": 1.0}, "not have noticed noise eight times too small."),
        ({}, "not have noticed half of the noise missing."),
        ({"expected_noise_half": 3.0}, "not have noticed a few percent of the noise missing."),
    ],
)
def test_the_blind_spot_is_named(changes: dict[str, float], said: str) -> None:
    assert said in " ".join(empirical.sentences(an_audit(**changes)))


def test_whose_view_of_distributed_noise_was_audited_is_named() -> None:
    sums = an_audit(against="outsiders", shares=7)
    figures = empirical.figures(sums)
    assert figures["Seen by"] == "whoever sees released sums; the noise of 7 sites counts"
    assert "by Renyi DP" in figures["Claimed"]
    assert "Whether the sites of a run did add their shares" in " ".join(empirical.sentences(sums))
    sites = an_audit(against="sites", shares=1)
    assert "all other sites together" in empirical.figures(sites)["Seen by"]
    local = an_audit()
    assert "Seen by" not in empirical.figures(local)
    assert "shares" not in " ".join(empirical.sentences(local))


def test_records_of_a_person_are_named() -> None:
    assert "of 8 records each" in empirical.figures(an_audit(records_per_canary=8))["Canaries"]
    assert "records each" not in empirical.figures(an_audit())["Canaries"]


def test_a_run_without_an_audit_says_so() -> None:
    assert "None was made." in section("finished")
    assert "There is no claim to check" in section("without_privacy")
    assert empirical.warnings(finished()) == empirical.warnings(without_privacy()) == []


def test_versions_are_escaped() -> None:
    evil = "<script>x</script>"
    record = msgspec.structs.replace(finished(), audit=an_audit(version=evil, at=evil))
    assert "<script" not in render_html(record)
