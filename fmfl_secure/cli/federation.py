"""The commands of a federation's life: init, partition, plan, check, run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer
from rich.table import Table

from fmfl_secure.cli._console import console, facts, say
from fmfl_secure.cli.arguments import FederationFile

if TYPE_CHECKING:
    from fmfl_secure.planning.plans import Prediction
    from fmfl_secure.settings.federation import FederationConfig
    from fmfl_secure.settings.types import UnitRule
    from fmfl_secure.training.outlook import Outlook

app = typer.Typer()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The federation's folder; made if missing.")],
    sites: Annotated[int, typer.Option(help="Sites in a new federation.toml.", min=3)] = 4,
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
    epsilon: Annotated[
        float | None, typer.Option(help="Propose it as first grant; default: the settings'.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="The same for delta.")] = None,
    delta_reason: Annotated[
        str,
        typer.Option(help="Why delta may be above 1 / (10 x population); proposed with it."),
    ] = "",
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
) -> None:
    """Write a commented federation.toml, and each party's identity key, site file and ledger.

    What exists is left alone. Nothing is granted: that is each site's own (ledger grant), or, of a
    simulation, --simulated does it once federation.toml was edited.
    With --model, what follows from a base model is set: task, digest, linear layers, how many of
    the last layers, type of weights, and how prompts are written.

    Example: fmfl-secure init pilot --sites 4
    """
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.parties.workspace import Workspace, initialise

    path = Workspace(folder).federation_file
    if path.exists() and model is not None:
        raise ConfigError(f"{path} exists, and says itself which model: --model is for a new one")
    if not path.exists():
        name = re.sub("[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:63]
        text = _new_settings(name or "federation", sites, task, model, folder)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        say(f"wrote {path}: set the task, the sites' populations and the privacy target")
    made = initialise(
        folder,
        epsilon=epsilon,
        delta=delta,
        delta_reason=delta_reason,
        data=data,
        public=public,
        simulated=simulated,
    )
    for line in made:
        say(f"made {line}")
    if made and not simulated:
        say(f"nothing is granted: fmfl-secure ledger grant {folder}/sites/SITE shows each site")
        say("what is proposed, and what it means; --accept grants it")


def _new_settings(name: str, sites: int, task: str | None, model: str | None, folder: Path) -> str:
    """The text of new settings; what a model decides of them is said."""
    from fmfl_secure.settings.templates import federation_toml

    if model is None:
        return federation_toml(name, sites, task or "text-classification")
    from fmfl_secure.planning.model_defaults import model_defaults

    found = model_defaults(model, task=task, folder=folder)
    for line in found.said:
        say(line)
    return federation_toml(name, sites, found.task, found.values)


@app.command()
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
) -> None:
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


@app.command()
def plan(
    federation: FederationFile,
    advice: Annotated[
        bool,
        typer.Option(
            help="End in a verdict on what is learned beside the noise, from records made up: "
            "takes some hundred of them through the base model."
        ),
    ] = True,
) -> None:
    """Show what a run will do and cost, and what it will learn, before any data are used.

    Epsilons are what the sites' ledgers will show, where those lie beside the settings; elsewhere
    those of a fresh grant of the settings' epsilon and delta.

    Example: fmfl-secure plan pilot/federation.toml
    """
    from fmfl_secure.parties.ledgers_at_hand import ledgers_at_hand
    from fmfl_secure.planning.answers import answer_layout
    from fmfl_secure.planning.plans import encryption_parameters, predict, upload_bytes, value_bits
    from fmfl_secure.planning.steps import both_places
    from fmfl_secure.settings.federation import load_federation
    from fmfl_secure.training.outlook import look_ahead

    config = load_federation(federation)
    ahead = look_ahead(config, relative_to=federation.parent, signals=advice)
    parameters = encryption_parameters(config, ahead.size)
    uploaded = ahead.size if config.trains else answer_layout(config).size
    size = upload_bytes(config, uploaded)
    facts(
        f"{config.federation.name}: {config.all_rounds} rounds, {len(config.sites)} sites",
        {
            "base model": ahead.base_model,
            "adapter": f"{config.adapter.kind}, {ahead.size:,} trained parameters",
            **_other_code(config),
            **_goes_on_from(config, federation.parent, ahead.start),
            **_not_listed(ahead.unlisted),
            "encryption": f"{parameters.id}, {value_bits(config, ahead.size)}-bit values, at "
            f"least {parameters.security_bits} bits of security",
            "upload": f"{size:,} bytes a site and round, {size / uploaded:.2f} a value",
        },
    )
    for line in config.cohorts_in_words():
        say(f"cohorts     {line}")
    say(f"settings    {config.digest}")
    say(f"base model  {ahead.base_digest}")
    if not config.privacy.noise_mechanism.private:
        console.print("[bold red]No privacy[/bold red]: a baseline, on data declared public.")
        return
    if config.asked is not None:
        _show_asked(federation, config, ahead.size)
    if not config.trains:
        return
    prediction = predict(config, ahead.size, ledgers_at_hand(federation.parent, config))
    facts(
        "privacy at every site",
        {
            "unit": config.task.unit,
            "sample rate": f"{prediction.sample_rate:g}",
            "steps": f"{prediction.steps} ({config.privacy.steps_per_round} a round), at the "
            f"{'server' if config.steps_at_server else 'sites'}",
            "noise multiplier": f"{prediction.noise_multiplier:.4f}",
            "epsilon": f"{prediction.epsilon_by_round[-1]:.4f} after all rounds; "
            f"{prediction.epsilon_worst_case:.4f} reserved, with {config.privacy.repeats} repeats",
            "in the unit of": _unit_of(config, prediction),
            "epsilon by PLD": f"{prediction.pld_epsilon:.4f}, had the parameters been fixed "
            "in advance",
            **(_shares(config, prediction) if config.privacy.noise_mechanism.in_shares else {}),
            **_round_times(config),
        },
    )
    where = Table("steps at", "rounds", "steps each", "a site uploads", "noise multiplier")
    places = list(both_places(config, ahead.size))
    where.title = f"where steps may be taken; set: {places[0].place}"
    for place in places:
        where.add_row(
            place.place,
            f"{place.rounds:,}",
            f"{place.steps_per_round:,}",
            f"{place.rounds * place.upload_bytes:,} bytes",
            f"{place.noise_multiplier:.4f}",
        )
    console.print(where)
    by_round = Table("round", "epsilon", title="predicted epsilon")
    for number, epsilon in enumerate(prediction.epsilon_by_round, start=1):
        by_round.add_row(str(number), f"{epsilon:.4f}")
    console.print(by_round)
    by_site = Table("site", "population", "units a step", "noise of the mean", title="sites")
    for site in prediction.sites:
        by_site.add_row(
            site.name,
            f"{site.population:,}",
            f"{site.expected_batch_size:.0f}",
            f"{site.noise_stddev_of_mean:.5f} x C",
        )
    console.print(by_site)
    _show_ledgers(prediction)
    if advice:
        _show_advice(config, ahead)


def _show_asked(federation: Path, config: FederationConfig, size: int) -> None:
    """How precise answers would be, and what ledgers at hand will show of them."""
    from fmfl_secure.cli.ask import show_precision
    from fmfl_secure.parties.ledgers_at_hand import ledgers_at_hand
    from fmfl_secure.planning.terms import foresee, terms_of
    from fmfl_secure.run.answer_record import ONE_SITE
    from privacy import BudgetExhausted, PlanError, PolicyRefusal

    show_precision(config)
    with_training = ", training with it" if config.trains else ""
    table = Table("site", "spent before", "after all answers", f"reserved{with_training}")
    table.title = "epsilon of answers, in the unit of the grant that is charged"
    ledgers = ledgers_at_hand(federation.parent, config)
    for entry in config.sites:
        if entry.name not in ledgers:
            continue
        held = ledgers[entry.name]
        try:
            *_, found = foresee(
                terms_of(config, entry, size),
                held.budget,
                dataset=held.dataset,
                plan=config.digest,
            )
        except (BudgetExhausted, PlanError, PolicyRefusal) as error:
            say(f"{entry.name} will refuse: {error}")
            continue
        figures = (found.before, found.by_round[-1], found.reserved)
        table.add_row(entry.name, *(f"{figure:.4f}" for figure in figures))
    if table.rows:
        console.print(table)
    say(ONE_SITE)


def _show_advice(config: FederationConfig, ahead: Outlook) -> None:
    """A verdict, in words and figures."""
    from fmfl_secure.planning.advice import advise

    signals = ahead.signals
    if signals is None:
        say(
            f"verdict     none: of {config.task.kind} no records can be made up that tell what a "
            "gradient is like; compare on public data instead (fmfl-secure compare)"
        )
        return
    found = advise(config, signals)
    table = Table(
        "adapter",
        "trained",
        "above their noise",
        "head, a step",
        "head, the run",
        "adapter, a step",
        title="signal over noise, expected of records made up; steps at the server",
    )
    for reading in found.readings:
        table.add_row(
            reading.kind,
            f"{reading.numbers:,}",
            f"{reading.above:,}",
            f"{reading.head:.2f}",
            f"{reading.head_in_run:.2f}",
            f"{reading.adapter:.2f}" if reading.signal.adapter_size else "",
        )
    console.print(table)
    for number, sentence in enumerate(found.sentences()):
        say(f"{'' if number else 'verdict':<12}{sentence}")
    for number, change in enumerate(found.changes, start=1):
        say(f"{'' if number > 1 else 'change':<12}{number}. {change.setting}: {change.words}")
    say(
        f"{'':<12}Real signals were within a factor of about two of this on two public sets; "
        "whether an adapter has anything to add is for fmfl-secure compare to show, on public data"
    )


def _unit_of(config: FederationConfig, prediction: Prediction) -> str:
    """Which grant's conversion the epsilons are of."""
    found = prediction.forecast
    if found is None:
        return (
            f"a fresh grant of epsilon {config.privacy.epsilon:g} at delta "
            f"{config.privacy.delta:g}; no ledger that affords the run is at hand"
        )
    spent = f", {found.before:.4f} of it spent before" if found.before else ""
    return (
        f"grant {found.grant} at {prediction.charged}, epsilon {found.granted:g} at delta "
        f"{found.delta:g}{spent}"
    )


