"""Writing the two files so that a reader finds the old report or the new one, never half of one."""

from __future__ import annotations

from pathlib import Path

from fmfl_secure.report.page import render_html
from fmfl_secure.run.record import RunRecord, encode_record
from fmfl_secure.storage.files import write_outputs

JSON_NAME = "report.json"
HTML_NAME = "report.html"


def write_report(record: RunRecord, folder: Path) -> tuple[Path, Path]:
    """Write `report.json` and `report.html`, replacing those of an earlier state of the run.

    Both are rendered and synced under temporary names before the first is renamed, so a full disk
    leaves the folder as it was.

    Args:
        record: The run.
        folder: Made if missing.

    Returns:
        The paths of the JSON file and of the page.

    Raises:
        RunError: The folder or a file cannot be written.
    """
    contents = {
        JSON_NAME: encode_record(record),
        HTML_NAME: render_html(record).encode("utf-8"),
    }
    write_outputs(
        folder,
        contents,
        what="the report",
        hint="Check that the folder is writable and that there is space; the run is unharmed.",
    )
    return folder / JSON_NAME, folder / HTML_NAME
