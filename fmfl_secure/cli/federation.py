"""Commands before a run: partition, start-file, check.

`cli` registers the three commands; none of them charges a ledger.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import say
from fmfl_secure.cli._loading import seldom_collected
from fmfl_secure.cli.acting import READS
from fmfl_secure.cli.answers.base import shown
from fmfl_secure.cli.answers.federation import (
    Partitioned,
    PartShown,
    QuestionShown,
    SiteChecked,
    StartFileWritten,
)
from fmfl_secure.cli.arguments import FederationFile

if TYPE_CHECKING:
    from fmfl_secure.settings.types import UnitRule

app = typer.Typer()


@command(app, answers=Partitioned, acts="it splits a table, at no party")
def partition(
    file: Annotated[Path, typer.Argument(help="Table to split: .csv .tsv .jsonl .parquet")],
    sites: Annotated[int, typer.Option(help="Number of site files.", min=1)],
    out: Annotated[Path, typer.Option(help="Folder for the parts.")],
    by: Annotated[str, typer.Option(help="iid, dirichlet:ALPHA or column:NAME.")] = "iid",
    holdout: Annotated[float, typer.Option(help="Share held out for evaluation.")] = 0.0,
    tune: Annotated[float, typer.Option(help="Share set apart for tuning.")] = 0.0,
    limit: Annotated[int | None, typer.Option(help="Take a random subset of so many rows.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Needed by dirichlet.")] = None,
    unit_column: Annotated[
        str | None, typer.Option(help="Keep rows of the same unit in one part.")
    ] = None,
    unit_normalisation: Annotated[
        list[str] | None, typer.Option(help="A rule of task.unit_normalisation; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier split.")] = False,
) -> Partitioned:
    """Split one table into site files, to simulate a federation.

    Example: fmfl-secure partition notes.csv --sites 4 --out pilot/data --holdout 0.1
    """
    from fmfl_secure.data import partition_file

    summary = partition_file(
        file,
        sites,
        out,
        by=by,
        label_column=label_column,
        holdout=holdout,
        tune=tune,
        limit=limit,
        seed=seed,
        unit_column=unit_column,
        unit_rules=_unit_rules(unit_normalisation or []),
        overwrite=overwrite,
    )
    for part in summary.files:
        say(f"{out / part.name}: {part.rows} rows")
    return Partitioned(
        files=tuple(PartShown(path=str(out / part.name), rows=part.rows) for part in summary.files)
    )


def _unit_rules(given: list[str]) -> list[UnitRule]:
    import msgspec

    from fmfl_secure.errors import ConfigError
    from fmfl_secure.settings.types import UnitRule

    try:
        return msgspec.convert(given, list[UnitRule])
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"--unit-normalisation: {error}", hint=f"It is one of {', '.join(get_args(UnitRule))}."
        ) from error


@command(app, "start-file", answers=StartFileWritten, acts="what a server starts from is public")
def start_file(
    federation: FederationFile,
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: start.safetensors beside it.")
    ] = None,
    about: Annotated[
        Path | None,
        typer.Option(help="A finished run's folder, where the settings ask about its adapter."),
    ] = None,
) -> StartFileWritten:
    """Write what a server starts a run from. A server has no base model: make it where one is.

    It is public, holds no weights of the base model, and belongs into the server's kit.
    Example: fmfl-secure start-file pilot/federation.toml --output kits/server/start.safetensors
    """
    from fmfl_secure.planning.task import make_start_file
    from fmfl_secure.storage.files import require_new
    from fmfl_secure.vectors.start_file import START_FILE, is_start

    path = output or federation.parent / START_FILE
    if not is_start(path):
        require_new(path)
    adapter = b""
    if about is not None:
        from fmfl_secure.asking import RunAsked

        adapter = RunAsked.of(about).adapter
    start = make_start_file(federation, path, adapter=adapter)
    licence = start.base_model_license or "its folder does not say"
    say(f"base model  {start.base_model}, {start.base_model_digest}")
    say(f"licence     {licence}")
    say(f"settings    {start.settings_digest}")
    size = path.stat().st_size
    say(f"wrote       {path}, {size:,} bytes")
    return StartFileWritten(
        path=str(path),
        size_bytes=size,
        base_model=start.base_model,
        base_model_digest=start.base_model_digest,
        base_model_license=start.base_model_license,
        settings_digest=start.settings_digest,
    )


@command(app, answers=SiteChecked, acts=READS)
@seldom_collected()
def check(
    federation: FederationFile,
    site: Annotated[str, typer.Argument(help="Name of the site whose data to check.")],
    contact_sheet: Annotated[
        Path | None,
        typer.Option(help="PNG to write pictures to, small, as a model is given them."),
    ] = None,
) -> SiteChecked:
    """Check a site's policy and its own data file, locally; nothing is sent, nothing is charged.

    Says which rule of the policy would refuse a run, if one would. Counts the rows that a run
    would leave out or, with on_bad_row = "error", pay for, by what is wrong with them. Asks about
    people who may be in it under several ids, such as P7 and p7, with examples. Of pictures it says
    what was read: by form, mode, size and range. What it prints, and the contact sheet, which only
    you can read, stays at the site.
    Example: fmfl-secure check pilot/federation.toml site-1
    """
    from fmfl_secure.api import Federation
    from fmfl_secure.doctor.federation import questions
    from fmfl_secure.errors import ConfigError

    pilot = Federation(federation)
    checked = pilot.check(site)
    say("the site's policy allows the run")
    for line in pilot.config.cohorts_in_words():
        say(line)
    say(f"{checked.path} is usable")
    for line in checked.read_as:
        say(f"read as: {line}")
    if checked.shortened:
        say(
            f"{checked.shortened} of {checked.records} records are longer than model.max_length = "
            f"{pilot.config.model.max_length} tokens; a run reads their beginnings alone"
        )
    for complaint in checked.beyond:
        say(f"more than declared: {complaint}")
    pictures = pilot.check_pictures(site)
    lines = () if pictures is None else tuple(str(pictures).splitlines())
    for line in lines:
        say(f"pictures: {line}")
    if pictures is not None:
        if contact_sheet is not None:
            pictures.write_contact_sheet(contact_sheet)
            say(f"wrote {contact_sheet.resolve()}, which shows pictures of the site's data")
    elif contact_sheet is not None:
        raise ConfigError("--contact-sheet is of pictures, and the task has none")
    asked = tuple(questions(site, pilot.check_units(site)))
    for question in asked:
        say(f"question: {question.found}")
        say(f"          {question.advice}")
    return SiteChecked(
        site=site,
        path=str(checked.path),
        records=checked.records,
        shortened=checked.shortened,
        read_as=checked.read_as,
        beyond=checked.beyond,
        cohorts=tuple(pilot.config.cohorts_in_words()),
        pictures=lines,
        contact_sheet="" if contact_sheet is None else str(contact_sheet),
        questions=tuple(shown(each, QuestionShown) for each in asked),
    )
