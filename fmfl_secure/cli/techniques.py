"""The command that finds a technique of the literature."""

from __future__ import annotations

from typing import Annotated

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.acting import READS
from fmfl_secure.cli.answers.base import shown
from fmfl_secure.cli.answers.reports import TechniqueShown, TechniquesShown

app = typer.Typer()


@command(app, answers=TechniquesShown, acts=READS)
def techniques(
    name: Annotated[
        str, typer.Argument(help="As its authors, or others, call it; or an area, as attacks.")
    ] = "",
) -> TechniquesShown:
    """Say whether a technique of the literature works here, and how; or list all of them.

    Example: fmfl-secure techniques fedprox
    """
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.settings.techniques import TECHNIQUES, technique_of, techniques_in

    found = technique_of(name) if name else None
    listed = () if found else techniques_in(name) if name else TECHNIQUES
    if listed:
        for technique in listed:
            say(f"{technique.status:<8} {technique.name}")
        return TechniquesShown(techniques=tuple(shown(each, TechniqueShown) for each in listed))
    if found is None:
        raise ConfigError(
            f"no technique is known by the name {name!r}",
            hint="fmfl-secure techniques lists them all; docs/survey.md has them by area.",
        )
    say(f"{found.name}: {found.status}")
    say(f"{found.said[0].upper()}{found.said[1:]}.")
    if found.instead:
        say(f"Use {found.instead}.")
    if found.source:
        say(f"arXiv {found.source}")
    return TechniquesShown(techniques=(shown(found, TechniqueShown),))
