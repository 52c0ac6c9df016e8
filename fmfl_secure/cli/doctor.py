"""`fmfl-secure doctor`: is this machine ready, and is a federation's folder in order?"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import console
from fmfl_secure.cli._loading import seldom_collected
from fmfl_secure.cli.acting import READS
from fmfl_secure.cli.answers.base import shown
from fmfl_secure.cli.answers.reports import Examined, FindingShown

app = typer.Typer()

_MARKS = {
    "ok": "[green]ok[/green]     ",
    "missing": "[yellow]missing[/yellow]",
    "question": "[yellow]asks[/yellow]   ",
    "fault": "[red]fault[/red]  ",
}


@command(app, answers=Examined, ends=lambda found: 1 if found.faults else 0, acts=READS)
@seldom_collected()
def doctor(
    folder: Annotated[Path, typer.Argument(help="Where federations are, or will be.")] = Path(),
) -> Examined:
    """Check that this machine can take part: libraries, room, encryption, private training.

    In a federation's folder or a site's kit it checks what an earlier version let pass, too: people
    under several ids, cohorts smaller than noise in shares is made for, grants whose delta is too
    large. Quotes a few ids: what it prints stays at the site.
    Changes nothing and asks nothing of the network. Exit code 1 if anything is at fault.
    Example: fmfl-secure doctor pilot
    """
    from fmfl_secure.doctor.federation import examine_federation
    from fmfl_secure.doctor.machine import examine

    findings = []
    for finding in chain(examine(folder), examine_federation(folder)):
        findings.append(shown(finding, FindingShown))
        line = f"{_MARKS[finding.state]} {escape(finding.what)}: {escape(finding.found)}"
        console.print(line, highlight=False, soft_wrap=True)
        if finding.advice:
            console.print(
                f"        what to do: {escape(finding.advice)}", highlight=False, soft_wrap=True
            )
    faults = sum(finding.state == "fault" for finding in findings)
    if not faults:
        console.print("this machine is ready", highlight=False)
    return Examined(findings=tuple(findings), faults=faults)
