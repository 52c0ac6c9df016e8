"""`fmfl-secure choose`: which adapter is right most often on what the sites hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fmfl_secure.cli._console import console, say
from fmfl_secure.cli.arguments import InsiderEpsilon, Repeats
from fmfl_secure.cli.ask import show_answer, show_precision

app = typer.Typer()


@app.command()
def choose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    epsilon: Annotated[float, typer.Option(help="What the answer may cost every unit.")],
    rounds: Annotated[
        str, typer.Option(help="Its rounds, with commas; default: the released ones, evenly.")
    ] = "",
    adapter: Annotated[
        list[Path] | None, typer.Option(help="An exported adapter besides; may be repeated.")
    ] = None,
    insider_epsilon: InsiderEpsilon = 0.0,
    repeats: Repeats = 0,
    again: Annotated[
        bool, typer.Option(help="Ask anew what was answered before, and charge for it.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write the winner to, as an adapter.")
    ] = None,
) -> None:
    """Choose among up to 16 adapters by one private answer of all sites, on one machine.

    Every unit that is set apart says of each candidate how often it is right there; one noised sum
    is opened and charged. Example: fmfl-secure choose pilot/run-1 --epsilon 0.5 --rounds 3,5,7
    """
    from fmfl_secure import choosing
    from fmfl_secure.errors import ConfigError

    words = [word.strip() for word in rounds.split(",") if word.strip()]
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise ConfigError(f"--rounds is {rounds!r}, expected numbers with commas, such as 3,5,7")
    candidates = choosing.candidates_of(run, [int(word) for word in words], adapter or [])
    chosen = choosing.choose(
        run,
        candidates,
        epsilon=epsilon,
        insider_epsilon=insider_epsilon,
        repeats=repeats,
        again=again,
    )
    show_precision(chosen.answer.config)
    show_answer(chosen.answer)
    table = Table("candidate", f"{chosen.winner} is ahead by, in units, 95 % for all at once")
    for name, (low, high) in chosen.ahead.items():
        if name != chosen.winner:
            table.add_row(name, f"{low:.1f} to {high:.1f}")
    console.print(table)
    clear = (
        "beyond what noise may do"
        if chosen.is_clear
        else (
            "and NOT beyond what noise may do: some interval has 0 in it, and another may be better"
        )
    )
    say(f"ahead       {chosen.winner}, {clear}")
    say(
        f"bias        it was chosen for being high, noise included: its own figure is too high by "
        f"up to {chosen.bias:.1f} units on average. An answer about it alone has no such bias"
    )
    if output is not None:
        choosing.write_winner(run, chosen, output)
        say(f"wrote       {output}")
