"""`fmfl-secure demo aggregation`, run as a person runs it: terminal, page, JSON and exit code."""

from __future__ import annotations

import sys
from pathlib import Path

import html_page
import msgspec
import pytest
from html_page import Page

from fmfl_secure import cli, demonstration
from fmfl_secure.demonstration import Demonstration
from fmfl_secure.demonstration.page import HTML_NAME, JSON_NAME, render_page


def run(*arguments: object) -> int:
    """The command's exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fmfl-secure", "demo", "aggregation", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("demo") / "aggregation"
    assert run("--output", place, "--sites", "3", "--custodians", "1") == 0
    return place


@pytest.fixture(scope="module")
def found(folder: Path) -> Demonstration:
    return msgspec.json.decode((folder / JSON_NAME).read_bytes(), type=Demonstration)


def test_everything_ends_as_expected_and_eleven_attacks_were_tried(found: Demonstration) -> None:
    assert found.surprises == []
    assert len({attack.id for attack in found.attacks}) == 11
    assert all(attack.naive.succeeded for attack in found.attacks)
    assert [a.id for a in found.attacks if a.here.succeeded] == ["all-other-sites"]
    assert found.custodians == ("custodian-0",)
    assert found.upload_bytes < found.naive_bytes / 5


def test_the_page_says_what_the_record_says_and_stands_alone(
    folder: Path, found: Demonstration
) -> None:
    text = (folder / HTML_NAME).read_text("utf-8")
    assert text == render_page(found)
    page = Page(text)
    html_page.headings_are_in_order(page)
    html_page.ids_are_unique_and_references_exist(page)
    html_page.tables_have_captions_and_scopes(page)
    html_page.needs_nothing_from_outside(text, pictures=True)
    for attack in found.attacks:
        assert attack.title in page.text
        assert attack.here.figure in page.text
    for view in (*found.views, *found.naive_views):
        assert view.role in page.text
        for seen in view.seen:
            assert seen.shown in page.text
    pictures = page.named("img")
    assert len(pictures) == 1 + len(found.inversions)
    assert all(picture["alt"] for picture in pictures)
    assert "11 of 11 attacks succeed" in page.text
    assert "1 of 11 attacks succeed" in page.text


def test_each_role_saw_this_runs_own_bytes(found: Demonstration) -> None:
    roles = {view.role.split(",")[0]: view for view in found.views}
    assert {"Coordinator", "Aggregator", "Decryptor", "Other sites", "custodian-0"} < set(roles)
    upload = {seen.shown for seen in roles["site-0"].seen if "sends" in seen.what}
    assert upload <= {seen.shown for seen in roles["Aggregator"].seen}
    assert not upload & {seen.shown for seen in roles["Decryptor"].seen}, "it gets the sum only"
    own = {seen.shown for seen in roles["site-0"].seen[:2]}
    for name in set(roles) - {"site-0"}:
        assert not own & {seen.shown for seen in roles[name].seen}, "nobody sees the update"


def test_a_verdict_that_is_not_expected_fails_the_command_and_shows_on_the_page(
    found: Demonstration,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, *rest = found.attacks
    turned = msgspec.structs.replace(first.here, succeeded=True)
    broken = msgspec.structs.replace(
        found, attacks=(msgspec.structs.replace(first, here=turned), *rest)
    )
    monkeypatch.setattr(demonstration, "demonstrate", lambda *_, **__: broken)
    assert run("--output", tmp_path) == 1
    assert first.title in capsys.readouterr().err
    assert "Not as expected" in Page((tmp_path / HTML_NAME).read_text("utf-8")).text


@pytest.mark.parametrize("arguments", [("--sites", "2"), ("--custodians", "3")])
def test_a_number_out_of_range_is_refused_before_anything_is_made(
    tmp_path: Path, arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--output", tmp_path / "none", *arguments) == 1
    assert "expected" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
