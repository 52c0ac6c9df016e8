"""`docs/cli.md`, printed from the commands themselves: `python -m fmfl_secure.cli.document`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from fmfl_secure.cli._command import COMMON, answer_names

_INTRODUCTION = """# Commands

`fmfl-secure COMMAND --help` says the same on a terminal. The page is printed from the commands by
`python -m fmfl_secure.cli.document`.

Every command takes these besides its own options:

| option | says |
| --- | --- |
{common}

A command that answers something takes `--json`: then standard output has one document and nothing
else, of the form that is named below, and what is meant for people goes to standard error. A
command that fails prints a document too, a `Failure`: `error` with `code`, `message`, `hint`,
`nature` and the `exit_code` ([all of them](exit-codes.md)). `fmfl-secure schema COMMAND` prints a
command's JSON Schema; [answers.schema.json](answers.schema.json) has all of them. `--debug`
anywhere shows an error's traceback.
"""


def cli_document() -> str:
    """Writes the page `docs/cli.md`, as Markdown."""
    from fmfl_secure import cli

    root: Any = typer.main.get_command(cli.app)
    shared = [one for one in root.commands["doctor"].params if one.name in COMMON]
    return "\n".join(
        [
            _INTRODUCTION.format(common="\n".join(_options(shared))),
            *_commands((), root),
        ]
    )


def _commands(words: tuple[str, ...], found: Any) -> Iterator[str]:
    commands: Mapping[str, Any] | None = getattr(found, "commands", None)
    if commands is None:
        yield from _command(words, found)
        return
    alone = [each for each in commands.items() if not hasattr(each[1], "commands")]
    groups = [each for each in commands.items() if hasattr(each[1], "commands")]
    if words:
        yield f"## {' '.join(words)}\n"
        yield f"{found.help}\n"
    for name, each in alone:
        yield from _commands((*words, name), each)
    for name, each in groups:
        yield from _commands((*words, name), each)


def _command(words: tuple[str, ...], found: Any) -> Iterator[str]:
    said, _, example = inspect.cleandoc(found.help).partition("Example: ")
    arguments = [one for one in found.params if one.param_type_name == "argument"]
    own = [one for one in found.params if one.param_type_name == "option"]
    own = [one for one in own if one.name not in {*COMMON, "as_json"}]
    usage = " ".join(
        [
            "fmfl-secure",
            *words,
            *(_named(one) for one in arguments),
            *(["[OPTIONS]"] if own else []),
        ]
    )
    yield f"{'###' if len(words) > 1 else '##'} {' '.join(words)}\n"
    yield from (f"{_plain(paragraph)}\n" for paragraph in said.split("\n\n") if paragraph.strip())
    yield f"    {usage}\n"
    yield f"For example `{' '.join(example.split())}`\n"
    names = answer_names(found.callback)
    if names:
        yield f"Answers with {' or '.join(f'`{name}`' for name in names)}.\n"
    rows = [*(f"| `{_named(one)}` | {_plain(one.help)} |" for one in arguments), *_options(own)]
    if rows:
        yield "\n".join(["| argument or option | says |", "| --- | --- |", *rows, ""])


def _named(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    name = f"{name}..." if argument.nargs == -1 and not name.endswith("...") else name
    return name if argument.required else f"[{name.strip('[]')}]"


def _options(options: Any) -> Iterator[str]:
    for one in options:
        spelled = ", ".join(f"`{name}`" for name in [*one.opts, *one.secondary_opts])
        yield f"| {spelled} | {_plain(one.help)}{_choices(one)}{_default(one)} |"


def _choices(option: Any) -> str:
    # Where Typer keeps them depends on its version.
    kept = getattr(option, "type_descriptor", None) or getattr(option, "type", None)
    choices = [f"`{each}`" for each in getattr(kept, "choices", None) or ()]
    return f" One of {', '.join(choices)}." if choices else ""


def _default(option: Any) -> str:
    if option.required:
        return " **Needed.**"
    if option.name in COMMON:
        return ""
    value = option.default
    if (
        value is None
        or value in ("", 0)
        or isinstance(value, bool)
        or callable(value)
        or value == ()
    ):
        return ""
    return f" Default: `{value}`."


def _plain(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip().replace("|", "\\|")


if __name__ == "__main__":
    print(cli_document(), end="")  # noqa: T201
