"""The command line: `fmfl-secure COMMAND --help` describes each command, with an example.

Commands import what they need when they run: help and refusals need no machine-learning library.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from fmfl_secure.bench import app as bench_app

app = typer.Typer(
    help="Private federated fine-tuning: DP-SGD at every site, sums opened only under encryption.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
ledger_app = typer.Typer(
    help="A population's privacy budget.", no_args_is_help=True, rich_markup_mode=None
)
demo_app = typer.Typer(
    help="Demonstrations on synthetic data.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(ledger_app, name="ledger")
app.add_typer(demo_app, name="demo")
app.add_typer(bench_app, name="bench")

_console = Console()
_errors = Console(stderr=True)

FederationFile = Annotated[Path, typer.Argument(help="Path of federation.toml.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The federation's folder; made if missing.")],
    sites: Annotated[int, typer.Option(help="Sites in a new federation.toml.", min=3)] = 4,
    epsilon: Annotated[
        float | None, typer.Option(help="First grant of each new ledger; default: the settings'.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="The same for delta.")] = None,
    data: Annotated[
        str, typer.Option(help="A site's training file from the folder; {site} is its name.")
    ] = "data/{site}.csv",
) -> None:
    """Write a commented federation.toml, and each party's identity key, site file and ledger.

    What exists is left alone. Example: fmfl-secure init pilot --sites 4
    """
    from fmfl_secure.templates import federation_toml
    from fmfl_secure.workspace import Workspace, initialise

    folder.mkdir(parents=True, exist_ok=True)
    path = Workspace(folder).federation_file
    if not path.exists():
        name = re.sub("[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:63]
        path.write_text(federation_toml(name or "federation", sites), encoding="utf-8")
        _say(f"wrote {path}: set the task, the sites' populations and the privacy target")
    for line in initialise(folder, epsilon=epsilon, delta=delta, data=data):
        _say(f"made {line}")


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
        overwrite=overwrite,
    )
    for part in summary.files:
        _say(f"{out / part.name}: {part.rows} rows")


@app.command()
def plan(federation: FederationFile) -> None:
    """Show what a run will do and cost, before any data are used.

    Example: fmfl-secure plan pilot/federation.toml
    """
    from fmfl_secure.config import load_federation
    from fmfl_secure.models import Layout
    from fmfl_secure.planning import build_task, encryption_parameters, predict, upload_bytes

    config = load_federation(federation)
    task = build_task(config, relative_to=federation.parent)
    layout = Layout.of(task.build_model(seed=config.federation.seed))
    parameters = encryption_parameters(config)
    size = upload_bytes(config, layout.size)
    _facts(
        f"{config.federation.name}: {config.federation.rounds} rounds, {len(config.sites)} sites",
        {
            "base model": task.base.name,
            "adapter": f"{config.adapter.kind}, {layout.size:,} trained parameters",
            "encryption": f"{parameters.id}, {config.aggregation.bits}-bit values, at least "
            f"{parameters.security_bits} bits of security",
            "upload": f"{size:,} bytes a site and round, {size / layout.size:.2f} a parameter",
        },
    )
    _say(f"settings    {config.digest}")
    _say(f"base model  {task.base.digest}")
    if config.privacy.mode == "none":
        _console.print("[bold red]No privacy[/bold red]: a baseline, on data declared public.")
        return
    prediction = predict(config)
    _facts(
        "privacy at every site",
        {
            "unit": config.task.unit,
            "sample rate": f"{prediction.sample_rate:g}",
            "steps": f"{prediction.steps} ({config.privacy.steps_per_round} a round)",
            "noise multiplier": f"{prediction.noise_multiplier:.4f}",
            "epsilon": f"{prediction.epsilon_by_round[-1]:.4f} at delta {config.privacy.delta:g} "
            f"after all rounds; {prediction.epsilon_worst_case:.4f} reserved, with "
            f"{config.privacy.repeats} repeats",
            "epsilon by PLD": f"{prediction.pld_epsilon:.4f}, had the parameters been fixed "
            "in advance",
        },
    )
    by_round = Table("round", "epsilon", title="predicted epsilon")
    for number, epsilon in enumerate(prediction.epsilon_by_round, start=1):
        by_round.add_row(str(number), f"{epsilon:.4f}")
    _console.print(by_round)
    by_site = Table("site", "population", "units a step", "noise of the mean", title="sites")
    for site in prediction.sites:
        by_site.add_row(
            site.name,
            f"{site.population:,}",
            f"{site.expected_batch_size:.0f}",
            f"{site.noise_stddev_of_mean:.5f} x C",
        )
    _console.print(by_site)


@app.command()
def check(
    federation: FederationFile,
    site: Annotated[str, typer.Argument(help="Name of the site whose data to check.")],
) -> None:
    """Check a site's own data file, locally; nothing is sent, nothing is charged.

    Names the first unusable row, which a run would skip or, with on_bad_row = "error", pay for.
    Example: fmfl-secure check pilot/federation.toml site-1
    """
    from fmfl_secure.config import load_federation, load_site
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.planning import build_task
    from fmfl_secure.workspace import Workspace

    config = load_federation(federation)
    if site not in {entry.name for entry in config.sites}:
        raise ConfigError(f"{site} is not among the sites of {federation}")
    folder = Workspace(federation.parent).site(site)
    data = load_site(folder / "site.toml").data
    task = build_task(config, relative_to=federation.parent)
    task.load(folder / data.path, unit=config.task.unit, on_bad_row="error")
    _say(f"{folder / data.path} is usable")


@app.command()
def run(
    federation: FederationFile,
    output: Annotated[Path, typer.Option(help="Folder for the run.")],
    resume: Annotated[bool, typer.Option(help="Go on with the run in that folder.")] = False,
) -> None:
    """Train: the main job. Writes the adapter, its metrics, a report and a transcript.

    Example: fmfl-secure run pilot/federation.toml --output pilot/run-1
    """
    from fmfl_secure.config import load_federation
    from fmfl_secure.engines.local import LocalEngine
    from fmfl_secure.errors import RunError
    from fmfl_secure.progress import TerminalProgress

    config = load_federation(federation)
    with TerminalProgress(_console, config) as progress:
        engine = LocalEngine(federation, output, resume=resume, observer=progress)
        try:
            record = engine.run()
        except BaseException as error:
            progress.__exit__(None, None, None)
            _say(f"what was spent is in {output / 'report.html'}")
            if not isinstance(error, RunError):  # which ends a run for good
                _say(f"go on with: fmfl-secure run {federation} --output {output} --resume")
            raise
    _say(f"adapter  {output / 'adapter'}")
    _say(f"report   {output / 'report.html'}")
    for name, value in (record.rounds[-1].metrics if record.rounds else {}).items():
        _say(f"{name:<8} {value:.4f}")


@app.command()
def evaluate(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    data: Annotated[Path, typer.Option(help="Labelled file. The figures are exact: not private.")],
    base: Annotated[
        Path | None, typer.Option(help="Base model folder, if it is elsewhere than at the run.")
    ] = None,
) -> None:
    """Evaluate a run's adapter on a file.

    Example: fmfl-secure evaluate pilot/run-1 --data pilot/data/holdout.csv
    """
    from fmfl_secure.evaluation import evaluate_run

    metrics = evaluate_run(run_folder, data, base=base)
    for name, value in metrics.items():
        _say(f"{name:<9} {value:.4f}")


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
) -> None:
    """Rebuild report.html, report.json and metrics.json from a run's state.

    Example: fmfl-secure report pilot/run-1
    """
    from fmfl_secure.results import write_results

    write_results(run_folder)
    _say(f"{run_folder / 'report.html'}")


@ledger_app.command("show")
def ledger_show(path: Annotated[Path, typer.Argument(help="A ledger file.")]) -> None:
    """Show a ledger: grants, runs, what is spent and left.

    Example: fmfl-secure ledger show pilot/sites/site-1/ledger.sqlite
    """
    from privacy.ledger import Ledger

    budget = Ledger(path).budget()
    _say(f"population {budget.population!r}, unit {budget.unit!r}, add or remove one unit")
    grants = Table("grant", "date", "epsilon", "delta", "spent", "held", "left", "purpose")
    for status in budget.status():
        grants.add_row(
            str(status.grant.number),
            status.grant.at[:10],
            f"{status.grant.epsilon:g}",
            f"{status.grant.delta:g}",
            f"{status.epsilon_committed:.4f}",
            f"{status.epsilon_charged:.4f}",
            f"{status.epsilon_left:.4f}",
            escape(status.grant.purpose),
        )
    _console.print(grants)
    run_id = Column("run", no_wrap=True)
    runs = Table(run_id, "date", "grant", "purpose", "trained", "reserved", "state")
    for held in budget.reservations.values():
        runs.add_row(
            held.run,
            held.at[:10],
            str(held.grant),
            escape(held.purpose),
            str(len(held.commits)),
            str(held.rounds),
            "open" if held.open else "closed",
        )
    _console.print(runs)


@ledger_app.command("verify")
def ledger_verify(
    path: Annotated[Path, typer.Argument(help="A ledger file.")],
    head: Annotated[
        str | None, typer.Option(help="A head seen earlier, SEQUENCE:DIGEST, that must be in it.")
    ] = None,
) -> None:
    """Verify a ledger's chain, signatures and arithmetic; exit code 0 only if all hold.

    Example: fmfl-secure ledger verify pilot/sites/site-1/ledger.sqlite
    """
    from privacy.ledger import Ledger

    ledger = Ledger(path)
    if head is not None:
        ledger.require_anchor(head)
    sequence, digest = ledger.head()
    _say(f"{path} verifies: {sequence} records, head {sequence}:{digest}")


@ledger_app.command("grant")
def ledger_grant(
    path: Annotated[Path, typer.Argument(help="A ledger file in a site's folder.")],
    epsilon: Annotated[float, typer.Option(help="What is permitted on top of earlier grants.")],
    delta: Annotated[float, typer.Option(help="At this delta.")],
    purpose: Annotated[str, typer.Option(help="What for.")],
    identity: Annotated[
        Path | None, typer.Option(help="The site's key; default: identity.pem beside the ledger.")
    ] = None,
) -> None:
    """Permit more: the custodian's decision. Grants add up.

    Example: fmfl-secure ledger grant pilot/sites/site-1/ledger.sqlite --epsilon 2 --delta 1e-5
    --purpose 'follow-up study'
    """
    from aggregation import Identity
    from privacy.ledger import Ledger

    signer = Identity.load(identity or path.parent / "identity.pem")
    granted = Ledger(path, signer=signer).grant(epsilon=epsilon, delta=delta, purpose=purpose)
    _say(f"grant {granted.number}: epsilon {epsilon:g} at delta {delta:g}")


@demo_app.command("federation")
def demo_federation(
    output: Annotated[Path, typer.Option(help="Folder to make.")] = Path("demo"),
    fresh: Annotated[bool, typer.Option(help="Remove an earlier demonstration first.")] = False,
) -> None:
    """Run a private federation of four made-up clinics on synthetic notes.

    Example: fmfl-secure demo federation --output demo --fresh
    """
    from fmfl_secure.demo import prepare_demo

    federation = prepare_demo(output, fresh=fresh)
    run(federation, output / "run", resume=False)


def _say(text: str) -> None:
    """One line as it is: paths and digests keep whole, and brackets are no markup."""
    _console.print(text, markup=False, highlight=False, soft_wrap=True)


def _facts(title: str, facts: dict[str, Any]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in facts.items():
        table.add_row(name, escape(str(value)))
    _console.print(table)


def main() -> None:
    """Entry point: prints what went wrong and what to do, with no traceback unless asked."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    from fmfl_secure.errors import KNOWN_ERRORS

    try:
        app()
    except KNOWN_ERRORS as error:
        if debug:
            raise
        text = escape(str(error))
        _errors.print(f"[bold red]error:[/bold red] {text}", highlight=False, soft_wrap=True)
        hint = getattr(error, "hint", "")
        if hint:
            text = escape(hint)
            _errors.print(f"[bold]what to do:[/bold] {text}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        _errors.print("interrupted")
        raise SystemExit(130) from None
