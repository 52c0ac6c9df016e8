"""`plan`: what a run will do and cost, and what it will learn, said before any data are used.

`cli` registers it. It looks ahead by the base model (`training.outlook`) and then shows sizes and
costs, what answers would tell, a verdict, and what ledgers at hand would say; nothing is reserved.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import console, facts, say
from fmfl_secure.cli._loading import seldom_collected
from fmfl_secure.cli.acting import READS
from fmfl_secure.cli.answers.base import shown
from fmfl_secure.cli.answers.plan import (
    AnswersPlanned,
    ChangeShown,
    ForecastShown,
    NormBounded,
    PlaceShown,
    Planned,
    PrecisionShown,
    ReadingShown,
    SiteAsked,
    SitePlanned,
    TrainingPlanned,
    VerdictShown,
)
from fmfl_secure.cli.arguments import FederationFile
from fmfl_secure.report.rounding import spent_fine
from fmfl_secure.settings.tasks import CausalLMSection

if TYPE_CHECKING:
    from fmfl_secure.planning.plans import Prediction
    from fmfl_secure.settings.federation import FederationConfig
    from fmfl_secure.training.outlook import Outlook

app = typer.Typer()
_SHOWN_GROUPS = 12  # of those that are bounded together
_SHOWN_ROUNDS = 8  # of a long run, and its last


@command(app, answers=Planned, acts=READS)
@seldom_collected()
def plan(
    federation: FederationFile,
    advice: Annotated[
        bool,
        typer.Option(
            help="End in a verdict on what is learned beside the noise, from records made up: "
            "takes some hundred of them through the base model."
        ),
    ] = True,
) -> Planned:
    """Show what a run will do and cost, and what it will learn, before any data are used.

    Epsilons are what the sites' ledgers will show, where those lie beside the settings; elsewhere
    those of a fresh grant of the settings' epsilon and delta.

    Example: fmfl-secure plan pilot/federation.toml
    """
    from fmfl_secure.planning.answers import answer_layout
    from fmfl_secure.planning.plans import encryption_parameters, upload_bytes, value_bits
    from fmfl_secure.settings.federation import load_federation
    from fmfl_secure.training.outlook import look_ahead

    config = load_federation(federation)
    ahead = look_ahead(config, relative_to=federation.parent, signals=advice)
    parameters = encryption_parameters(config, ahead.size)
    uploaded = ahead.size if config.trains else answer_layout(config).size
    size = upload_bytes(config, uploaded)
    bits = value_bits(config, ahead.size)
    remarks = {
        **_other_code(config),
        **_goes_on_from(config, federation.parent, ahead.start),
        **_not_listed(ahead.unlisted),
        **_template(config),
        **_decided(config),
        **_passed_over(config),
    }
    facts(
        f"{config.federation.name}: {config.all_rounds} rounds, {len(config.sites)} sites",
        {
            "base model": ahead.base_model,
            "adapter": f"{config.adapter.kind}, {ahead.size:,} trained parameters"
            f"{_kept(config, ahead)}",
            **remarks,
            "encryption": f"{parameters.id}, {bits}-bit values, at least "
            f"{parameters.security_bits} bits of security",
            "upload": f"{size:,} bytes a site and round, {size / uploaded:.2f} a value",
        },
    )
    cohorts = tuple(config.cohorts_in_words())
    for line in cohorts:
        say(f"cohorts     {line}")
    norms = _show_norms(config, ahead)
    say(f"settings    {config.digest}")
    say(f"base model  {ahead.base_digest}")
    private = config.privacy.noise_mechanism.private
    if not private:
        console.print("[bold red]No privacy[/bold red]: a baseline, on data declared public.")
    asks, trains = private and config.asked is not None, private and config.trains
    return Planned(
        federation=config.federation.name,
        rounds=config.all_rounds,
        sites=len(config.sites),
        base_model=ahead.base_model,
        base_model_digest=ahead.base_digest,
        settings_digest=config.digest,
        adapter=config.adapter.kind,
        trained_parameters=ahead.size,
        kept_parameters=ahead.kept,
        remarks=remarks,
        encryption=parameters.id,
        value_bits=bits,
        security_bits=parameters.security_bits,
        upload_bytes=size,
        cohorts=cohorts,
        norms=norms,
        private=private,
        answers=_show_asked(federation, config, ahead.size) if asks else None,
        training=_show_training(federation, config, ahead.size) if trains else None,
        verdict=_show_advice(config, ahead) if trains and advice else None,
    )


def _show_norms(config: FederationConfig, ahead: Outlook) -> tuple[NormBounded, ...]:
    """Which values are bounded together, where norms are checked."""
    from fmfl_secure.planning.norms import bounded_tensors

    found = bounded_tensors(config, ahead.tensors, ahead.size)
    if not found:
        return ()
    told = sum(group.projections for group in found)
    say(
        f"norms       every site shows {told:,} numbers of each update, and one that is larger "
        "than an honest one can be is named and left out; every site's policy has to accept it"
    )
    table = Table("tensors", "values", "honest, at most", "limit", "one site moves the mean")
    table.title = "norms that are checked, over that of an update at the end of its range"
    for group in found[:_SHOWN_GROUPS]:
        names = group.first if group.first == group.last else f"{group.first} to {group.last}"
        figures = (group.honest, group.limit, group.mean)
        table.add_row(names, f"{group.size:,}", *(f"{figure:.3f}" for figure in figures))
    console.print(table)
    if len(found) > _SHOWN_GROUPS:
        say(f"            and {len(found) - _SHOWN_GROUPS:,} groups more: --json has all")
    return tuple(shown(group, NormBounded) for group in found)


def _template(config: FederationConfig) -> dict[str, str]:
    """What a template's last space does to responses, where it stays the template's."""
    task = config.task
    if not isinstance(task, CausalLMSection) or task.chat:
        return {}
    if task.before_response or not task.template.endswith(" "):
        return {}
    return {
        "template": "ends with a space, so that a response begins without one, as hardly any word "
        "does that the model has read. With task.last_space = 'response' the space is the "
        "response's, and an untrained model's answers are likelier"
    }


def _decided(config: FederationConfig) -> dict[str, str]:
    """Why this epsilon, who decided it, and when to look again: what everybody will read."""
    if not config.privacy.noise_mechanism.private:
        return {}
    decided = config.privacy.decided
    said = decided.sentences(dt.datetime.now(dt.UTC).date())
    missing = "no reason is given for this epsilon: set privacy.rationale, decided_by and review_on"
    return {"decision": ". ".join(said) if said else missing}


def _passed_over(config: FederationConfig) -> dict[str, str]:
    """Settings that say something, and change nothing beside the others."""
    from fmfl_secure.settings.sections import PrivacySection

    privacy, fresh = config.privacy, PrivacySection()
    said = []
    if not privacy.noise_mechanism.in_shares:
        if privacy.insider_epsilon != fresh.insider_epsilon:
            said.append("privacy.insider_epsilon")
        if config.asked is not None and config.asked.insider_epsilon:
            said.append("insider_epsilon of what is asked")
        if (
            privacy.colluding_sites != fresh.colluding_sites
            and not config.federation.vanished_sites
        ):
            said.append("privacy.colluding_sites")
    found = [f"{', '.join(said)}: for noise in shares alone, which this is not"] if said else []
    if privacy.length_shares and not config.constant_work:
        found.append("privacy.length_shares: for privacy.constant_time alone")
    return {"passed over": "; ".join(found)} if found else {}


def _show_training(federation: Path, config: FederationConfig, size: int) -> TrainingPlanned:
    """Shows the cost of training at every site."""
    from fmfl_secure.parties.ledgers_at_hand import ledgers_at_hand
    from fmfl_secure.planning.plans import predict
    from fmfl_secure.planning.steps import both_places

    prediction = predict(config, size, ledgers_at_hand(federation.parent, config))
    in_shares = config.privacy.noise_mechanism.in_shares
    remarks = {**(_shares(config, prediction) if in_shares else {}), **_round_times(config)}
    facts(
        "privacy at every site",
        {
            "unit": config.task.unit,
            "sample rate": f"{prediction.sample_rate:g}",
            "steps": f"{prediction.steps} ({config.privacy.steps_per_round} a round), at the "
            f"{'server' if config.steps_at_server else 'sites'}",
            "noise multiplier": f"{prediction.noise_multiplier:.4f}",
            "epsilon": f"{spent_fine(prediction.epsilon_by_round[-1])} after all rounds"
            f"{' and answers' if config.asked is not None else ''}; "
            f"{spent_fine(prediction.epsilon_worst_case)} reserved, "
            f"rounds that may be repeated: {config.privacy.repeats}",
            "in the unit of": _unit_of(config, prediction),
            "epsilon by PLD": f"{spent_fine(prediction.pld_epsilon)}, had the parameters been "
            "fixed in advance",
            **remarks,
        },
    )
    where = Table("steps at", "rounds", "steps each", "a site uploads", "noise multiplier")
    places = list(both_places(config, size))
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
    rounds = len(prediction.epsilon_by_round)
    among = sorted({*range(1, rounds, -(-rounds // _SHOWN_ROUNDS)), rounds})
    every = "" if len(among) == rounds else "; --json has every round"
    by_round = Table("round", "epsilon", title=f"predicted epsilon{every}")
    for number in among:
        by_round.add_row(str(number), spent_fine(prediction.epsilon_by_round[number - 1]))
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
    return TrainingPlanned(
        unit=config.task.unit,
        sample_rate=prediction.sample_rate,
        steps=prediction.steps,
        noise_multiplier=prediction.noise_multiplier,
        epsilon_by_round=prediction.epsilon_by_round,
        epsilon_reserved=prediction.epsilon_worst_case,
        in_the_unit_of=_unit_of(config, prediction),
        insider_epsilon=prediction.insider_epsilon,
        pld_epsilon=prediction.pld_epsilon,
        remarks=remarks,
        places=tuple(shown(place, PlaceShown) for place in places),
        sites=tuple(shown(site, SitePlanned) for site in prediction.sites),
    )


def _kept(config: FederationConfig, ahead: Outlook) -> str:
    """How many trained numbers are in no upload, and which."""
    if not ahead.kept:
        return ""
    parts = ", ".join(config.adapter.personal_parts)
    return f" shared, and {ahead.kept:,} that stay at each site: {parts}"


def _show_asked(federation: Path, config: FederationConfig, size: int) -> AnswersPlanned:
    """How precise answers would be, and what ledgers at hand will show of them."""
    from fmfl_secure.cli.ask import show_precision
    from fmfl_secure.parties.ledgers_at_hand import ledgers_at_hand
    from fmfl_secure.planning.answers import asked_of
    from fmfl_secure.planning.precision import precisions
    from fmfl_secure.planning.terms import foresee
    from fmfl_secure.run.answer_record import ONE_SITE
    from privacy import BudgetExhausted, PlanError, PolicyRefusal

    show_precision(config)
    table = Table("site", "spent before", "after all answers", "reserved")
    table.title = "epsilon of answers, in the unit of the grant that is charged"
    ledgers = ledgers_at_hand(federation.parent, config)
    sites = []
    for entry in config.sites:
        if entry.name not in ledgers:
            continue
        held = ledgers[entry.name]
        try:
            found = foresee(config, entry, size, held.budget, dataset=held.dataset)
        except (BudgetExhausted, PlanError, PolicyRefusal) as error:
            if not config.trains:  # else that is said beside the cost of training
                say(f"{entry.name} will refuse: {error}")
            sites.append(SiteAsked(name=entry.name, forecast=None, refusal=str(error)))
            continue
        sites.append(SiteAsked(name=entry.name, forecast=shown(found, ForecastShown), refusal=""))
        figures = (found.before, found.by_round[-1], found.reserved)
        table.add_row(entry.name, *(spent_fine(figure) for figure in figures))
    if table.rows and not config.trains:  # a run that trains has one cost, shown below
        console.print(table)
    say(ONE_SITE)
    asked = asked_of(config)
    return AnswersPlanned(
        epsilon=asked.epsilon,
        answers=asked.answers(config.federation.rounds),
        questions=tuple(shown(each, PrecisionShown) for each in precisions(config)),
        sites=tuple(sites),
    )


def _show_advice(config: FederationConfig, ahead: Outlook) -> VerdictShown | None:
    """A verdict, in words and figures."""
    from fmfl_secure.planning.advice import advise

    signals = ahead.signals
    if signals is None:
        say(
            f"verdict     none: of {config.task.kind} no records can be made up that tell what a "
            "gradient is like; compare on public data instead (fmfl-secure compare)"
        )
        return None
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
    sentences = tuple(found.sentences())
    for number, sentence in enumerate(sentences):
        say(f"{'' if number else 'verdict':<12}{sentence}")
    for number, change in enumerate(found.changes, start=1):
        say(f"{'' if number > 1 else 'change':<12}{number}. {change.setting}: {change.words}")
    say(
        f"{'':<12}Real signals were within a factor of about two of this on three public sets. "
        "Where records tell their labels plainly, a head that is called below its noise here may "
        "learn all the same. Whether an adapter has anything to add is for fmfl-secure compare "
        "to show, on public data"
    )
    return VerdictShown(
        kind=found.verdict,
        sentences=sentences,
        changes=tuple(shown(change, ChangeShown) for change in found.changes),
        readings=tuple(shown(reading, ReadingShown) for reading in found.readings),
    )


def _unit_of(config: FederationConfig, prediction: Prediction) -> str:
    """Which grant's conversion the epsilons are of."""
    found = prediction.forecast
    if found is None:
        asked = 0.0 if config.asked is None else config.asked.epsilon
        return (
            f"a fresh grant of epsilon {config.privacy.epsilon + asked:g} at delta "
            f"{config.privacy.delta:g}; no ledger that affords the run is at hand"
        )
    spent = f", {spent_fine(found.before)} of it spent before" if found.before else ""
    return (
        f"grant {found.grant} at {prediction.charged}, epsilon {found.granted:g} at delta "
        f"{found.delta:g}{spent}"
    )


