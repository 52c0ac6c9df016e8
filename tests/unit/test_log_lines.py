"""What commands leave to the log: warnings, in one form, and nothing that they say themselves."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from fmfl_secure import cli
from fmfl_secure.cli._console import spoken
from fmfl_secure.transports.flower import extra, host
from privacy.mechanism.opacus_parts import _logging_as_it_was


def test_a_command_shows_warnings_and_leaves_out_what_it_says_itself(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = logging.getLogger("fmfl_secure.parties.anything")
    before = [*logging.getLogger().handlers]
    with spoken(as_json=False, quiet=False, verbose=0, level=None):
        log.info("seldom wanted")
        log.warning("site-1: 30 of 60 rows cannot be used")
        log.error("run stopped: which the command says in its own words")
        logging.getLogger("another").error("nobody else says")
        try:
            raise ValueError("unforeseen")
        except ValueError:
            log.exception("with its trace")
    said = capsys.readouterr().err
    assert said.startswith("warning: site-1: 30 of 60 rows cannot be used\nwarning: nobody else")
    assert "seldom wanted" not in said
    assert "run stopped" not in said
    assert "ValueError: unforeseen" in said
    assert logging.getLogger().handlers == before, "in one process many commands may run"


def test_a_person_who_asks_for_the_log_sees_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = [*root.handlers], root.level
    root.handlers = []
    try:
        with spoken(as_json=False, quiet=False, verbose=1, level=None):
            logging.getLogger("fmfl_secure.runtime").error("run stopped: of this kind too")
    finally:
        root.handlers, root.level = before, level
    assert "ERROR fmfl_secure.runtime: run stopped: of this kind too" in capsys.readouterr().err


def test_opacus_leaves_the_root_logger_as_it_was() -> None:
    root, own, theirs = logging.getLogger(), logging.NullHandler(), logging.NullHandler()
    root.addHandler(own)
    try:
        with _logging_as_it_was():
            root.addHandler(theirs)
        assert own in root.handlers
        assert theirs not in root.handlers
    finally:
        root.removeHandler(own)


@pytest.mark.parametrize(("options", "shown"), [((), True), (("--quiet",), False)], ids=str)
def test_a_party_behind_a_supernode_logs_what_it_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    shown: bool,
) -> None:
    """Like a server or a site by HTTPS: its log is where its people see refusals."""
    log = logging.getLogger("fmfl_secure.transports.flower.host")

    class Host:
        def __init__(self, *_: object, **__: object) -> None: ...

        def serve(self) -> None:
            log.info("holds its parties")
            log.error("takes no part (budget): too little is left")

    monkeypatch.setattr(host, "Host", Host)
    monkeypatch.setattr(host, "Parties", lambda *_, **__: SimpleNamespace(is_kit=False))
    monkeypatch.setattr(extra, "needs_flower_extra", lambda: None)
    root = logging.getLogger()
    before, level = [*root.handlers], root.level
    root.handlers = []
    try:
        done = CliRunner().invoke(cli.app, ["flower", "host", str(tmp_path), *options])
    finally:
        root.handlers, root.level = before, level
    assert done.exit_code == 0, done.output
    said = done.stderr
    assert ("INFO holds its parties" in said) == shown
    assert said.count("takes no part (budget)") == 1
