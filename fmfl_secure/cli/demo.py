"""`fmfl-secure demo`: demonstrations on made-up data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmfl_secure.cli._command import Group, command
from fmfl_secure.cli._console import console, say
from fmfl_secure.cli.answers.federation import RunDone
from fmfl_secure.cli.answers.reports import AttacksShown
from fmfl_secure.cli.run import run

app = typer.Typer(
    cls=Group, help="Demonstrations on made-up data.", no_args_is_help=True, rich_markup_mode=None
)


@command(app, "federation", answers=RunDone, acts="all its parties are made up")
def federation(
    output: Annotated[Path, typer.Option(help="Folder to make.")] = Path("demo"),
    fresh: Annotated[bool, typer.Option(help="Remove an earlier demonstration first.")] = False,
) -> RunDone:
    """Run a private federation of four made-up clinics on synthetic notes.

    Example: fmfl-secure demo federation --output demo --fresh
    """
    from fmfl_secure.demonstration.federation import prepare_demo

    federation = prepare_demo(output, fresh=fresh)
    return run(federation, output / "run", resume=False)


@command(app, "aggregation", answers=AttacksShown, acts="all its parties are made up")
def aggregation(
    output: Annotated[
        Path, typer.Option(help="Folder for demonstration.html and demonstration.json.")
    ] = Path("demo-aggregation"),
    sites: Annotated[int, typer.Option(help="How many sites, 3 to 8.")] = 4,
    custodians: Annotated[
        int, typer.Option(help="How many custodians have to agree before anything opens, 0 to 2.")
    ] = 0,
) -> AttacksShown:
    """Show what each role of secure aggregation sees, and try attacks on it and on a naive pattern.

    Exit code 0 only if every attack ends as expected.

    Example: fmfl-secure demo aggregation --output demo-aggregation --custodians 1
    """
    from fmfl_secure.demonstration import demonstrate
    from fmfl_secure.demonstration.page import write_page
    from fmfl_secure.demonstration.walkthrough import tell
    from fmfl_secure.errors import RunError

    found = demonstrate(sites, custodians=custodians, say=say)
    tell(found, console)
    page = write_page(found, output)
    say(f"{page}")
    if found.surprises:
        raise RunError(
            f"not as expected: {'; '.join(found.surprises)}",
            hint="One of the guarantees, or the attack that tests it, is broken. Report it.",
        )
    return AttacksShown(page=str(page), attacks=len(found.attacks))
