"""`fmfl-secure ledger afford`: what a ledger can still afford.

`cli` imports it for its command. With a federation's settings it asks `planning.affordability` for
runs like theirs, and without for a sampler that options describe.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import console, say
from fmfl_secure.cli.acting import READS
from fmfl_secure.cli.ask import width
from fmfl_secure.cli.ledger import LedgerPlace, app
from fmfl_secure.report.rounding import left_fine

if TYPE_CHECKING:
    from fmfl_secure.planning.affordability import Affordable, AskedAnswers
    from fmfl_secure.settings.federation import FederationConfig


@command(app, "afford", answers="fmfl_secure.planning.affordability:Affordable", acts=READS)
def afford(
    ledger: LedgerPlace,
    federation: Annotated[
        Path | None, typer.Option(help="Take the sampler from this federation.toml.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Count the own budget of this site's data set, too.")
    ] = None,
    sample_rate: Annotated[
        float | None, typer.Option(help="Without settings: chance of a unit to be in a step.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Without settings: steps a round.", min=1)] = 4,
    noise_multiplier: Annotated[
        float | None, typer.Option(help="Without settings: say how many rounds fit at this noise.")
    ] = None,
    delta: Annotated[
        float | None, typer.Option(help="Without settings: of a run; default the first grant's.")
    ] = None,
    rounds: Annotated[
        str, typer.Option(help="Lengths of runs to ask for, repeats included, with commas.")
    ] = "",
) -> Affordable:
    """Say what a ledger can still afford: the largest runs that it would admit.

    Example: fmfl-secure ledger afford pilot/sites/site-1/ledger.sqlite
    --federation pilot/federation.toml --site site-1
    """
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.parties.first_grant import name_of
    from fmfl_secure.parties.workspace import Workspace
    from fmfl_secure.planning.affordability import ROUNDS, affordable, affordable_for
    from fmfl_secure.settings.federation import load_federation, load_site
    from privacy import Ledger, Sampler

    lengths = _lengths(rounds) if rounds else ROUNDS
    budget = Ledger(ledger).budget()
    if federation is not None:
        if not (sample_rate is None and noise_multiplier is None and delta is None):
            raise ConfigError("the settings say how a run samples: leave the sampler's options out")
        config, own = load_federation(federation), None
        if site is not None:
            place = Workspace(federation.parent).site(site)
            kit = federation.parent
            if not place.exists() and (kit / "site.toml").exists() and name_of(kit, config) == site:
                place = kit
            own = load_site(place / "site.toml")
        size = _parameters(config, federation)
        found = affordable_for(budget, config, own, size=size, rounds=lengths, name=site)
    elif sample_rate is None or site is not None:
        raise ConfigError(
            "it is not known how the run would sample",
            hint="Name --federation (and --site), or --sample-rate and --steps.",
        )
    else:
        found = affordable(
            budget,
            sampler=Sampler(sample_rate, steps),
            delta=delta,
            rounds=lengths,
            noise_multiplier=noise_multiplier,
        )
    _say_affordable(found)
    return found


def _parameters(config: FederationConfig, federation: Path) -> int:
    """Trained parameters, which distributed noise depends on; else 1, without loading a model."""
    if not (config.trains and config.privacy.noise_mechanism.in_shares):
        return 1
    from fmfl_secure.planning.task import build_task, largest_layout

    task = build_task(config, relative_to=federation.parent)
    return largest_layout(task, task.build_model(seed=config.federation.seed)).size


def _lengths(text: str) -> list[int]:
    from fmfl_secure.errors import ConfigError

    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 0 < int(word) < 10**6 for word in words):
        raise ConfigError(f"--rounds is {text!r}, expected numbers with commas, such as 5,10")
    return [int(word) for word in words]


def _say_asked(asked: AskedAnswers, *, beside: bool) -> None:
    other = asked.insider_epsilon
    second = "" if other is None else f" ({other:g} against all other sites together)"
    fit = "fit" if asked.fits else "do not fit"
    say(
        f"{asked.answers} answers, repeats included, at epsilon {asked.epsilon:g}{second} "
        f"together: they {fit}{' beside the planned run' if beside else ''}"
    )
    for each in asked.precision:
        first, sampling, widest = (
            width(half, each.figure) for half in (each.share, each.sampling, each.widest)
        )
        say(
            f"  {each.question} of {each.units:,.0f}: in 19 of 20 answers a count to "
            f"+-{each.count:.1f}, {each.figure or 'a share'} to +-{first} at most, +-{sampling} "
            f"with sampling, the widest figure to +-{widest}"
        )


def _say_affordable(found: Affordable) -> None:
    from fmfl_secure.planning.affordability import in_words

    for grant in found.grants:
        say(
            f"grant {grant.grant}: epsilon {grant.epsilon:g} at delta {grant.delta:g}, "
            f"{left_fine(grant.epsilon_left)} left"
        )
        if grant.objection:
            say(f"  it affords nothing: {grant.objection}")
        if grant.insider_epsilon is not None:
            say(
                f"  against all other sites together: epsilon {grant.insider_epsilon:g}, "
                f"{left_fine(grant.insider_epsilon_left or 0.0)} left"
            )
    if found.dataset is not None:
        say(f"data set {found.dataset!r} has a budget of its own, which is counted here")
    steps = "step" if found.steps_per_round == 1 else "steps"
    say(f"sample rate {found.sample_rate:g}, {found.steps_per_round} {steps} a round")
    if found.planned is not None:
        plan = found.planned
        shares = plan.insider_epsilon is not None
        if shares:
            say("noise in shares: a run has to fit both figures of a grant")
        second = f" ({plan.insider_epsilon:g} against all other sites together)" if shares else ""
        say(
            f"the planned run, epsilon {plan.epsilon:g}{second} over {plan.rounds} trainings with "
            "repeats, " + ("fits" if plan.fits else "does not fit")
        )
        if plan.noise_by_kind is not None:
            filtered, exact = plan.noise_by_kind
            say(
                f"at that epsilon it needs noise multiplier {filtered:.4f} of a grant that others "
                f"may use too, and {exact:.4f} of an exact one, for it alone; several exact ones "
                "add up linearly"
            )
    if found.asked is not None:
        _say_asked(found.asked, beside=found.planned is not None)
    if found.at_noise is not None:
        at = found.at_noise
        say(
            f"at noise multiplier {at.noise_multiplier:.4f}: {in_words(at.rounds)} "
            f"{'training fits' if at.rounds == 1 else 'trainings fit'}"
        )
    if found.runs:
        _say_runs(found)
    elif found.planned is not None or found.asked is None:
        say("no run fits, however much noise it adds")


def _say_runs(found: Affordable) -> None:
    insiders = any(run.insider_epsilon is not None for run in found.runs)
    table = Table(
        "trainings",
        "least noise multiplier",
        f"largest epsilon at delta {found.delta:g}",
        *(["against all other sites, then"] if insiders else []),
        title="the largest runs that fit",
    )
    for run in found.runs:
        noise = math.ceil(run.noise_multiplier * 1e4) / 1e4  # rounded up, so that it fits
        second = "" if run.insider_epsilon is None else f"{run.insider_epsilon:g}"
        cells = [f"{run.rounds:,}", f"{noise:.4f}", f"{run.epsilon:.2f}"]
        table.add_row(*cells, *([second] if insiders else []))
    console.print(table)
    if any(run.epsilon > max(grant.epsilon_left for grant in found.grants) for run in found.runs):
        say(
            "these are each run's own: costs add up before they become an epsilon, so beside "
            "earlier runs one counts for less than alone, and may be above what is left"
        )
