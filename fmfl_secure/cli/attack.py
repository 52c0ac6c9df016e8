"""`fmfl-secure attack`: what a finished adapter tells of whom it was trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import console, progress, say
from fmfl_secure.cli._heartbeat import doing

if TYPE_CHECKING:
    from fmfl_secure.run.attack_record import AttackRecord

app = typer.Typer()

FLAGGED_EXIT_CODE = 2


@command(
    app,
    answers="fmfl_secure.run.attack_record:AttackRecord",
    ends=lambda record: FLAGGED_EXIT_CODE if record.flagged or record.beyond_epsilon else 0,
    acts="it looks at a finished adapter, and charges nothing",
)
def attack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    public_like: Annotated[
        Path,
        typer.Option(
            help="Records like those that it was trained on, of the same form, none of which was."
        ),
    ],
    site: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of a site whose units are attacked; may be repeated. Default: all sites "
            "of a federation on this machine."
        ),
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option(help="Secrets that were planted for a language model (docs/attacks.md)."),
    ] = None,
    references: Annotated[int, typer.Option(help="Reference models.", min=1, max=256)] = 4,
    confidence: Annotated[float, typer.Option(help="Of intervals.", min=0.5, max=0.9999)] = 0.95,
    base: Annotated[
        Path | None, typer.Option(help="Base model folder, if it is elsewhere than at the run.")
    ] = None,
) -> AttackRecord:
    """Attack a finished adapter: whom it was trained on, at which site, and planted secrets.

    Every figure is beside what epsilon allows anybody. Of data that their sites declare public it
    writes attack.json and the report anew; else into the site's own folder, and nowhere else. Exit
    code 2 if the adapter tells who was trained on. Finding nothing proves nothing.
    Example: fmfl-secure attack pilot/run-1 --public-like public.csv --site sites/site-1
    """
    from rich.progress import Progress

    from fmfl_secure.attacks import attack_run
    from fmfl_secure.report import attacked

    with Progress(console=progress, transient=True) as shown:
        bar = shown.add_task("reading", total=None)

        def on_part(part: str) -> None:
            shown.update(bar, description=part)
            doing(part)

        found = attack_run(
            run,
            public_like,
            sites=site or (),
            secrets=secrets,
            references=references,
            confidence=confidence,
            base=base,
            on_part=on_part,
        )
    table = Table("tried", "found", "allowed", title=f"{found.record.federation}: attacks on {run}")
    for row in attacked.figures(found.record):
        table.add_row(*row)
    console.print(table)
    for sentence in attacked.sentences(found.record):
        say(sentence)
    say(f"written to {found.path}")
    return found.record
