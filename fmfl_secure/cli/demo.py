"""`fmfl-secure demo`: demonstrations on synthetic data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmfl_secure.cli.federation import run

app = typer.Typer(
    help="Demonstrations on synthetic data.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("federation")
def federation(
    output: Annotated[Path, typer.Option(help="Folder to make.")] = Path("demo"),
    fresh: Annotated[bool, typer.Option(help="Remove an earlier demonstration first.")] = False,
) -> None:
    """Run a private federation of four made-up clinics on synthetic notes.

    Example: fmfl-secure demo federation --output demo --fresh
    """
    from fmfl_secure.demo import prepare_demo

    federation = prepare_demo(output, fresh=fresh)
    run(federation, output / "run", resume=False)
