"""Writing: both files or none, the old ones or the new ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from test_report_records import finished, interrupted

import fmfl_secure.report
from fmfl_secure.errors import RunError, Unavailable
from fmfl_secure.report import render_html, write_report
from fmfl_secure.run.record import decode_record


def test_exports() -> None:
    assert fmfl_secure.report.__all__ == ["render_html", "write_report"]


def test_both_files_are_written(tmp_path: Path) -> None:
    data, page = write_report(finished(), tmp_path / "new" / "report")

    assert decode_record(data.read_bytes()) == finished()
    assert page.read_text(encoding="utf-8") == render_html(finished())
    assert sorted(path.name for path in data.parent.iterdir()) == ["report.html", "report.json"]


def test_an_older_report_is_replaced(tmp_path: Path) -> None:
    write_report(interrupted(), tmp_path)
    data, _ = write_report(finished(), tmp_path)

    assert decode_record(data.read_bytes()).status == "finished"


def test_a_failure_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(interrupted(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left on device"):
        write_report(finished(), tmp_path)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_in_the_way_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("not a folder")

    with pytest.raises(RunError, match="cannot be written"):
        write_report(finished(), tmp_path / "report")
