"""`fmfl-secure doctor`: is this machine ready?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fmfl_secure.cli._console import console

app = typer.Typer()

_MARKS = {
    "ok": "[green]ok[/green]     ",
    "missing": "[yellow]missing[/yellow]",
    "fault": "[red]fault[/red]  ",
}


@app.command()
def doctor(
    folder: Annotated[Path, typer.Argument(help="Where federations will be.")] = Path(),
) -> None:
    """Check that this machine can take part: libraries, room, encryption, private training.

    Changes nothing and asks nothing of the network. Exit code 1 if anything is at fault.
    Example: fmfl-secure doctor pilot
    """
    from fmfl_secure.doctor import examine

    faults = 0
    for finding in examine(folder):
        faults += finding.state == "fault"
        line = f"{_MARKS[finding.state]} {escape(finding.what)}: {escape(finding.found)}"
        console.print(line, highlight=False, soft_wrap=True)
        if finding.advice:
            console.print(
                f"        what to do: {escape(finding.advice)}", highlight=False, soft_wrap=True
            )
    if faults:
        raise typer.Exit(1)
    console.print("this machine is ready", highlight=False)
