"""The demonstration as one HTML page that needs nothing else, and the JSON beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from markupsafe import Markup
from PIL import Image

from fmfl_secure.demonstration.findings import Demonstration
from fmfl_secure.report.environment import environment
from fmfl_secure.storage.files import write_outputs

JSON_NAME, HTML_NAME = "demonstration.json", "demonstration.html"
_ZOOM = 4  # printers smooth what they enlarge; pixels are enlarged here


def render_page(found: Demonstration) -> str:
    """The page; it follows from the record alone."""
    return (
        environment("fmfl_secure.demonstration", picture=_picture)
        .get_template("demonstration.html.j2")
        .render(found=found, surprises=found.surprises)
    )


def write_page(found: Demonstration, folder: Path) -> Path:
    """Write page and JSON into a folder, replacing those of an earlier demonstration.

    Returns:
        Path of the page.

    Raises:
        RunError: They cannot be written.
    """
    encoded = msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"
    write_outputs(
        folder,
        {JSON_NAME: encoded, HTML_NAME: render_page(found).encode()},
        what="the demonstration",
        hint="Check that the folder is writable, or choose another --output.",
    )
    return folder / HTML_NAME


def _picture(pixels: Sequence[Sequence[float]]) -> Markup:
    """Grey values as the address of a picture that stands in the page itself."""
    grey = np.clip(np.rint(255 * np.array(pixels)), 0, 255).astype(np.uint8)
    image = Image.fromarray(grey)
    size = (image.width * _ZOOM, image.height * _ZOOM)
    out = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST).save(out, "PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    return Markup(f"data:image/png;base64,{data}")  # noqa: S704 - digits of base64 alone
