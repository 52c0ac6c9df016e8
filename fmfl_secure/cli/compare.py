"""`fmfl-secure compare`: a federation beside its baselines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fmfl_secure.cli._console import console, errors, say

if TYPE_CHECKING:
    from fmfl_secure.comparison import Comparison, Row

app = typer.Typer()


@app.command()
def compare(
    federation: Annotated[Path, typer.Argument(help="Path of federation.toml.")],
    seeds: Annotated[int, typer.Option(help="Seeds, from 1 on.", min=1)] = 3,
    epsilon: Annotated[
        list[float] | None, typer.Option(help="A privacy target; may be repeated.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="An arm's name; may be repeated. Default: all.")
    ] = None,
    steps_per_round: Annotated[
        int | None, typer.Option(help="Of the arm that steps at the sites.", min=1)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Keep every row here, and go on with what is there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """Train the federation's baselines beside it and print one table.

    Baselines train without privacy or on pooled data: only on data declared public. No ledger is
    opened. Arms: probe, probe-private, alone, federated, local, local-site,
    distributed, pooled.
    Example: fmfl-secure compare pilot/federation.toml --seeds 5 --epsilon 1 --epsilon 3
    """
    import msgspec

    from fmfl_secure.comparison import ARMS
    from fmfl_secure.comparison import compare as run

    with console.status("reading data", spinner="dots") as status:
        found = run(
            federation,
            arms=only or tuple(ARMS),
            epsilons=epsilon or (),
            seeds=seeds,
            steps_per_round=steps_per_round,
            output=output,
            on_row=_tell,
            on_round=lambda arm, done, rounds: status.update(f"{arm}: round {done} of {rounds}"),
        )
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    _show(found)


def _tell(row: Row) -> None:
    target = "" if row.epsilon is None else f" at epsilon {row.epsilon:g}"
    first, value = next(iter(row.metrics.items()))
    errors.print(
        f"{row.arm}{target}, seed {row.seed}: {first} {value:.4f}, {row.cpu_s:.0f} CPU seconds",
        highlight=False,
    )


def _show(found: Comparison) -> None:
    from fmfl_secure.comparison import summarise

    lines = summarise(found)
    metrics = list(lines[0].mean)
    table = Table("", "epsilon", "seeds", *metrics, title=found.federation)
    for line in lines:
        table.add_row(
            line.title,
            "" if line.epsilon is None else f"{line.epsilon:g}",
            str(line.seeds) if line.arm != "untrained" else "",
            *(
                f"{line.mean[metric]:.4f}"
                + (f" ± {line.stdev[metric]:.4f}" if line.seeds > 1 else "")
                if metric in line.mean
                else ""
                for metric in metrics
            ),
        )
    console.print(table)
    for arm, reason in found.refused.items():
        say(f"{arm} is left out: {reason}")