def _show_ledgers(prediction: Prediction) -> None:
    """What each ledger at hand will show, and what still fits then."""
    table = Table("site", "grant", "spent before", "after", "reserved", "runs like it left")
    for site in prediction.sites:
        found = site.forecast
        if found is not None:
            table.add_row(
                site.name,
                f"{found.grant}: {found.granted:g}",
                f"{found.before:.4f}",
                f"{found.by_round[-1]:.4f}",
                f"{found.reserved:.4f}",
                str(found.runs_left),
            )
    if table.rows:
        console.print(table)
    for site in prediction.sites:
        if site.refusal:
            say(f"{site.name} will refuse: {site.refusal}")


def _other_code(config: FederationConfig) -> dict[str, str]:
    """What is said of other packages' code, where the settings name any."""
    from fmfl_secure.extensions import installed_version, package_of

    if not config.extensions:
        return {}
    found = [f"{n} ({package_of(n)} {installed_version(n)})" for n in config.extensions]
    return {"other code": f"{', '.join(found)}; runs where a site's [policy] extensions name it"}


def _goes_on_from(config: FederationConfig, folder: Path, start: str) -> dict[str, str]:
    """What is said of an earlier adapter that training starts from."""
    if not config.adapter.initial:
        return {}
    from fmfl_secure.planning.warm_start import find_initial, line_epsilon
    from fmfl_secure.vectors.adapter_line import decode_line

    initial = find_initial(config, relative_to=folder)
    if initial is None:
        return {}
    runs, delta = decode_line(initial.line), config.privacy.delta
    return {
        "starts from": f"{config.adapter.initial}, {start}",
        "before it": f"{len(runs)} runs, {', '.join(each.run for each in runs)}: epsilon "
        f"{line_epsilon(runs, delta):.4f} at delta {delta:g} for who was in all of them, and this "
        "run's comes on top",
    }