def _show_ledgers(prediction: Prediction) -> None:
    """Shows what each ledger at hand will show, and what still fits then."""
    table = Table("site", "grant", "spent before", "after", "reserved", "runs like it left")
    for site in prediction.sites:
        found = site.forecast
        if found is not None:
            table.add_row(
                site.name,
                f"{found.grant}: {found.granted:g}",
                spent_fine(found.before),
                spent_fine(found.by_round[-1]),
                spent_fine(found.reserved),
                str(found.runs_left),
            )
    if table.rows:
        console.print(table)
    for site in prediction.sites:
        if site.refusal:
            say(f"{site.name} will refuse: {site.refusal}")


def _other_code(config: FederationConfig) -> dict[str, str]:
    """Remarks on other packages' code, where the settings name any."""
    from fmfl_secure.extensions import installed_version, package_of

    if not config.extensions:
        return {}
    found = [f"{n} ({package_of(n)} {installed_version(n)})" for n in config.extensions]
    return {"other code": f"{', '.join(found)}; runs where a site's [policy] extensions name it"}


def _goes_on_from(config: FederationConfig, folder: Path, start: str) -> dict[str, str]:
    """Remarks on an earlier adapter that training starts from."""
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
        f"{spent_fine(line_epsilon(runs, delta))} at delta {delta:g} for who was in all of "
        "them, and this run's comes on top",
    }


def _not_listed(architecture: str) -> dict[str, str]:
    """Remarks on a base model that no table lists."""
    if not architecture:
        return {}
    return {
        "architecture": f"{architecture}, in no table; it passed the gate here, and sites take it "
        "whose [policy] says architectures = 'gated'"
    }


def _round_times(config: FederationConfig) -> dict[str, str]:
    """Remarks on how long rounds take, where a person may have many records."""
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
    """Remarks on distributed noise."""
    return {
        "noise": "in shares: only the sum is private, as long as at most "
        f"{config.privacy.colluding_sites} of its sites collude",
        "other sites": f"together, epsilon {prediction.insider_epsilon:g}, with repeats; "
        f"{config.privacy.insider_epsilon:g} is allowed",
    }
