"""Questions of `init` on a terminal: what only people can say, with choices.

`cli.new_settings` calls these for whatever options have not said, where `can_ask` finds somebody
to ask.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fmfl_secure.cli._console import console, say

if TYPE_CHECKING:
    from fmfl_secure.planning.proposed_choices import Known
    from fmfl_secure.settings.choices import Choice

TEMPLATE_DELTA = 1e-5
_FEWEST_LABELS = 2
_SHOWN_EPSILONS = (1.0, 3.0, 8.0)


def can_ask() -> bool:
    """Whether somebody sits there who reads and types: no program that wants an answer."""
    return sys.stdin.isatty() and console.is_terminal and not (console.stderr or console.quiet)


def pick(question: str, options: Sequence[tuple[str, str]], default: str) -> str:
    """One of several, by its number or its name."""
    say(question)
    width = max(len(name) for name, _ in options)
    for number, (name, said) in enumerate(options, start=1):
        say(f"  {number:>2}  {name:<{width}}  {said}".rstrip())
    names = [name for name, _ in options]
    while True:
        given = str(typer.prompt("Number or name", default=default)).strip()
        if given.isdecimal() and 1 <= int(given) <= len(names):
            return names[int(given) - 1]
        if given in names:
            return given
        say(f"{given!r} is none of them")


def ask_task(default: str) -> str:
    """Asks for the kind of task."""
    from fmfl_secure.settings.task_templates import TASK_TEMPLATES

    said = {
        "text-classification": "a text, one label",
        "multi-label-classification": "a text, any number of labels",
        "token-classification": "words and a tag for each: entities, de-identification",
        "causal-lm": "a prompt and a response, with a language model",
        "preference": "a prompt and two answers of which one was chosen, with a language model",
        "image-classification": "a picture, one label",
        "image-text": "a picture and the text that describes it",
        "image-text-classification": "a picture and a text, one label",
    }
    return pick("What is learned?", [(n, said.get(n, "")) for n in TASK_TEMPLATES], default)


def ask_sites(default: int) -> int:
    """Asks for the number of sites."""
    return int(typer.prompt("How many sites", default=default, value_proc=_whole_number(3)))


def ask_known() -> Known | None:
    """A table that anybody may see, or a schema, to propose columns and labels from."""
    from fmfl_secure.errors import FmflError, said
    from fmfl_secure.planning.proposed_choices import known_of_schema, known_of_table

    how = pick(
        "Is there something to propose columns and labels from? Of people's data nothing is read.",
        [
            ("nothing", "you are asked for them"),
            ("public", "a table that anybody may see"),
            ("synthetic", "a table of made-up rows"),
            ("schema", "a description of the columns, in JSON"),
        ],
        "nothing",
    )
    while how != "nothing":
        path = Path(str(typer.prompt("Its file")).strip())
        try:
            if how == "schema":
                return known_of_schema(path)
            return known_of_table(path, "public" if how == "public" else "synthetic")
        except FmflError as error:
            say(said(error))
    return None


def ask_choice(choice: Choice, known: Known | None, chosen: Mapping[str, Any]) -> Any:
    """Asks for one choice, and returns the value for its key in settings."""
    from fmfl_secure.settings.choices import EPSILON, POPULATION, UNIT

    if choice == EPSILON:
        return _ask_epsilon(float(chosen.get("privacy.delta", TEMPLATE_DELTA)))
    if choice == POPULATION:
        return int(typer.prompt(choice.asks, value_proc=_whole_number(1)))
    proposed = None if known is None else known.proposal(choice, chosen)
    if choice == UNIT:
        return _ask_unit(proposed)
    while True:
        # Without a proposal there is no default: Enter asks again.
        given = choice.read(str(typer.prompt(choice.asks, default=proposed)))
        if choice.option != "labels" or len(given) >= _FEWEST_LABELS:
            return given
        say("there are at least two labels")


def _ask_unit(proposed: str | None) -> str:
    how = pick(
        "Whom does privacy protect as one?",
        [
            ("record", "each row by itself"),
            ("person", "a person with all their rows, by a column that identifies them"),
        ],
        "person" if proposed else "record",
    )
    if how == "record":
        return how
    return str(typer.prompt("Column that identifies a person", default=proposed)).strip()


def _ask_epsilon(delta: float) -> float:
    from fmfl_secure.report.verdict import verdict

    say("What may a whole run cost each site? The smaller epsilon, the less of one person shows.")
    say(f"At delta {delta:g}, whoever wrongly names 1 % of others recognises at most so many:")
    for epsilon in _SHOWN_EPSILONS:
        told = verdict(epsilon, delta)
        say(f"  epsilon {epsilon:g}: {told.at_1} of the people in the data ({told.word})")
    return float(typer.prompt("Epsilon", value_proc=_positive))


def _whole_number(least: int) -> Any:
    """Reads a whole number from `least` on; others are asked for again."""

    def read(given: str) -> int:
        try:
            number = int(given)
        except ValueError:
            raise typer.BadParameter(f"{given!r} is no whole number") from None
        if number < least:
            raise typer.BadParameter(f"{number} is less than {least}")
        return number

    return read


def _positive(given: str) -> float:
    try:
        number = float(given)
    except ValueError:
        raise typer.BadParameter(f"{given!r} is no number") from None
    if not 0 < number < float("inf"):
        raise typer.BadParameter(f"{given} is no epsilon: it is above 0")
    return number