def _not_listed(architecture: str) -> dict[str, str]:
    """What is said of a base model that no table lists."""
    if not architecture:
        return {}
    return {
        "architecture": f"{architecture}, in no table; it passed the gate here, and sites take it "
        "whose [policy] says architectures = 'gated'"
    }


def _round_times(config: FederationConfig) -> dict[str, str]:
    """What is said of how long rounds take, where a person may have many records."""
    from fmfl_secure.planning.work import describe_work

    if config.task.unit == "record":
        return {}
    most = config.privacy.max_records_per_unit
    capped = f"at most {most}, drawn at random" if most else "ALL: a person's work has no end"
    if not config.constant_work:
        return {
            "records a person": capped,
            "round times": "NOT CONSTANT: they tell of people with many records, and of the "
            "rounds they were in. privacy.constant_time = true, as init writes it, ends that",
        }
    return {
        "records a person": capped,
        "round times": "constant but for a chance of 2^-40 a run, within what sites declare",
        **{
            f"work at {site.name}": describe_work(config, site)
            + ("" if site.records else f" (declares no records: {most} of each person)")
            for site in config.sites
        },
    }


def _shares(config: FederationConfig, prediction: Prediction) -> dict[str, str]:
    """What is said of distributed noise besides."""
    return {
        "noise": "in shares: only the sum is private, as long as at most "
        f"{config.privacy.colluding_sites} of its sites collude",
        "other sites": f"together, epsilon {prediction.insider_epsilon:g}, with repeats; "
        f"{config.privacy.insider_epsilon:g} is allowed",
    }


