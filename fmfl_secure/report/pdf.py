"""The report's page as a PDF, printed by a Chromium that is on this machine.

The page prints well in any browser; this prints it without one being opened. Nothing is loaded
from the network: the page has all it needs, and the browser is started without it.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from fmfl_secure.errors import RunError, os_failure

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS = 120


def print_pdf(page: Path, output: Path) -> None:
    """Print a report's page.

    Args:
        page: `report.html`.
        output: The PDF to write.

    Raises:
        RunError: There is no browser to print with, or it failed.
    """
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        raise RunError(
            "there is no Chromium on this machine to print with",
            hint=f"Install one, or open {page} in a browser and print it.",
        )
    with tempfile.TemporaryDirectory() as place:
        printed = Path(place) / "report.pdf"
        command = [
            browser,
            "--headless",
            "--no-sandbox",  # the page is ours, runs no script, and root has no sandbox
            "--disable-gpu",
            "--disable-background-networking",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={place}/profile",
            "--no-pdf-header-footer",
            f"--print-to-pdf={printed}",
            page.absolute().as_uri(),
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)  # noqa: S603
            shutil.copyfile(printed, output)
        except subprocess.SubprocessError as error:
            raise RunError(f"{browser} could not print the report: {error}") from error
        except OSError as error:
            raise os_failure(RunError, f"cannot write {output}", error) from error
