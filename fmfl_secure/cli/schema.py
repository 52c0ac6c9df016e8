"""`fmfl-secure schema`: the form of what a command answers with `--json`.

Without a command it prints `docs/answers.schema.json`, which has all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from fmfl_secure.cli._command import command, forms_of
from fmfl_secure.cli._console import say
from fmfl_secure.cli.acting import READS
from fmfl_secure.cli.answers.base import Failure
from fmfl_secure.cli.answers.reports import SchemaPrinted

app = typer.Typer()


@command(app, answers=SchemaPrinted, acts=READS)
def schema(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="A command's words; else all.")
    ] = None,
) -> SchemaPrinted:
    """Print the JSON Schema of what a command answers with --json, or of its failure.

    Example: fmfl-secure schema ledger show
    """
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.report.schema import schema_text

    name, forms = " ".join(words or ()), dict(command_forms())
    if name and not forms.get(name):
        raise ConfigError(
            f"no command {name!r} answers with --json",
            hint=f"Name one of: {', '.join(name for name, found in forms.items() if found)}.",
        )
    found = answers_schema({name: forms[name]} if name else forms)
    say(schema_text(found).removesuffix("\n"))
    return SchemaPrinted(schema=found)


def command_forms() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every command by its words, with the types that it answers with."""
    from fmfl_secure import cli

    def below(words: tuple[str, ...], found: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
        commands: Mapping[str, Any] | None = getattr(found, "commands", None)
        if commands is None:
            yield " ".join(words), forms_of(found.callback)
            return
        for name, each in commands.items():
            yield from below((*words, name), each)

    yield from below((), typer.main.get_command(cli.app))


def answers_schema(forms: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of what commands print with `--json`.

    Args:
        forms: By command, the types that it answers with.

    Returns:
        A document valid against it is an answer of one of them or a failure; that of one command
        is at `#/$defs/` and its words, as `#/$defs/ledger show`.
    """
    import msgspec

    from fmfl_secure.report.schema import with_meanings

    answering = {name: types for name, types in forms.items() if types}
    every = [form for types in answering.values() for form in types] + [Failure]
    schemas, definitions = msgspec.json.schema_components(every)
    places = iter(schemas)
    of_commands = {
        name: {"anyOf": [next(places) for _ in types]} for name, types in answering.items()
    }
    with_meanings(definitions, may_be_null=lambda _: True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What fmfl-secure answers with --json",
        "anyOf": [*({"$ref": f"#/$defs/{_escaped(name)}"} for name in of_commands), next(places)],
        "$defs": of_commands | definitions,
    }


def _escaped(name: str) -> str:
    return name.replace(" ", "%20")
