"""How a command is registered: what all of them take, and how one answers a program.

A command returns its answer, a structure whose type is its published form (`docs/cli.md`). Whoever
calls it from Python gets that; on a command line `--json` prints it, and nothing beside it.

Every module of commands decorates with `command`, and `Group` lists them (`cli.afford` is a short
example). Around a call it sets what all commands take, records the act if it is one (`acting`),
and prints the answer.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from fmfl_secure.cli._console import LogLevel, console, print_document, progress, spoken
from fmfl_secure.cli._heartbeat import Heartbeat
from fmfl_secure.cli.acting import Act, acted

_Command = TypeVar("_Command", bound=Callable[..., Any])
FORM = "answers_with"  # where a command's function keeps the type of its answer
ACT = "acts"  # and whether it is an act at a party, or why not


class Group(TyperGroup):
    """Commands with the whole first sentence of each: Typer's own cuts it to fit on a line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, as Click's own does but for that."""
        rows = [
            (name, each.get_short_help_str(limit=10_000))
            for name in self.list_commands(ctx)
            if (each := self.get_command(ctx, name)) is not None and not each.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


COMMON = ("quiet", "verbose", "log_level")  # parameters of every command


def _common(
    *,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Say nothing but what goes wrong.")
    ] = False,
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Show what is logged; -vv: all.")
    ] = 0,
    log_level: Annotated[
        LogLevel | None, typer.Option(help="Least level of what is logged to show.")
    ] = None,
) -> None:
    """Declares the options of every command."""


def _answering(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer as one JSON document.")
    ] = False,
) -> None:
    """Declares the options of every command that answers something."""


def command(
    app: typer.Typer,
    name: str | None = None,
    *,
    acts: Act | str,
    answers: Any = None,
    ends: Callable[[Any], int] = lambda _: 0,
) -> Callable[[_Command], _Command]:
    """Register a command.

    Args:
        app: Of which group.
        name: Its word; default: the function's name.
        acts: What a party's log of acts is told of it, or why nothing.
        answers: The type that it returns, or `module:name` where that loads more than help should;
            None for one that answers nothing, such as a service. Several of them in a tuple.
        ends: The exit code that an answer comes to.
    """

    def register(function: _Command) -> _Command:
        # A return type may be one that only type checkers have seen.
        function.__annotations__.pop("return", None)
        given = inspect.signature(function, eval_str=True)
        defaults = {name: one.default for name, one in given.parameters.items()}
        others: list[Callable[..., None]] = [_common] if answers is None else [_answering, _common]
        added = [
            parameter
            for each in others
            for parameter in inspect.signature(each, eval_str=True).parameters.values()
        ]

        word = name or function.__name__.replace("_", "-")

        @functools.wraps(function)
        def typed(
            *,
            quiet: bool,
            verbose: int,
            log_level: LogLevel | None,
            as_json: bool = False,
            **arguments: Any,
        ) -> None:
            with (
                spoken(as_json=as_json, quiet=quiet, verbose=verbose, level=log_level),
                acted(acts, arguments, defaults) as answered,
                # A service says by its log what it does.
                nullcontext() if answers is None else _heartbeat(word),
            ):
                answer = function(**arguments)
                answered(answer)
            if as_json:
                print_document(answer)
            code = ends(answer)
            if code:
                raise typer.Exit(code)

        own = list(given.parameters.values())
        typed.__dict__["__signature__"] = given.replace(parameters=[*_keyword(own), *added])
        typed.__annotations__ = {
            parameter.name: parameter.annotation for parameter in [*own, *added]
        }
        typed.__dict__[FORM] = answers
        typed.__dict__[ACT] = acts
        app.command(name)(typed)
        return function

    return register


def _heartbeat(word: str) -> Heartbeat:
    return Heartbeat(progress, word, watched=console.is_terminal and progress.is_terminal)


def _keyword(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    return [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]


def forms_of(function: Any) -> tuple[Any, ...]:
    """The types that a command answers with; none for one that answers nothing.

    Args:
        function: The command's callback, as its parser has it.
    """
    forms = getattr(function, FORM, None)
    each = forms if isinstance(forms, tuple) else () if forms is None else (forms,)
    return tuple(_loaded(form) for form in each)


def answer_names(function: Any) -> list[str]:
    """The names of those types, which the schema has too; nothing is loaded for it."""
    forms = getattr(function, FORM, None)
    each = forms if isinstance(forms, tuple) else () if forms is None else (forms,)
    return [
        form.partition(":")[2] if isinstance(form, str) else form.__name__
        for form in each
        if isinstance(form, str | type)
    ]


def _loaded(form: Any) -> Any:
    if not isinstance(form, str):
        return form
    module, _, name = form.partition(":")
    return getattr(importlib.import_module(module), name)
