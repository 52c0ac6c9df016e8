"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def _settings_file(given: Path) -> Path:
    """The settings of a federation's folder, where that is given."""
    return given / "federation.toml" if given.is_dir() else given


FederationFile = Annotated[
    Path,
    typer.Argument(help="A federation's folder, or its federation.toml.", callback=_settings_file),
]
InsiderEpsilon = Annotated[
    float, typer.Option(help="With noise in shares: against all other sites together.")
]
Track = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TRACKER",
        help="Tell a tracker what may leave: tensorboard:FOLDER or mlflow:URI; may be repeated.",
    ),
]
Repeats = Annotated[
    int, typer.Option(help="Answers to pay for that a site may compute again after a crash.")
]
