"""`fmfl-secure compare`: a federation beside its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import console, progress, say
from fmfl_secure.cli._heartbeat import doing
from fmfl_secure.cli.arguments import FederationFile

if TYPE_CHECKING:
    from fmfl_secure.comparison import Comparison, Row

app = typer.Typer()


@command(
    app,
    answers="fmfl_secure.comparison:Comparison",
    acts="its sites are of its own making: no ledger is charged",
)
def compare(
    federation: FederationFile,
    seeds: Annotated[int, typer.Option(help="Seeds, from 1 on.", min=1)] = 3,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="A privacy target; may be repeated.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Kinds of adapter, with commas or repeated. Default: head, the linear probe, and "
            "the settings' own."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="An arm's name; may be repeated. Default: all.")
    ] = None,
    partition: Annotated[
        list[str] | None,
        typer.Option(
            help="own, or dirichlet:ALPHA to share all records out anew by label; may be repeated."
        ),
    ] = None,
    steps_per_round: Annotated[
        int | None, typer.Option(help="Of the arms that step at the sites.", min=1)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Append every row to this .jsonl, and skip those that are there."),
    ] = None,
) -> Comparison:
    """Train the federation's baselines beside it and print one table.

    Baselines train without privacy or on pooled data: only on data declared public. No ledger is
    opened. Arms: federated (without privacy), slower (so too, a third of the learning rate), alone,
    local, local-site, fedprox, personal, distributed, pooled; each with every adapter.
    Example: fmfl-secure compare pilot/federation.toml --adapter head,lora --epsilon 1 --epsilon 3
    """
    from fmfl_secure.comparison import ARMS, OWN
    from fmfl_secure.comparison import compare as run

    with console.status("reading data", spinner="dots") as status:

        def on_round(arm: str, done: int, rounds: int) -> None:
            where = f"{arm}: round {done} of {rounds}"
            status.update(where)
            doing(where)

        found = run(
            federation,
            adapters=_split(adapter),
            partitions=_split(partition) or (OWN,),
            arms=_split(only) or tuple(ARMS),
            epsilons=epsilon or (),
            seeds=seeds,
            steps_per_round=steps_per_round,
            output=output,
            on_row=_tell,
            on_round=on_round,
        )
    _show(found)
    return found


def _split(given: list[str] | None) -> tuple[str, ...]:
    return tuple(name.strip() for each in given or () for name in each.split(","))


def _tell(row: Row) -> None:
    target = "" if row.epsilon is None else f" at epsilon {row.epsilon:g}"
    target = f"{f' with {row.adapter}' if row.adapter else ''}{target}"
    if row.partition != "own":
        target += f", {row.partition}"
    first, value = next(iter(row.metrics.items()))
    progress.print(
        f"{row.arm}{target}, seed {row.seed}: {first} {value:.4f}, {row.cpu_s:.0f} CPU seconds",
        highlight=False,
    )


def _show(found: Comparison) -> None:
    from fmfl_secure.comparison import summarise

    lines = summarise(found)
    metrics = list(dict.fromkeys(metric for line in lines for metric in line.mean))
    table = Table(
        "", "adapter", "data", "epsilon", "seeds", *metrics, title=found.header.federation
    )
    for line in lines:
        table.add_row(
            line.title,
            line.adapter,
            line.partition,
            "" if line.epsilon is None else f"{line.epsilon:g}",
            str(line.seeds) if line.adapter else "",
            *(
                f"{line.mean[metric]:.4f}"
                + (f" ± {line.stdev[metric]:.4f}" if line.seeds > 1 else "")
                if metric in line.mean
                else ""
                for metric in metrics
            ),
        )
    console.print(table)
    for each in found.refused:
        target = "" if each.epsilon is None else f" at epsilon {each.epsilon:g}"
        say(f"{each.arm} with {each.adapter}{target} is left out: {each.reason}")
