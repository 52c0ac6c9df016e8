"""The drafted impact assessment: facts as they are, questions open, nothing replaced."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from test_report_records import ALL, RUN, distributed_noise, finished, multi_run, without_privacy
from typer.testing import CliRunner

from fmfl_secure import cli
from fmfl_secure.errors import RunError
from fmfl_secure.parties.proposals import ACCEPTED, SIMULATED
from fmfl_secure.report import wording
from fmfl_secure.report.dpia import open_questions, plain, render_dpia, write_dpia
from fmfl_secure.report.dpia_questions import QUESTIONS
from fmfl_secure.run.record import encode_record

ROOT = Path(__file__).parents[2]
ASKED = sum(len(part) for part in QUESTIONS.values())
# What a record cannot know and a draft must not suggest.
OVERSELLS = re.compile(r"\b(safe|anonymous|certified|compliant|lawful)\b", re.IGNORECASE)


def test_the_template_in_the_documentation_is_the_one_that_is_filled() -> None:
    page = (ROOT / "docs/dpia-template.md").read_text(encoding="utf-8")
    assert page == render_dpia(None), "python -m fmfl_secure.report.dpia > docs/dpia-template.md"


@pytest.mark.parametrize("build", ALL.values(), ids=ALL)
def test_every_question_stays_open(build) -> None:
    text = render_dpia(build())
    assert open_questions(text) == open_questions(render_dpia(None)) == ASKED
    assert f"{ASKED} questions are for people" in text
    for part in QUESTIONS.values():
        for question in part:
            assert question in text
    assert "not legal advice" in text
    assert not OVERSELLS.search(text)


@pytest.mark.parametrize("build", ALL.values(), ids=ALL)
def test_tables_keep_their_shape_and_no_paragraph_is_torn(build) -> None:
    rows = 0
    width = None
    for line in render_dpia(build()).splitlines():
        if not line.startswith("|"):
            width = None
            continue
        cells = len(re.findall(r"(?<!\\)\|", line))
        width = width or cells
        assert cells == width, line
        rows += 1
    assert rows > 30


@pytest.mark.parametrize("heading", ["1. What", "2. Nec", "3. Risks", "4. Mea", "5. Adv", "6. Evi"])
def test_the_parts_of_article_35_are_there(heading: str) -> None:
    for text in (render_dpia(None), render_dpia(finished())):
        assert f"\n## {heading}" in text


def test_facts_are_those_of_the_report() -> None:
    record = finished()
    text = render_dpia(record)
    for fact in (
        plain(wording.promised(record)),
        plain(wording.spent(record)),
        plain(wording.left(record)),
        f"`{RUN}`",
        "| clinic-a | 2,500 | private | patients of clinic-a, population size not declared |",
        "Smallest number of sites whose sum may be opened: 3.",
        "clinic-b, this run: Baseline adapter",
        "| clinic-c | patients of clinic-c | 8 | 2.789 | 2.789 | 5.211 | yes |",
        "planned to cost at most epsilon 3 at delta 0.00001",
        "none was made; fmfl-secure audit RUN makes one",
        record.settings_digest,
    ):
        assert fact in text, fact


def test_how_a_grant_came_about_is_no_purpose() -> None:
    record = finished()
    for how in (ACCEPTED, SIMULATED, "first grant, made by init"):
        sites = []
        for site in record.sites:
            (grant,) = site.statement.grants
            grants = (msgspec.structs.replace(grant, purpose=how),)
            statement = msgspec.structs.replace(site.statement, grants=grants)
            sites.append(msgspec.structs.replace(site, statement=statement))
        text = render_dpia(msgspec.structs.replace(record, sites=tuple(sites)))
        assert f"clinic-a, grant 1: no purpose was stated ({plain(how)}); say here what for" in text


def test_every_grant_of_a_history_has_a_row() -> None:
    text = render_dpia(multi_run())
    assert "| clinic-c, grant 2 |" in text
    assert "one person (all records with one value of" in text


def test_a_run_without_noise_is_told_first_and_promises_nothing() -> None:
    text = render_dpia(without_privacy())
    first = text.split("## 1.")[0]
    assert "No privacy guarantee at all" in first
    assert "| Noise | **none** |" in text
    assert "recognised, at most" not in text


def test_distributed_noise_names_its_assumption_and_both_figures() -> None:
    text = render_dpia(distributed_noise())
    assert "Skellam noise in shares" in text
    assert "against all other sites together" in text
    assert "this assumption is for the custodians to judge" in text
    assert "the bound holds against everybody else together" not in text


def test_nothing_of_a_record_becomes_markup() -> None:
    evil = "x | y\n\n## 9. Approved\n- **OPEN z1.** <script>[a](http://b) `c`"
    record = msgspec.structs.replace(finished(), federation=evil, run=evil, evaluation=evil)
    text = render_dpia(record)
    assert "\n## 9." not in text
    prose = re.sub(r"`[^`\n]*`", "", text)
    assert not re.search(r"(?<!\\)(<script|\]\(http)", prose)
    assert open_questions(text) == ASKED


def test_the_command_writes_beside_the_report_and_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmfl_secure.report.signed.check_statements", lambda _: {})  # by nobody
    (tmp_path / "report.json").write_bytes(encode_record(finished()))
    result = CliRunner().invoke(cli.app, ["dpia", str(tmp_path)])
    assert result.exit_code == 0
    path = tmp_path / "dpia.md"
    assert f"{path}: {ASKED} questions are open" in result.output
    answered = path.read_text(encoding="utf-8").replace("**OPEN a1.**", "**a1.**")
    path.write_text(answered, encoding="utf-8")
    assert open_questions(answered) == ASKED - 1

    with pytest.raises(RunError, match="exists"):
        write_dpia(tmp_path)
    assert path.read_text(encoding="utf-8") == answered
    other = write_dpia(tmp_path / "report.json", tmp_path / "second.md")
    assert other.read_text(encoding="utf-8") == render_dpia(finished())


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no report") as error:
        write_dpia(tmp_path)
    assert "fmfl-secure report" in error.value.hint
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(RunError, match="not a run's record"):
        write_dpia(tmp_path)
    assert not (tmp_path / "dpia.md").exists()
