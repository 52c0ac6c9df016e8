"""`fmfl-secure stop`: end a run for good, by its coordinator or any custodian."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.acting import Act
from fmfl_secure.cli.answers.parties import RunStopKept

app = typer.Typer()


@command(
    app,
    answers=RunStopKept,
    acts=Act(
        "stop", "folder", keeps=("run", "reason"), tells=("run", "party", "reason"), always=True
    ),
)
def stop(
    folder: Annotated[
        Path, typer.Argument(help="A party's kit; or a federation's folder, as its coordinator.")
    ],
    run: Annotated[str, typer.Option(help="Id of the run, as its report has it.")] = "",
    reason: Annotated[str, typer.Option(help="Why, for everybody who takes part.")] = "",
    take: Annotated[
        Path | None, typer.Option(help="Keep a stop that another party signed and sent.")
    ] = None,
) -> RunStopKept:
    """Stop a run: its coordinator or any custodian signs, and no round begins after that.

    It reaches every party in the run's own messages, without a restart, and for good. A
    custodian's process gives its word for nothing more, so no sum opens, whoever carries messages.
    A server that withholds a stop could still have sites train for a round that never opens: if
    the run does not end within minutes, send them the file, and --take keeps it there.
    Example: fmfl-secure stop pilot/kits/board --run 6a1f0c --reason 'consent was withdrawn'
    """
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.outside import MOST_DOCUMENT, read_regular
    from fmfl_secure.parties.stops import stop_run, take_stop

    if take is not None:
        if run or reason:
            raise ConfigError("--take says run and reason itself: leave --run and --reason out")
        kept, path = take_stop(folder, read_regular(take, most_bytes=MOST_DOCUMENT))
    elif not (run and reason):
        raise ConfigError("name --run and --reason, or --take a stop that another party signed")
    else:
        kept, path = stop_run(folder, run, reason)
    say(f"run {kept.run} is stopped by {kept.party}, from {kept.at} on: {kept.reason}")
    say(f"kept in {path}")
    if take is None:
        say("running processes carry it; if the run does not end within minutes, send that file to")
        say("the other parties: fmfl-secure stop FOLDER --take FILE")
    return RunStopKept(
        run=kept.run, party=kept.party, reason=kept.reason, at=kept.at, file=str(path)
    )
