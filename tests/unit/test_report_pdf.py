"""A report can be printed without opening a browser, and without one says how."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_report_records import finished

from fmfl_secure.errors import RunError
from fmfl_secure.report import write_report
from fmfl_secure.report.pdf import print_pdf


@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium to print with")
def test_a_report_is_printed(tmp_path: Path) -> None:
    _, page = write_report(finished(), tmp_path)
    print_pdf(page, tmp_path / "report.pdf")
    data = (tmp_path / "report.pdf").read_bytes()
    assert data.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", data)) >= 2
    with pytest.raises(RunError, match="cannot write"):
        print_pdf(page, tmp_path / "nowhere" / "report.pdf")


def test_without_a_browser_it_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmfl_secure.report.pdf.shutil.which", lambda _: None)
    with pytest.raises(RunError, match="no Chromium") as refusal:
        print_pdf(tmp_path / "report.html", tmp_path / "report.pdf")
    assert "print it" in refusal.value.hint


@pytest.mark.parametrize(
    "failure", [subprocess.CalledProcessError(1, "chromium"), subprocess.TimeoutExpired("c", 1)]
)
def test_a_browser_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("fmfl_secure.report.pdf.shutil.which", lambda _: "/usr/bin/chromium")
    monkeypatch.setattr("fmfl_secure.report.pdf.subprocess.run", fail)
    with pytest.raises(RunError, match="could not print"):
        print_pdf(tmp_path / "report.html", tmp_path / "report.pdf")