@app.command("start-file")
def start_file(
    federation: FederationFile,
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: start.safetensors beside it.")
    ] = None,
    about: Annotated[
        Path | None,
        typer.Option(help="A finished run's folder, where the settings ask about its adapter."),
    ] = None,
) -> None:
    """Write what a server starts a run from. A server has no base model: make it where one is.

    It is public, holds no weights of the base model, and belongs into the server's kit.
    Example: fmfl-secure start-file pilot/federation.toml --output kits/server/start.safetensors
    """
    from fmfl_secure.planning.task import make_start_file
    from fmfl_secure.vectors.start_file import START_FILE

    path = output or federation.parent / START_FILE
    adapter = b""
    if about is not None:
        from fmfl_secure.asking import RunAsked

        adapter = RunAsked.of(about).adapter
    start = make_start_file(federation, path, adapter=adapter)
    licence = start.base_model_license or "its folder does not say"
    say(f"base model  {start.base_model}, {start.base_model_digest}")
    say(f"licence     {licence}")
    say(f"settings    {start.settings_digest}")
    say(f"wrote       {path}, {path.stat().st_size:,} bytes")


@app.command()
def check(
    federation: FederationFile,
    site: Annotated[str, typer.Argument(help="Name of the site whose data to check.")],
    contact_sheet: Annotated[
        Path | None,
        typer.Option(help="PNG to write pictures to, small, as a model is given them."),
    ] = None,
) -> None:
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
    if pictures is not None:
        for line in str(pictures).splitlines():
            say(f"pictures: {line}")
        if contact_sheet is not None:
            pictures.write_contact_sheet(contact_sheet)
            say(f"wrote {contact_sheet.resolve()}, which shows pictures of the site's data")
    elif contact_sheet is not None:
        raise ConfigError("--contact-sheet is of pictures, and the task has none")
    for question in questions(site, pilot.check_units(site)):
        say(f"question: {question.found}")
        say(f"          {question.advice}")


