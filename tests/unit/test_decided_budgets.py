"""Why this epsilon, who decided it, and when to look again: kept with a grant, and shown."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from answered import read_answer
from support import settings
from test_report_officer import in_short
from test_report_records import finished

from aggregation import Identity
from fmfl_secure.doctor.federation import examine_federation
from fmfl_secure.errors import ConfigError
from fmfl_secure.parties.workspace import initialise
from fmfl_secure.report import officer, render_html
from fmfl_secure.report.dpia import render_dpia
from fmfl_secure.run.ledger_statement import grant_record
from fmfl_secure.settings.federation import decode_config, encode_config, load_federation
from privacy import UNSAID, Decided, Ledger, LedgerDamaged, PlanError, export_json, read_export

Main = Callable[..., tuple[int, str, str]]
BOARD = Decided("3 is what the board accepts", "ethics board, 12 May", dt.date(2026, 5, 12))
SAID = (
    "--rationale", BOARD.rationale, "--decided-by", BOARD.by, "--review-on", "2026-05-12",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "federation.toml").write_text(settings(Path("none")))
    initialise(tmp_path, epsilon=None, delta=None, simulated=True)
    return tmp_path


@pytest.fixture
def site(folder: Path) -> Path:
    return folder / "sites/site-1"


def opened(site: Path) -> Ledger:
    return Ledger(site / "ledger.sqlite", signer=Identity.load(site / "identity.pem"))


def test_a_grant_keeps_it_and_an_export_verifies_with_it(site: Path) -> None:
    ledger = opened(site)
    made = ledger.grant(epsilon=1, delta=1e-5, purpose="more", decided=BOARD)
    assert made.decided == BOARD
    first, second = opened(site).budget().grants
    assert (first.decided, second.decided) == (UNSAID, BOARD)
    text = export_json(ledger.records())
    assert read_export(text)
    document = json.loads(text)
    assert document["grants"][1]["decided_by"] == BOARD.by
    assert "rationale" not in document["grants"][0]
    with pytest.raises(LedgerDamaged):
        read_export(text.replace('"review_on": "2026-05-12"', '"review_on": "2027-05-12"', 1))


@pytest.mark.parametrize(
    "body",
    [
        {"review_on": "some day"},
        {"review_on": "20260512"},
        {"review_on": 20260512},
        {"rationale": ["a"]},
        {"decided_by": "x" * 201},
    ],
    ids=["no-day", "another-spelling", "number", "no-text", "long"],
)
def test_what_cannot_have_been_decided_is_damage(body: dict[str, object]) -> None:
    with pytest.raises(LedgerDamaged):
        Decided.parse(body)


def test_a_text_without_end_is_refused() -> None:
    with pytest.raises(PlanError, match="expected at most 1000"):
        Decided(rationale="x" * 1001)


def test_the_command_takes_it_and_says_when_its_day_is_past(main: Main, site: Path) -> None:
    ledger = site / "ledger.sqlite"
    grant = ("--epsilon", 1, "--delta", "1e-5", "--purpose", "more")
    code, printed, _ = main("ledger", "grant", ledger, *grant, *SAID, "--json")
    granted = read_answer("ledger grant", printed)["granted"]
    assert code == 0
    assert (granted["rationale"], granted["decided_by"]) == (BOARD.rationale, BOARD.by)
    assert (granted["review_on"], granted["review_is_due"]) == ("2026-05-12", True)
    said = main("ledger", "show", ledger)[1]
    assert "grant 2: why this epsilon: 3 is what the board accepts" in said
    assert "looked at again by 2026-05-12, which is PAST" in said
    assert main("ledger", "grant", ledger, *grant, "--review-on", "May")[0] == 2


def test_a_first_grant_takes_what_the_settings_say_unless_its_custodian_says_more(
    main: Main, tmp_path: Path
) -> None:
    said = 'rationale = "as in the protocol"\ndecided_by = "the consortium"\n'
    text = settings(Path("none")).replace("[privacy]\n", f"[privacy]\n{said}")
    (tmp_path / "federation.toml").write_text(text)
    initialise(tmp_path, epsilon=None, delta=None)
    site = tmp_path / "sites/site-1"
    code, _, errors = main("ledger", "grant", site, "--accept", "--decided-by", "our board")
    assert code == 0, errors
    (grant,) = opened(site).budget().grants
    assert grant.decided == Decided("as in the protocol", "our board")


def test_settings_without_it_have_the_digest_that_they_had(folder: Path) -> None:
    config = load_federation(folder / "federation.toml")
    assert b"rationale" not in encode_config(config)
    privacy = msgspec.structs.replace(
        config.privacy, rationale=BOARD.rationale, decided_by=BOARD.by, review_on=BOARD.review_on
    )
    told = msgspec.structs.replace(config, privacy=privacy)
    assert told.digest != config.digest
    assert decode_config(encode_config(told)).privacy.decided == BOARD


def test_a_day_that_is_none_is_refused_with_its_place(folder: Path) -> None:
    file = folder / "federation.toml"
    file.write_text(file.read_text().replace("[privacy]\n", '[privacy]\nreview_on = "May"\n'))
    with pytest.raises(ConfigError, match="review_on"):
        load_federation(file)


def test_doctor_asks_about_a_review_that_is_past(folder: Path, site: Path) -> None:
    def asked() -> list[str]:
        return [f.found for f in examine_federation(folder) if f.what.endswith(": reviews")]

    assert asked() == []
    opened(site).grant(epsilon=1, delta=1e-5, decided=BOARD)
    opened(site).grant(epsilon=1, delta=1e-5, decided=Decided(review_on=dt.date(9999, 1, 1)))
    assert asked() == ["somebody was to look again at grant 2 by 2026-05-12"]
    opened(site).close_grant(2, reason="looked at")
    assert asked() == []


def test_a_report_and_an_assessment_say_it_on_the_first_pages(site: Path) -> None:
    record = finished()
    said = in_short(render_html(record))
    assert "Nobody has said why this epsilon" in said[officer.PROMISED]
    opened(site).grant(epsilon=1, delta=1e-5, decided=BOARD)
    granted = grant_record(opened(site).status()[1])
    assert granted.decided == BOARD
    first, *others = record.sites
    told = msgspec.structs.replace(
        granted, number=first.statement.grants[0].number,
        epsilon=first.statement.grants[0].epsilon, delta=first.statement.grants[0].delta,
        epsilon_spent=first.statement.grants[0].epsilon_spent,
        epsilon_charged=first.statement.grants[0].epsilon_charged,
        epsilon_left=first.statement.grants[0].epsilon_left,
    )  # fmt: skip
    statement = msgspec.structs.replace(first.statement, grants=(told,))
    settings_said = {**record.settings["privacy"], "rationale": "as in the protocol"}
    record = msgspec.structs.replace(
        record,
        settings={**record.settings, "privacy": settings_said},
        sites=(msgspec.structs.replace(first, statement=statement), *others),
    )
    page = render_html(record)
    said = in_short(page)
    assert "For the run: Why this epsilon: as in the protocol." in said[officer.PROMISED]
    assert f"For {first.name}, grant {told.number}: Why this epsilon" in said[officer.PROMISED]
    assert "Decided by ethics board, 12 May" in said[officer.PROMISED]
    assert said[officer.AGAIN].startswith("By 2026-05-12")
    draft = render_dpia(record)
    assert "3 is what the board accepts" in draft
    assert "as in the protocol" in draft
