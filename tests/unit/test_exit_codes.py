"""How commands end: the table in the documents, and what each kind of error comes to."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest
import typer

from aggregation import JournalError, JournalUnavailable
from fmfl_secure import cli
from fmfl_secure.cli.exit_codes import MEANINGS, ExitCode, exit_code, exit_codes_document
from fmfl_secure.errors import ConfigError, InUse, RunDamaged, RunError, RunStopped, Unavailable
from fmfl_secure.runtime.waiting import Stopping
from privacy import BudgetExhausted, LedgerDamaged, LedgerUnavailable

ROOT = Path(__file__).parents[2]
CASES = [
    (ConfigError("x"), 1),
    (RunError("x"), 1),
    (InUse("x"), 1),
    (BudgetExhausted("x", asked_rounds=2, affordable_rounds=1), 1),
    (RunDamaged("x"), 3),
    (LedgerDamaged("x"), 3),
    (JournalError("x"), 3),
    (RunStopped("x"), 4),
    (ZeroDivisionError("x"), 70),
    (OSError(errno.EACCES, "x"), 70),
    (OSError(errno.EACCES, "x", "a/path"), 1),
    (KeyboardInterrupt(), 130),
    (typer.BadParameter("x"), 2),
    (Unavailable("x"), 75),
    (LedgerUnavailable("x"), 75),
    (JournalUnavailable("x"), 75),
    (Stopping("x"), 75),
    (OSError(errno.ENOSPC, "x"), 75),
]


def test_the_page_is_the_one_that_the_table_gives() -> None:
    page = (ROOT / "docs/exit-codes.md").read_text(encoding="utf-8")
    assert page == exit_codes_document(), (
        "python -m fmfl_secure.cli.exit_codes > docs/exit-codes.md"
    )


def test_every_code_is_in_the_table() -> None:
    assert list(MEANINGS) == list(ExitCode)
    for code in ExitCode:
        assert f"| {int(code)} | " in exit_codes_document()


@pytest.mark.parametrize(("error", "code"), CASES, ids=lambda case: type(case).__name__)
def test_an_error_s_kind_decides(error: Exception, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("error", "code", "says", "traced"),
    [
        (Unavailable("the disk is full", hint="Make room."), 75, "interrupted: the disk", False),
        (RunStopped("too few sites"), 4, "error: too few sites", False),
        (RunDamaged("the run is damaged"), 3, "error: the run is damaged", False),
        (ZeroDivisionError("ours"), 70, "ZeroDivisionError: ours", True),
    ],
    ids=["passing", "stopped", "damage", "bug"],
)
def test_a_command_ends_so(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    says: str,
    traced: bool,
) -> None:
    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fails)
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["fmfl-secure"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capfd.readouterr().err
    assert ended.value.code == code
    assert says in said
    assert ("Traceback" in said) == traced


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_is_told_in_a_word_or_in_one_document(main, monkeypatch, as_json: bool) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fmfl_secure.settings.federation.load_federation", interrupted)
    code, out, errors = main("plan", "nowhere.toml", *(["--json"] if as_json else []))
    assert code == 130
    if as_json:
        assert json.loads(out)["error"]["code"] == "interrupted"
    else:
        assert (out, errors.strip()) == ("", "interrupted")