def grant_where_none_said(folder: Path, config: FederationConfig) -> None:
    """Make first grants before all sites run on one machine, and say which."""
    from fmfl_secure.parties.workspace import Workspace, grant_where_none

    for note in grant_where_none(Workspace(folder), config):
        say(f"made {note}")


@app.command()
def run(
    federation: FederationFile,
    output: Annotated[Path, typer.Option(help="Folder for the run.")],
    resume: Annotated[bool, typer.Option(help="Go on with the run in that folder.")] = False,
    engine: Annotated[
        Literal["local", "flower-sim", "flower"],
        typer.Option(help="One process; Flower's simulation on Ray; or a SuperLink that runs."),
    ] = "local",
    sites: Annotated[
        int, typer.Option(help="flower-sim: the first so many sites only; 0 takes all.", min=0)
    ] = 0,
    workers: Annotated[
        int, typer.Option(help="flower-sim: processes to spread sites over; 0: one a core.", min=0)
    ] = 0,
    superlink: Annotated[
        str, typer.Option(help="flower: the connection's name in Flower's config.toml.")
    ] = "",
) -> None:
    """Train: the main job. Writes the adapter, its metrics and a report.

    All sites are on this machine, so one whose ledger has no grant yet gets its first from the
    settings, unless they are as init wrote them, and the output says so.
    With --engine flower, federation.toml is that of the server's kit, beside the SuperLink.
    Example: fmfl-secure run pilot/federation.toml --output pilot/run-1
    """
    from fmfl_secure.cli.progress import TerminalProgress
    from fmfl_secure.errors import ConfigError, RunStopped
    from fmfl_secure.settings.federation import load_federation
    from fmfl_secure.storage.run_store import holds_run

    if (sites or workers) and engine != "flower-sim":
        raise ConfigError("--sites and --workers are for --engine flower-sim")
    if bool(superlink) != (engine == "flower"):
        raise ConfigError("--engine flower needs --superlink, and no other engine has one")
    config = load_federation(federation)
    if engine != "flower" and not resume:
        grant_where_none_said(federation.parent, config)
    with TerminalProgress(console, config) as progress:
        try:
            if engine == "local":
                from fmfl_secure.transports.local.engine import LocalEngine

                started = LocalEngine(federation, output, resume=resume, observer=progress)
                record = started.run()
            else:
                from fmfl_secure.transports.flower.extra import needs_flower_extra

                needs_flower_extra()
                if engine == "flower":
                    from fmfl_secure.transports.flower import deployment

                    kit = federation.parent
                    record = deployment.run(kit, output, resume=resume, connection=superlink)
                else:
                    from fmfl_secure.transports.flower.simulation import Simulation

                    record = Simulation(
                        federation,
                        output,
                        resume=resume,
                        observer=progress,
                        sites=sites,
                        workers=workers,
                    ).run()
        except BaseException as error:
            progress.__exit__(None, None, None)
            if holds_run(output):
                say(f"what was spent is in {output / 'report.html'}")
                if not isinstance(error, RunStopped):  # which ends a run for good
                    say(f"go on with: fmfl-secure run {federation} --output {output} --resume")
            raise
    say(f"adapter  {output / 'adapter'}")
    say(f"report   {output / 'report.html'}")
    figures = record.rounds[-1].metrics if record.rounds else {}
    for name, value in figures.items():
        say(f"{name:<8} {value:.4f}")
    if engine == "flower" and config.evaluation.file and not figures:
        say(f"figures  where the base model is: fmfl-secure evaluate {output} --rounds due")
