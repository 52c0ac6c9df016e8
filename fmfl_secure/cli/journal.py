"""`fmfl-secure journal`: what a party recorded of what it opened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmfl_secure.cli._command import Group, command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.acting import Act
from fmfl_secure.cli.answers.reports import JournalMade

app = typer.Typer(
    cls=Group,
    help="A party's record of what it opened.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def journal() -> None:
    """A party's record of what it opened."""


@command(
    app,
    "recover",
    answers=JournalMade,
    acts=Act("journal recover", "folder", keeps=("reason", "bar")),
)
def recover(
    folder: Annotated[Path, typer.Argument(help="The party's folder or kit.")],
    reason: Annotated[str, typer.Option(help="What happened; kept in the new journal.")],
    bar: Annotated[
        list[str] | None,
        typer.Option(help="A run that the lost journal may have taken part in; may be repeated."),
    ] = None,
) -> JournalMade:
    """Make a journal in place of one that is lost, was put back, or does not verify.

    Of every run that the lost one may have known, this party joins nothing any more: what it
    opened of them is forgotten. At a site those are all runs of its ledger; decryptor and
    custodian name them. What is left of the old journal is set aside.
    Example: fmfl-secure journal recover pilot/sites/site-1 --reason "disk failed on 3 May"
    """
    from aggregation import Identity, recover_journal
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.settings.federation import load_site
    from privacy import Ledger

    if not reason.strip():
        raise ConfigError("--reason is empty", hint="Say what happened to the journal.")
    own = Identity.load(folder / "identity.pem").public
    runs = list(bar or ())
    if (folder / "site.toml").exists():
        location = load_site(folder / "site.toml").budget.ledger_from(folder)
        if Ledger.exists(location):
            budget = Ledger(location).budget()
            runs += [*budget.reservations, *budget.non_private]
    elif not runs:
        raise ConfigError(
            "no run is named that the lost journal may have taken part in",
            hint="--bar RUN for every run since the journal was last whole; reports name them.",
        )
    barred = recover_journal(folder / "journal.sqlite", own, reason=reason, runs=runs)
    say(f"made a journal for {own.name}, which joins nothing more of {len(barred)} runs")
    for run in barred:
        say(f"  {run}")
    return JournalMade(party=own.name, barred=tuple(barred))
