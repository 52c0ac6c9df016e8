"""What lies where a command is to write is not written over."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import settings

from fmfl_secure.parties.workspace import initialise
from privacy import Ledger

PRECIOUS = b'{"somebody": "kept this"}\n'


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "run", "--data", "{there}", "--output", "{there}"),
        ("evaluate", "run", "--suite", "{there}", "--output", "{there}"),
        ("report", "bundle", "run", "--output", "{there}"),
        ("acts", "export", "{folder}", "--output", "{there}"),
        ("start-file", "{there}", "--output", "{there}"),
    ],
)
def test_a_file_that_is_there_is_not_written_over(main, tmp_path: Path, command) -> None:
    there = tmp_path / "kept.jsonl"
    there.write_bytes(PRECIOUS)
    code, _, errors = main(*(each.format(there=there, folder=tmp_path) for each in command))
    assert code != 0
    assert "exists, and is not written over" in " ".join(errors.split())
    assert there.read_bytes() == PRECIOUS


@pytest.mark.parametrize(
    ("command", "said"),
    [("export", "exists, and is not written over"), ("anchor", "cannot read the anchors")],
)
def test_a_ledger_is_not_what_is_written_about_it(main, tmp_path: Path, command, said) -> None:
    (tmp_path / "federation.toml").write_text(settings(Path("none")))
    initialise(tmp_path, epsilon=None, delta=None, simulated=True)
    ledger = tmp_path / "sites/site-1/ledger.sqlite"
    before = Ledger(ledger).head()
    code, _, errors = main("ledger", command, ledger, "--output", ledger)
    assert code != 0
    assert said in " ".join(errors.split())
    assert Ledger(ledger).head() == before
    kept = tmp_path / "notes.txt"
    kept.write_bytes(PRECIOUS)
    assert main("ledger", command, ledger, "--output", kept)[0] != 0
    assert kept.read_bytes() == PRECIOUS


def test_settings_that_ask_are_not_written_over_settings(main, tmp_path: Path) -> None:
    there = tmp_path / "federation.toml"
    there.write_text(settings(Path("none")))
    before = there.read_bytes()
    words = ("--what", "units", "--epsilon", "0.3", "--settings", there)
    code, _, errors = main("ask", there, *words)
    assert code == 1
    assert "exists, and is not written over" in " ".join(errors.split())
    assert there.read_bytes() == before
