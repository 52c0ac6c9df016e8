"""A new `federation.toml` from what options say, what is proposed, and what somebody answers.

`init` (`cli.init`) calls `write_new`. For each choice it takes what an option says, else asks
(`first_questions`) if somebody is there, else takes what a known table proposes; the text is made,
read back as settings, and only then written.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fmfl_secure.cli._console import say

if TYPE_CHECKING:
    from fmfl_secure.planning.proposed_choices import Known

_SITES = 4
_TASK = "text-classification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Options of `init` on a new federation; None where they say nothing.

    Attributes:
        task: Kind of task.
        model: Folder of a base model.
        sites: How many.
        epsilon: What a run may cost each site.
        delta: At which.
        options: Of `settings.choices`, by option.
        table: To propose from.
        table_is: What it is declared to be.
        schema: To propose from.
        asks: Whether somebody may be asked for the rest, where there is a terminal.
    """

    task: str | None = None
    model: str | None = None
    sites: int | None = None
    epsilon: float | None = None
    delta: float | None = None
    options: Mapping[str, str | int] = field(default_factory=dict)
    table: Path | None = None
    table_is: Literal["public", "synthetic"] | None = None
    schema: Path | None = None
    asks: bool = True


def require_new_only(path: Path, said: Said) -> None:
    """Refuse to say of settings that exist what they say themselves.

    Raises:
        ConfigError: An option does.
    """
    from fmfl_secure.errors import ConfigError

    names = ("task", "model", "sites", "table", "table_is", "schema")
    given = {name: getattr(said, name) for name in names}
    for name, value in (given | dict(said.options)).items():
        if value is not None:
            raise ConfigError(
                f"{path} exists, and says itself what --{name.replace('_', '-')} says of a new one",
                hint="Edit it, or choose another folder.",
            )


def require_new_sites(folder: Path, *, of_data: Sequence[str], of_grant: Sequence[str]) -> None:
    """Refuse to say of new sites what would be of none, before anything is made.

    Args:
        folder: The federation's, with its settings.
        of_data: Options that are given and go into new site files.
        of_grant: Options that are given and are proposed as first grant of new sites.

    Raises:
        ConfigError: Every site has what they speak of.
    """
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.parties.workspace import Workspace
    from fmfl_secure.settings.federation import load_federation

    workspace = Workspace(folder)
    sites = [workspace.site(each.name) for each in load_federation(workspace.federation_file).sites]
    for given, file, hint in (
        (of_data, "site.toml", "Edit sites/SITE/site.toml."),
        (of_grant, "identity.pem", f"fmfl-secure ledger grant {folder}/sites/SITE has options."),
    ):
        if given and all((site / file).exists() for site in sites):
            raise ConfigError(
                f"{given[0]} is of sites that are made new, and {folder} has all of its sites",
                hint=hint,
            )


def write_new(path: Path, said: Said) -> None:
    """Write new settings, once they are whole and can be read.

    Raises:
        ConfigError: An option has no place in them, or they would be wrong.
        UnknownKind: There is no such task.
        DataError: The table cannot be read.
    """
    from fmfl_secure.outside import parse_toml
    from fmfl_secure.settings.federation import FederationConfig, convert_config
    from fmfl_secure.settings.templates import federation_toml

    real = Path(os.path.realpath(path.parent))  # which a loop of links does not end
    name = re.sub("[^a-z0-9]+", "-", real.name.lower()).strip("-")[:63] or "federation"
    task, values, sites = _answers(path.parent, said)
    text = federation_toml(name, sites, task, values)
    convert_config(parse_toml(text), FederationConfig, source=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    if any(each.startswith(("task.", "sites.", "privacy.epsilon")) for each in values):
        say(f"wrote {path}")
    else:
        say(f"wrote {path}: set the task, the sites' populations and the privacy target")


def _answers(folder: Path, said: Said) -> tuple[str, dict[str, Any], int]:
    """Kind of task, values by section and key, and how many sites."""
    from fmfl_secure.cli import first_questions as questions
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.settings.choices import EPSILON, choices_of

    asks = said.asks and questions.can_ask()
    task, values = _task_and_model(folder, said, asks=asks)
    choices = choices_of(task)
    unknown = sorted(set(said.options) - {each.option for each in choices})
    if unknown:
        raise ConfigError(
            f"--{unknown[0].replace('_', '-')} has no place in settings of the task {task!r}",
            hint=f"It has {', '.join(each.flag for each in choices)}.",
        )
    known = _known(said)
    given = {**said.options, **({} if said.epsilon is None else {"epsilon": said.epsilon})}
    asks = asks and any(each.option not in given for each in choices)
    if asks and known is None:
        known = questions.ask_known()
    sites = said.sites or (questions.ask_sites(_SITES) if asks else _SITES)
    proposes = known is not None and any(each.option not in given for each in choices)
    for choice in choices:
        if choice == EPSILON:
            values |= _delta(said.delta, values.get("sites.population"))
        if choice.option in given:
            value = given[choice.option]
            values[choice.key] = choice.read(value) if isinstance(value, str) else value
        elif asks:
            values[choice.key] = questions.ask_choice(choice, known, values)
        elif known is not None and (proposed := known.proposal(choice, values)) is not None:
            values[choice.key] = choice.read(proposed)
            say(f"{choice.key} = {proposed}: proposed by {known.source}")
    if known is not None and not proposes:
        say(f"{known.source} proposes nothing: options say all that it could")
    return task, values, sites


def _task_and_model(folder: Path, said: Said, *, asks: bool) -> tuple[str, dict[str, Any]]:
    from fmfl_secure.cli.first_questions import ask_task
    from fmfl_secure.settings.task_templates import task_template

    if said.model is not None:
        from fmfl_secure.planning.model_defaults import model_defaults

        found = model_defaults(said.model, task=said.task, folder=folder)
        for line in found.said:
            say(line)
        return found.task, dict(found.values)
    task = said.task or (ask_task(_TASK) if asks else _TASK)
    task_template(task)  # refuse an unknown one
    return task, {}


def _known(said: Said) -> Known | None:
    """Reads what was named to propose from."""
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.planning.proposed_choices import known_of_schema, known_of_table

    if said.table is not None and said.schema is not None:
        raise ConfigError("--table and --schema both propose: leave one out")
    if (said.table is None) != (said.table_is is None):
        raise ConfigError(
            "--table is read only with --table-is public or synthetic: of people's data nothing is",
            hint="Give both, or name the columns with options, such as --text-column.",
        )
    if said.schema is not None:
        return known_of_schema(said.schema)
    if said.table is None or said.table_is is None:
        return None
    return known_of_table(said.table, said.table_is)


def _delta(given: float | None, population: int | None) -> dict[str, float]:
    """Delta where the template's is not what is wanted; one that follows is said."""
    from fmfl_secure.cli import first_questions as questions
    from privacy import largest_delta

    if given is not None:
        return {"privacy.delta": given}
    largest = math.inf if population is None else largest_delta(population)
    if largest >= questions.TEMPLATE_DELTA:
        return {}
    power = 10.0 ** math.floor(math.log10(largest))
    say(f"privacy.delta = {power:g}: at most 1 / (10 x {population:,} units)")
    return {"privacy.delta": power}
