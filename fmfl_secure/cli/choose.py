"""`fmfl-secure choose`: which adapter is right most often on what the sites hold.

`cli` registers `choose`; `choosing` asks, and knows who is ahead.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import console, say
from fmfl_secure.cli.acting import Act, Given, of_run
from fmfl_secure.cli.answers.base import Written
from fmfl_secure.cli.answers.federation import AdapterChosen
from fmfl_secure.cli.arguments import InsiderEpsilon, Repeats
from fmfl_secure.cli.ask import show_answer, show_precision, sites_answered

if TYPE_CHECKING:
    from fmfl_secure.choosing import Chosen

app = typer.Typer()


def _asks(given: Given) -> bool:
    return given["settings"] is None and given["answered"] is None


@command(
    app,
    answers=(AdapterChosen, Written),
    acts=Act("choose", of_run("run"), keeps=("rounds",), when=_asks, tells=("winner",)),
)
def choose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    epsilon: Annotated[
        float | None, typer.Option(help="What the answer may cost every unit.")
    ] = None,
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
    settings: Annotated[
        Path | None,
        typer.Option(
            help="Ask nothing: write settings that ask, for parties on other machines, and beside "
            "them what their server starts from."
        ),
    ] = None,
    federation: Annotated[
        Path | None,
        typer.Option(
            help="With --settings: the federation.toml to ask by, where the run's own is not here."
        ),
    ] = None,
    answered: Annotated[
        Path | None,
        typer.Option(help="Ask nothing: the folder of the run in which the parties answered."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder to write the winner to, as an adapter.")
    ] = None,
) -> AdapterChosen | Written:
    """Choose among up to 16 adapters by one private answer of all sites.

    Every unit that is set apart says of each candidate how often it is right there; one noised sum
    is opened and charged. Across machines: --settings writes what all parties are asked by, and
    once they answered, --answered reads it.
    Example: fmfl-secure choose pilot/run-1 --epsilon 0.5 --rounds 3,5,7
    """
    from fmfl_secure import choosing
    from fmfl_secure.errors import ConfigError

    if answered is not None:
        given = {
            "--epsilon": epsilon is not None,
            "--rounds": rounds,
            "--adapter": adapter,
            "--insider-epsilon": insider_epsilon,
            "--repeats": repeats,
            "--again": again,
            "--settings": settings,
            "--federation": federation,
        }
        if passed_over := [option for option, is_there in given.items() if is_there]:
            raise ConfigError(
                f"{', '.join(passed_over)} do not go with --answered, which reads what was asked",
                hint="Leave them out: what was asked, and how, is in that run.",
            )
        return _show(run, choosing.read_choice(answered), output)
    if epsilon is None:
        raise ConfigError(
            "--epsilon is missing: it says what the answer may cost every unit",
            hint="Add --epsilon 0.5, which is a good start.",
        )
    if federation is not None and settings is None:
        raise ConfigError("--federation goes with --settings")
    words = [word.strip() for word in rounds.split(",") if word.strip()]
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise ConfigError(f"--rounds is {rounds!r}, expected numbers with commas, such as 3,5,7")
    candidates = choosing.candidates_of(run, [int(word) for word in words], adapter or [])
    asked, joined = choosing.question_among(
        candidates, epsilon=epsilon, insider_epsilon=insider_epsilon, repeats=repeats
    )
    if settings is None:
        if output is not None:
            choosing.require_writable(run, output, adapter or [])
        chosen = choosing.choose(run, asked, joined, again=again)
        return _show(run, chosen, output, adapter or [])
    if again or output is not None:
        raise ConfigError("--settings asks nothing yet: --again and --output do not go with it")
    start = choosing.write_question(run, asked, joined, settings, federation=federation)
    from fmfl_secure.settings.federation import load_federation

    show_precision(load_federation(settings))
    say(f"candidates  {', '.join(candidates)}")
    say(f"wrote       {settings}: give it to all parties as federation.toml")
    say(f"wrote       {start}: it belongs into the server's kit, as start.safetensors")
    say(f"afterwards  fmfl-secure choose {run} --answered FOLDER_OF_THAT_RUN")
    return Written(files=(str(settings), str(start)))


def _show(
    run: Path, chosen: Chosen, output: Path | None, folders: Sequence[Path] = ()
) -> AdapterChosen:
    from fmfl_secure import choosing

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
        choosing.write_winner(run, chosen, output, folders)
        say(f"wrote       {output}")
    return AdapterChosen(
        winner=chosen.winner,
        is_clear=chosen.is_clear,
        ahead=dict(chosen.ahead),
        bias=chosen.bias,
        output="" if output is None else str(output),
        answer=sites_answered(chosen.answer),
    )
