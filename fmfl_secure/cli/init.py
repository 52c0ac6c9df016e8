"""`init`: a new federation's settings, from what people say of it, and each party's own files.

`cli` registers it. Settings that do not exist are written first (`new_settings`), then
`initialise` makes each party's own files, and last it says what nobody has chosen yet and what to
type next.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.acting import Act
from fmfl_secure.cli.answers.federation import Initialised

app = typer.Typer()


def _choice(text: str) -> Any:
    return typer.Option(help=f"Of a new federation.toml: {text}")


@command(
    app, answers=Initialised, acts=Act("init", "folder", keeps=("task", "model", "delta_reason"))
)
def init(
    folder: Annotated[Path, typer.Argument(help="The federation's folder; made if missing.")],
    sites: Annotated[
        int | None, typer.Option(help="Sites in a new federation.toml; default: 4.", min=3)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Kind of task of a new federation.toml; docs/models.md. Default: what --model was "
            "made for, else text-classification."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Base model of a new federation.toml: a folder, whose settings go in."),
    ] = None,
    text_column: Annotated[
        str | None, _choice("columns with the text, with commas; the first one there is taken.")
    ] = None,
    label_column: Annotated[str | None, _choice("column with the label.")] = None,
    labels: Annotated[str | None, _choice("all labels in order, with commas.")] = None,
    image_column: Annotated[str | None, _choice("column with the picture's path.")] = None,
    tokens_column: Annotated[str | None, _choice("column with the lists of words.")] = None,
    tags_column: Annotated[str | None, _choice("column with the lists of tags.")] = None,
    entities: Annotated[str | None, _choice("all types of entity, with commas.")] = None,
    prompt_column: Annotated[str | None, _choice("column with the prompt.")] = None,
    response_column: Annotated[str | None, _choice("column with the response.")] = None,
    chosen_column: Annotated[str | None, _choice("column with the chosen answer.")] = None,
    rejected_column: Annotated[str | None, _choice("column with the rejected answer.")] = None,
    unit: Annotated[
        str | None, _choice("record, or the column that identifies a person: protected as one.")
    ] = None,
    population: Annotated[
        int | None, _choice("units at the largest site, declared and rounded.")
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="What a whole run may cost each site. Where federation.toml exists, proposed as "
            "first grant; default: the settings'."
        ),
    ] = None,
    delta: Annotated[float | None, typer.Option(help="The same for delta.")] = None,
    delta_reason: Annotated[
        str,
        typer.Option(
            help="Why delta may be above 1 / (10 x population); proposed with it as first grant."
        ),
    ] = "",
    table: Annotated[
        Path | None,
        typer.Option(help="A table that is no people's data, to propose columns and labels from."),
    ] = None,
    table_is: Annotated[
        Literal["public", "synthetic"] | None,
        typer.Option(help="What --table is: public, or synthetic, of made-up rows."),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(help="A JSON Schema or Table Schema to propose columns and labels from."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="A site's training file from the folder; {site} is its name.")
    ] = "data/{site}.csv",
    public: Annotated[
        bool,
        typer.Option("--public", help="Declare new sites' data public: anyone may see every row."),
    ] = False,
    simulated: Annotated[
        bool,
        typer.Option("--simulated", help="All sites are yours: grant in their place, and say so."),
    ] = False,
    ask: Annotated[bool, typer.Option(help="Ask on a terminal for what no option says.")] = True,
) -> Initialised:
    """Write a commented federation.toml, and each party's identity key, site file and ledger.

    On a terminal it asks what only people can say: what is learned, from which columns, who is
    protected, what it may cost. Elsewhere options say it, and what is left open stands in the
    settings. A table is read only if it is declared public or synthetic.
    What exists is left alone. Nothing is granted: that is each site's own (ledger grant), or, of a
    simulation, --simulated does it once all of this is chosen.
    With --model, what follows from a base model is set: task, digest, linear layers, how many of
    the last layers, type of weights, and how prompts are written.

    Example: fmfl-secure init pilot --sites 4
    """
    from fmfl_secure.cli.new_settings import (
        Said,
        require_new_only,
        require_new_sites,
        write_new,
    )
    from fmfl_secure.parties.proposals import open_choices
    from fmfl_secure.parties.workspace import DATA_PATTERN, Workspace, initialise

    path = Workspace(folder).federation_file
    is_new = not path.exists()
    given = {
        "text_column": text_column, "label_column": label_column, "labels": labels,
        "image_column": image_column, "tokens_column": tokens_column, "tags_column": tags_column,
        "entities": entities, "prompt_column": prompt_column, "response_column": response_column,
        "chosen_column": chosen_column, "rejected_column": rejected_column,
        "unit": unit, "population": population,
    }  # fmt: skip
    said = Said(
        task=task, model=model, sites=sites, epsilon=epsilon,
        delta=None if delta_reason else delta,  # one that needs a reason is no setting of all
        options={name: value for name, value in given.items() if value is not None},
        table=table, table_is=table_is, schema=schema, asks=ask,
    )  # fmt: skip
    if is_new:
        write_new(path, said)
    else:
        require_new_only(path, said)
        of_data = {"--data": data != DATA_PATTERN, "--public": public}
        of_grant = {
            "--epsilon": epsilon is not None,
            "--delta": delta is not None,
            "--delta-reason": bool(delta_reason),
        }
        require_new_sites(
            folder,
            of_data=[name for name, is_given in of_data.items() if is_given],
            of_grant=[name for name, is_given in of_grant.items() if is_given],
        )
    made = initialise(
        folder,
        epsilon=None if is_new else epsilon,  # which is the settings' own by now
        delta=None if is_new and not delta_reason else delta,
        delta_reason=delta_reason,
        data=data,
        public=public,
        simulated=simulated,
    )
    for line in made:
        say(f"made {line}")
    if not made:
        say(f"nothing was made: {folder} has all of its parties")
    missing = open_choices(path)
    if made and not simulated:
        say(
            f"nothing is granted: fmfl-secure ledger grant {folder}/sites/SITE shows each site "
            "what is proposed, and what it means; --accept grants it"
        )
    following = _what_next(folder, missing, is_new=is_new, simulated=simulated) if made else ()
    for number, line in enumerate(following, start=1):
        say(f"{'next' if number == 1 else '':<5}{number}. {line}")
    return Initialised(
        settings=str(path),
        new_settings=is_new,
        made=tuple(made),
        simulated=simulated,
        left_open=missing,
        next=following,
    )


def _what_next(
    folder: Path, missing: tuple[str, ...], *, is_new: bool, simulated: bool
) -> tuple[str, ...]:
    """The way from here to a run, a line each: what to edit, then what to type."""
    table = f"fmfl-secure partition TABLE --sites N --out {folder}/data"
    lines = []
    if missing:
        lines.append(f"edit {folder}/federation.toml: {', '.join(missing)}")
    elif is_new:
        lines.append(f"read {folder}/federation.toml: every line says what else may be chosen")
    lines += [f"bring each site's table, or split one: {table}", f"fmfl-secure plan {folder}"]
    if not simulated:
        lines.append(f"fmfl-secure ledger grant {folder}/sites/SITE --accept")
    elif missing:  # what nobody has chosen yet was not granted
        lines.append(f"fmfl-secure init {folder} --simulated")
    lines.append(f"fmfl-secure check {folder} SITE")
    lines.append(f"fmfl-secure run {folder} --output {folder}/run-1")
    return tuple(lines)
