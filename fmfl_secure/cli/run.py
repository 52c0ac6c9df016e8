"""`run`: training, by the engine that the person names.

`cli` registers the command. It makes the engine, has first grants made where sites have none and
nothing rules the run out, runs it, and says where adapter and report are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import console, say
from fmfl_secure.cli.acting import Act, beside_settings
from fmfl_secure.cli.answers.federation import RunDone
from fmfl_secure.cli.arguments import FederationFile, Track

if TYPE_CHECKING:
    from collections.abc import Callable

    from fmfl_secure.run.observer import Observer
    from fmfl_secure.run.record import RunRecord
    from fmfl_secure.settings.federation import FederationConfig

app = typer.Typer()


def grant_where_none_said(folder: Path, config: FederationConfig) -> None:
    """Make first grants before all sites run on one machine, and say which."""
    from fmfl_secure.parties.workspace import Workspace, grant_where_none

    for note in grant_where_none(Workspace(folder), config):
        say(f"made {note}")


@command(
    app,
    answers=RunDone,
    acts=Act("run", beside_settings, keeps=("output", "engine"), tells=("run", "status", "rounds")),
)
def run(
    federation: FederationFile,
    output: Annotated[Path, typer.Option(help="Folder for the run.")],
    resume: Annotated[bool, typer.Option(help="Go on with the run in that folder.")] = False,
    engine: Annotated[
        Literal["local", "flower-sim", "flower"],
        typer.Option(help="One process; Flower's simulation on Ray; or a SuperLink that runs."),
    ] = "local",
    sites: Annotated[
        int, typer.Option(help="flower-sim: the first so many sites only; 0 takes all.", min=0)
    ] = 0,
    workers: Annotated[
        int, typer.Option(help="flower-sim: processes to spread sites over; 0: one a core.", min=0)
    ] = 0,
    superlink: Annotated[
        str, typer.Option(help="flower: the connection's name in Flower's config.toml.")
    ] = "",
    track: Track = None,
) -> RunDone:
    """Train: the main job. Writes the adapter, its metrics and a report.

    All sites are on this machine, so one whose ledger has no grant yet gets its first from the
    settings, unless they are as init wrote them, and the output says so.
    With --engine flower, federation.toml is that of the server's kit, beside the SuperLink.
    Example: fmfl-secure run pilot/federation.toml --output pilot/run-1
    """
    from fmfl_secure.cli.progress import TerminalProgress
    from fmfl_secure.errors import ConfigError, RunStopped
    from fmfl_secure.run.trackers import tracked
    from fmfl_secure.settings.federation import load_federation
    from fmfl_secure.storage.run_store import RunStore, holds_run

    if (sites or workers) and engine != "flower-sim":
        raise ConfigError("--sites and --workers are for --engine flower-sim")
    if bool(superlink) != (engine == "flower"):
        raise ConfigError("--engine flower needs --superlink, and no other engine has one")
    if track and engine == "flower":
        raise ConfigError(
            "--track is for --engine local and flower-sim: here the server is elsewhere"
        )
    config = load_federation(federation)

    def grant() -> None:
        if not resume:
            grant_where_none_said(federation.parent, config)

    with (
        TerminalProgress(console, config) as progress,
        tracked(config, track or (), progress) as observer,
    ):
        try:
            record = _train(
                federation,
                output,
                resume=resume,
                engine=engine,
                observer=observer,
                sites=sites,
                workers=workers,
                superlink=superlink,
                grant=grant,
            )
        except BaseException as error:
            progress.__exit__(None, None, None)
            if holds_run(output):
                say(f"what was spent is in {output / 'report.html'}")
                # One that was stopped ends for good, and one that had ended goes on no more.
                if not isinstance(error, RunStopped) and not RunStore(output).state.ended:
                    say(f"go on with: fmfl-secure run {federation} --output {output} --resume")
            raise
    say(f"adapter  {output / 'adapter'}")
    say(f"report   {output / 'report.html'}")
    figures = record.rounds[-1].metrics if record.rounds else {}
    for name, value in figures.items():
        say(f"{name:<8} {value:.4f}")
    if engine == "flower" and config.evaluation.file and not figures:
        say(f"figures  where the base model is: fmfl-secure evaluate {output} --rounds due")
    spent = [site.statement.epsilon_by_round for site in record.sites if site.statement]
    return RunDone(
        run=record.run,
        status=record.status,
        folder=str(output),
        adapter=str(output / "adapter"),
        report=str(output / "report.html"),
        rounds=len(record.rounds),
        metrics=figures,
        epsilon=max((by_round[-1] for by_round in spent if by_round), default=None),
    )


def _train(
    federation: Path,
    output: Path,
    *,
    resume: bool,
    engine: str,
    observer: Observer,
    sites: int,
    workers: int,
    superlink: str,
    grant: Callable[[], None],
) -> RunRecord:
    """Trains; `grant` is called once nothing of the model or settings rules the run out."""
    if engine == "local":
        from fmfl_secure.transports.local.engine import LocalEngine

        made = LocalEngine(federation, output, resume=resume, observer=observer)
        grant()
        return made.run()
    from fmfl_secure.transports.flower.extra import needs_flower_extra

    needs_flower_extra()
    if engine == "flower":
        from fmfl_secure.transports.flower import deployment

        return deployment.run(federation.parent, output, resume=resume, connection=superlink)
    from fmfl_secure.transports.flower.simulation import Simulation

    simulation = Simulation(
        federation, output, resume=resume, observer=observer, sites=sites, workers=workers
    )
    grant()
    return simulation.run()
