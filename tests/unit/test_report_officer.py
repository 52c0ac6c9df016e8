"""Ten questions that an officer has: each is answered on the report's first two pages."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from browser import A4, browser, needs_browser  # noqa: F401 - a fixture
from test_report_records import ALL, finished, without_privacy

from fmfl_secure.report import officer, render_html, wording

HOW_TO_READ = Path(__file__).parents[2] / "docs/how-to-read-a-report.md"
TWO_PAGES = 2 * (297 - 15 - 16) * 96 / 25.4  # CSS pixels of what two A4 pages hold


def in_short(page: str) -> dict[str, str]:
    """What the first section says, by question."""
    section = page.partition('<h2 id="answers">In short</h2>')[2].partition("</dl>")[0]
    found = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", section, flags=re.DOTALL)
    return {question: re.sub("<[^>]*>", "", answer).strip() for question, answer in found}


@pytest.mark.parametrize("build", ALL.values(), ids=ALL)
def test_each_question_is_answered_in_short_whatever_became_of_the_run(build) -> None:
    said = in_short(render_html(build()))
    assert tuple(said) == officer.QUESTIONS
    assert len(said) == 10
    assert all(answer.endswith((".", "?")) for answer in said.values()), said


def test_answers_are_facts_of_the_record() -> None:
    record = finished()
    said = in_short(render_html(record))
    (meaning, *_) = wording.meaning_in_short(record)
    assert said[officer.MEANS].startswith(meaning)
    units = sum(site.population for site in record.sites)
    assert f"{units:,} declared units at {len(record.sites)} sites" in said[officer.WHAT_FOR]
    assert said[officer.REFUSED].startswith("No site refused anything")
    assert "signed what is said of their ledgers" in said[officer.SIGNED]
    first, *others = record.sites
    refused = msgspec.structs.replace(first, refusal="policy.rounds", statement_signature="")
    said = in_short(render_html(msgspec.structs.replace(record, sites=(refused, *others))))
    assert said[officer.REFUSED].startswith("policy.rounds: ")
    assert f"{first.name} did not." in said[officer.SIGNED]
    assert (
        "Nothing. This run trained without noise"
        in in_short(render_html(without_privacy()))[officer.PROMISED]
    )


def test_the_guide_lists_the_ten_and_where_they_stand() -> None:
    rows = re.findall(
        r"^\| \d+ \| ([^|]*) \| [^|]+ \|$", HOW_TO_READ.read_text(), flags=re.MULTILINE
    )
    assert tuple(rows) == officer.QUESTIONS


class TestPrinted:
    pytestmark = needs_browser

    def test_all_ten_stand_on_the_first_two_pages(self, browser, tmp_path: Path) -> None:  # noqa: F811
        (tmp_path / "report.html").write_text(render_html(finished()))
        page = browser.new_page(viewport={"width": A4, "height": 1000})
        page.emulate_media(media="print")
        page.goto(f"file://{tmp_path / 'report.html'}")
        ends = page.eval_on_selector_all(
            ".answers dl > div", "all => all.map(one => one.getBoundingClientRect().bottom)"
        )
        page.close()
        assert len(ends) == 10
        assert max(ends) < TWO_PAGES, ends
