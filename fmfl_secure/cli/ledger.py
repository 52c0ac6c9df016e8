"""`fmfl-secure ledger`: a population's privacy budget, for its custodian and its officer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Column, Table

from fmfl_secure.cli._console import console, say

if TYPE_CHECKING:
    from aggregation import Identity, PublicIdentity
    from privacy import Budget, Event, Grant, Reservation

app = typer.Typer(
    help="A population's privacy budget.", no_args_is_help=True, rich_markup_mode=None
)

LedgerPlace = Annotated[
    str, typer.Argument(metavar="LEDGER", help="A ledger's file, or its PostgreSQL URL.")
]
SiteKey = Annotated[
    Path | None,
    typer.Option(help="The site's key; default: identity.pem beside the ledger's file."),
]


@app.command("show")
def show(ledger: LedgerPlace) -> None:
    """Show a ledger: grants, runs, what is spent and left.

    Example: fmfl-secure ledger show pilot/sites/site-1/ledger.sqlite
    """
    from privacy import Ledger

    budget = Ledger(ledger).budget()
    size = budget.population_size
    say(f"population {budget.population!r}, unit {budget.unit!r}, add or remove one unit")
    say("population size not declared" if size is None else f"{size:,} units declared")
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
    console.print(grants)
    _show_standing(budget)
    _show_insiders(budget)
    _show_signers(budget)
    run_id = Column("run", no_wrap=True)
    named = any(held.dataset for held in budget.reservations.values())
    whose = ["data set"] if named else []
    runs = Table(run_id, "date", "grant", *whose, "purpose", "trained", "reserved", "state")
    for held in budget.reservations.values():
        dataset = [escape(held.dataset.name) if held.dataset else ""] if named else []
        runs.add_row(
            held.run,
            held.at[:10],
            str(held.grant),
            *dataset,
            escape(held.purpose),
            str(len(held.commits)),
            str(held.rounds),
            _state(held),
        )
    console.print(runs)
    _show_exceptions(budget)


def _state(held: Reservation) -> str:
    if held.open:
        return f"open until {held.expires[:10]}" if held.expires else "open"
    return escape(f"closed: {held.released}") if held.released else "closed"


def _show_standing(budget: Budget) -> None:
    for status in budget.status():
        grant = status.grant
        if grant.delta_reason:
            say(f"grant {grant.number}, why its delta: {grant.delta_reason}")
        if status.objection:
            say(f"grant {grant.number} affords nothing: {status.objection}")
        if grant.lowered_from:
            say(f"grant {grant.number} was lowered from {grant.lowered_from:g} after trainings")
        if grant.exact is not None:
            used = "made its reservation" if status.is_used else "waits for it"
            say(f"grant {grant.number} is exact, for one run of {grant.exact.plan[:23]}...: {used}")
        if grant.closed:
            say(f"grant {grant.number} is closed: {grant.closed}")


def _show_insiders(budget: Budget) -> None:
    for status in budget.status():
        spent, charged = status.insider_epsilon_committed, status.insider_epsilon_charged
        if spent is not None and charged is not None:
            say(
                f"grant {status.grant.number} permits noise in shares: of epsilon "
                f"{status.grant.insider_epsilon:g} against all other sites together, {spent:.4f} "
                f"are spent and {charged:.4f} held"
            )


def _show_signers(budget: Budget) -> None:
    for each in budget.signers:
        if each.name:
            may = "grants and charges" if each.custodian else "charges"
            word = "no more" if each.dismissed else "too"
            say(f"{each.name} ({each.key[:16]}...) {may} here {word}")


def _show_exceptions(budget: Budget) -> None:
    for recovery in budget.recoveries:
        charged = ", ".join(
            f"{c.rounds} x {_mechanism(c.event)} on grant {c.grant}" for c in recovery.charges
        )
        say(f"{recovery.at[:10]}: for a lost history ({recovery.reason}): {charged or 'nothing'}")
    for run in budget.non_private:
        say(f"run {run} used data without privacy: nothing is left of any grant")


def _mechanism(event: Event) -> str:
    from privacy import NonPrivate, PoissonSampledSkellam

    if isinstance(event, NonPrivate):
        return "a cost without bound"
    steps = f"{event.steps} steps at rate {event.sample_rate:g}, noise {event.noise_multiplier:.4f}"
    if isinstance(event, PoissonSampledSkellam):
        return f"{steps} in shares ({event.seen_by_sites().noise_multiplier:.4f} to other sites)"
    return steps


@app.command("verify")
def verify(
    ledger: Annotated[
        str,
        typer.Argument(
            metavar="LEDGER", help="A ledger's file or PostgreSQL URL, or an export of one (.json)."
        ),
    ],
    head: Annotated[
        str | None, typer.Option(help="A head seen earlier, SEQUENCE:DIGEST, that must be in it.")
    ] = None,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(help="File or folder of anchors that must be in it; may be repeated."),
    ] = None,
) -> None:
    """Verify a ledger's chain, signatures and arithmetic; exit code 0 only if all hold.

    Example: fmfl-secure ledger verify pilot/sites/site-1/ledger.sqlite --anchor /media/officer
    """
    from privacy import Budget, Ledger, LedgerError, read_anchors, read_export
    from privacy.storage import is_url, without_secrets

    if ledger.endswith(".json") and not is_url(ledger):
        try:
            records = read_export(Path(ledger).read_text("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise LedgerError(f"cannot read {ledger}: {error}") from error
    else:
        records = Ledger(ledger).records()
    budget = Budget.replay(records)
    kept = budget.require_anchors([a for path in anchor or () for a in read_anchors(path)])
    if anchor and not kept:
        raise LedgerError("none of the anchors is of this ledger")
    if head is not None:
        budget.require_heads([head])
    say(f"{without_secrets(ledger)} verifies: {len(records)} records, head {records[-1].head}")
    if kept:
        say(f"it holds {kept} anchored heads")


@app.command("grant")
def grant(
    ledger: Annotated[
        str,
        typer.Argument(
            metavar="LEDGER",
            help="A ledger's file or its PostgreSQL URL; for what is proposed, a site's folder.",
        ),
    ],
    accept: Annotated[
        bool, typer.Option("--accept", help="Grant what is proposed, as the site's custodian.")
    ] = False,
    for_plan: Annotated[
        Path | None,
        typer.Option("--for", help="Grant one run by these settings, exactly, and no other."),
    ] = None,
    cap_epsilon: Annotated[
        float | None,
        typer.Option(help="With the first --for: most epsilon that all such grants come to."),
    ] = None,
    cap_delta: Annotated[float | None, typer.Option(help="The same for delta.")] = None,
    epsilon: Annotated[
        float | None, typer.Option(help="Permit so much on top of earlier grants.")
    ] = None,
    delta: Annotated[float | None, typer.Option(help="At this delta.")] = None,
    purpose: Annotated[str | None, typer.Option(help="What for.")] = None,
    insider_epsilon: Annotated[
        float | None,
        typer.Option(
            help="Permit shares of distributed noise, and so much against all other sites together."
        ),
    ] = None,
    population_size: Annotated[
        int | None,
        typer.Option(help="Declared, rounded number of units; default: the largest declared yet."),
    ] = None,
    delta_reason: Annotated[
        str,
        typer.Option(
            help="Why all grants' deltas together may be above 1 / (10 x population size)."
        ),
    ] = "",
    identity: SiteKey = None,
) -> None:
    """Permit a budget, or more of it: the custodian's decision. Grants add up, in both numbers.

    The first grant is proposed by the settings: alone, this shows the amount and what it means for
    one person, and --accept grants it. More is granted by --epsilon, --delta and --purpose.

    Example: fmfl-secure ledger grant pilot/sites/site-1 --accept
    """
    from privacy import Ledger, LedgerError

    if for_plan is not None:
        if (
            accept
            or epsilon is not None
            or delta is not None
            or (cap_epsilon is None) != (cap_delta is None)
        ):
            raise LedgerError("--for takes --purpose, --cap-epsilon with --cap-delta, or neither")
        _grant_run(ledger, for_plan, purpose or "", cap_epsilon, cap_delta)
        return
    if cap_epsilon is not None or cap_delta is not None:
        raise LedgerError("--cap-epsilon and --cap-delta go with --for")
    if epsilon is None or delta is None or purpose is None:
        others = (
            epsilon,
            delta,
            purpose,
            insider_epsilon,
            population_size,
            delta_reason or None,
            identity,
        )
        if any(each is not None for each in others):
            raise LedgerError(
                "say what to grant by --epsilon, --delta and --purpose together",
                hint="Without any of them the site's first grant is what its settings propose.",
            )
        _show_proposal(ledger, accept=accept)
        return
    if accept:
        raise LedgerError("--accept grants what is proposed, and takes no figures")
    signer = _load_identity(ledger, identity)
    opened = Ledger(ledger, signer=signer)
    granted = opened.grant(
        epsilon=epsilon,
        delta=delta,
        purpose=purpose,
        insider_epsilon=insider_epsilon,
        population_size=population_size,
        delta_reason=delta_reason,
    )
    _say_grant(granted)
    _show_standing(opened.budget())


def _grant_run(
    place: str, settings: Path, purpose: str, epsilon: float | None, delta: float | None
) -> None:
    from fmfl_secure.parties.first_grant import grant_for

    cap = None if epsilon is None or delta is None else (epsilon, delta)
    granted = grant_for(Path(place), settings, purpose=purpose, cap=cap)
    _say_grant(granted)
    if granted.cap is not None:
        say(
            f"all exact grants of this ledger come to epsilon {granted.cap[0]:g} at delta "
            f"{granted.cap[1]:g} at most, from now on and for good; its guarantee counts that"
        )


def _say_grant(granted: Grant) -> None:
    insider = granted.insider_epsilon
    seen = "" if insider is None else f"; against all other sites {insider:g}"
    say(f"grant {granted.number}: epsilon {granted.epsilon:g} at delta {granted.delta:g}{seen}")
    if granted.exact is not None:
        say(f"  for one run of {granted.exact.rounds} trainings as its settings fix it, no other")


def _show_proposal(place: str, *, accept: bool) -> None:
    """Say what a site's first grant would be and what it means; make it, if that is accepted."""
    from fmfl_secure.parties import first_grant
    from fmfl_secure.report.verdict import verdict
    from privacy.storage import is_url

    folder = Path(place)
    if is_url(place) or not folder.is_dir():
        folder = Path() if is_url(place) else folder.parent
    given = first_grant.proposed(folder)
    say(f"proposed to {given.site}, for its ledger of population {given.population!r}:")
    say(f"  epsilon {given.epsilon:g} at delta {given.delta:g}, over the ledger's whole life")
    say(f"  {given.population_size:,} units are declared, a unit being one {given.unit!r}")
    say(f"  {verdict(given.epsilon, given.delta).sentence}")
    if given.insider_epsilon is not None:
        say(f"  all other sites together may learn more: epsilon {given.insider_epsilon:g}")
        say(f"  {verdict(given.insider_epsilon, given.delta).sentence}")
    if given.run is not None:
        say("  for the one run of these settings, and no other (exact)")
    if given.delta_reason:
        say(f"  why its delta: {given.delta_reason}")
    if not accept:
        say("nothing is granted yet: --accept grants this; --epsilon and so on, another amount")
        return
    _say_grant(first_grant.accept(folder, given))


@app.command("lower")
def lower(
    ledger: LedgerPlace,
    grant: Annotated[int, typer.Option(help="Number of the grant.", min=1)],
    epsilon: Annotated[float, typer.Option(help="What it permits from now on.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the ledger.")],
    insider_epsilon: Annotated[
        float | None, typer.Option(help="The same against all other sites together.")
    ] = None,
    identity: SiteKey = None,
) -> None:
    """Permit less of a grant, and never less than is charged to it.

    Example: fmfl-secure ledger lower pilot/sites/site-1/ledger.sqlite --grant 1 --epsilon 2
    --reason 'the study became smaller'
    """
    from privacy import Ledger

    opened = Ledger(ledger, signer=_load_identity(ledger, identity))
    lowered = opened.lower(grant, epsilon=epsilon, insider_epsilon=insider_epsilon, reason=reason)
    status = opened.status()[grant - 1]
    say(f"grant {grant}: epsilon {lowered.epsilon:g}, {status.epsilon_left:.4f} of it is left")
    if lowered.lowered_from:
        say(
            f"the ledger's guarantee still counts {lowered.lowered_from:g}: trainings were charged "
            "to it before"
        )


@app.command("close")
def close(
    ledger: LedgerPlace,
    grant: Annotated[int, typer.Option(help="Number of the grant.", min=1)],
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the ledger.")],
    identity: SiteKey = None,
) -> None:
    """Let nothing more be reserved of a grant. What is reserved already goes on.

    Example: fmfl-secure ledger close pilot/sites/site-1/ledger.sqlite --grant 1
    --reason 'the study is over'
    """
    from privacy import Ledger

    opened = Ledger(ledger, signer=_load_identity(ledger, identity))
    opened.close_grant(grant, reason=reason)
    status = opened.status()[grant - 1]
    say(f"grant {grant} is closed; {status.epsilon_charged:.4f} of it stay spent or reserved")


@app.command("admit")
def admit(
    ledger: LedgerPlace,
    key: Annotated[
        str, typer.Argument(help="The identity: its identity.pem, or its public key (ed25519:...).")
    ],
    name: Annotated[str, typer.Option(help="Your own name for it.")],
    custodian: Annotated[
        bool, typer.Option("--custodian", help="It may grant, admit and dismiss as well.")
    ] = False,
    identity: SiteKey = None,
) -> None:
    """Let another identity charge this ledger: a site of another federation over the same people.

    Example: fmfl-secure ledger admit pilot/sites/site-1/ledger.sqlite
    second/sites/site-1/identity.pem --name 'second federation'
    """
    from privacy import Ledger

    opened = Ledger(ledger, signer=_load_identity(ledger, identity))
    admitted = _public_key(key)
    opened.admit(admitted.key, name=name, custodian=custodian)
    say(f"{name} may sign in this ledger: {admitted.fingerprint}")


@app.command("dismiss")
def dismiss(
    ledger: LedgerPlace,
    key: Annotated[
        str, typer.Argument(help="The identity: its identity.pem, or its public key (ed25519:...).")
    ],
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the ledger.")],
    identity: SiteKey = None,
) -> None:
    """Let an identity charge this ledger no more. What it charged stays.

    Example: fmfl-secure ledger dismiss pilot/sites/site-1/ledger.sqlite
    second/sites/site-1/identity.pem --reason 'the federation is over'
    """
    from privacy import Ledger

    opened = Ledger(ledger, signer=_load_identity(ledger, identity))
    dismissed = _public_key(key)
    opened.dismiss(dismissed.key, reason=reason)
    say(f"{dismissed.fingerprint} signs in this ledger no more")
    held = [r for r in opened.budget().reservations.values() if r.open]
    for reservation in (r for r in held if r.signer == dismissed.key.hex()):
        say(f"run {reservation.run} still holds budget: fmfl-secure ledger release closes it")


@app.command("anchor")
def anchor(
    ledger: LedgerPlace,
    output: Annotated[
        Path, typer.Option(help="File to add the anchor to; keep it outside the backup.")
    ],
    identity: SiteKey = None,
) -> None:
    """Sign the ledger's head for the data-protection officer to keep.

    Example: fmfl-secure ledger anchor pilot/sites/site-1/ledger.sqlite --output
    /media/officer/site-1.jsonl
    """
    from privacy import Ledger, LedgerError

    signed = Ledger(ledger, signer=_load_identity(ledger, identity)).anchor()
    try:
        with output.open("a", encoding="ascii") as file:
            file.write(signed.line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise LedgerError(f"cannot write the anchor to {output}: {error}") from error
    say(f"{output}: head {signed.head} of {signed.population!r}")


@app.command("recover")
def recover(
    ledger: LedgerPlace,
    anchor: Annotated[
        list[str],
        typer.Option(
            help="What the ledger lacks: file or folder of anchors, or SEQUENCE:DIGEST; may be "
            "repeated."
        ),
    ],
    reason: Annotated[str, typer.Option(help="What happened, for whoever reads the ledger.")],
    everything: Annotated[
        bool, typer.Option("--everything", help="Charge all there is: no grant affords any more.")
    ] = False,
    nothing: Annotated[
        bool, typer.Option("--nothing", help="Charge nothing: no training was lost.")
    ] = False,
    report: Annotated[
        list[Path] | None,
        typer.Option(help="report.json of a lost run, charged in full; may be repeated."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Or: how many trainings were lost, repeats included.", min=1)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of each.", min=1)] = None,
    sample_rate: Annotated[float | None, typer.Option(help="Sample rate of each step.")] = None,
    noise_multiplier: Annotated[
        float | None, typer.Option(help="Noise multiplier of each step.")
    ] = None,
    grant: Annotated[int, typer.Option(help="Grant to charge.", min=1)] = 1,
    identity: SiteKey = None,
) -> None:
    """Record what to charge for a history that the ledger lost, and unlock it.

    The officer's decision: in doubt, charge more. Say what was lost by the reports of the runs, by
    their figures, or charge everything.

    Example: fmfl-secure ledger recover pilot/sites/site-1/ledger.sqlite --anchor
    pilot/sites/site-1/lost-heads.jsonl --reason 'backup of Monday put back' --report
    pilot/run-3/report.json
    """
    from fmfl_secure.parties.ledger_recovery import lost_heads, lost_runs
    from privacy import Ledger, LedgerError, PoissonSampledGaussian

    figures = (rounds, steps, sample_rate, noise_multiplier)
    by_figures = any(figure is not None for figure in figures)
    if sum((everything, nothing, bool(report), by_figures)) != 1:
        raise LedgerError(
            "say what to charge in one way",
            hint="--report, or --rounds with --steps, --sample-rate and --noise-multiplier, or "
            "--everything, or --nothing",
        )
    opened = Ledger(ledger, signer=_load_identity(ledger, identity))
    losses: list[tuple[int, Event, int]] | None = None if everything else []
    if report:
        losses = [(grant, event, times) for event, times in lost_runs(report)]
    elif by_figures:
        if rounds is None or steps is None or sample_rate is None or noise_multiplier is None:
            raise LedgerError("--rounds, --steps, --sample-rate and --noise-multiplier go together")
        losses = [(grant, PoissonSampledGaussian(sample_rate, noise_multiplier, steps), rounds)]
    done = opened.recover(lost_heads(opened.budget(), anchor), reason=reason, losses=losses)
    say(f"settled {len(done.heads)} lost heads; charged:")
    for charge in done.charges:
        say(f"  grant {charge.grant}: {charge.rounds} x {_mechanism(charge.event)}")
    for status in opened.status():
        say(f"grant {status.grant.number}: {status.epsilon_left:.4f} of epsilon is left")


@app.command("release")
def release(
    ledger: LedgerPlace,
    run: Annotated[str, typer.Option(help="Id of the run, as ledger show has it.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the ledger.")],
    anchor: Annotated[
        list[Path],
        typer.Option(
            help="File or folder of anchors that others kept of this ledger; may be repeated."
        ),
    ],
    identity: SiteKey = None,
) -> None:
    """Close a run's reservation, without asking its coordinator, and for good.

    What was begun stays charged; only rounds that never began come back. The run can never begin
    another one here, so it goes on without this site.

    Example: fmfl-secure ledger release pilot/sites/site-1/ledger.sqlite --run 6a1f0c --reason
    'nobody here knows this run' --anchor /media/officer/site-1.jsonl
    """
    from privacy import Ledger, read_anchors

    opened = Ledger(ledger, signer=_load_identity(ledger, identity))
    kept = [each for path in anchor for each in read_anchors(path)]
    end = opened.head()[0]
    back = opened.release(run=run, reason=reason, anchors=kept)
    held = opened.budget().reservations[run]
    latest = max(a.sequence for a in kept if opened.budget().own_heads([a]))
    say(f"run {run} is closed here: {len(held.commits)} trainings stay charged, {back} come back")
    say(f"the latest anchor was of record {latest} of {end}: nobody vouches for what came after it")
    for status in opened.status():
        say(f"grant {status.grant.number}: {status.epsilon_left:.4f} of epsilon is left")


@app.command("export")
def export(
    ledger: LedgerPlace,
    output: Annotated[Path | None, typer.Option(help="File to write; default: print.")] = None,
    form: Annotated[
        Literal["json", "csv"],
        typer.Option("--format", help="json: everything, verifiable by itself; csv: the charges."),
    ] = "json",
) -> None:
    """Write out all that a ledger says: grants, runs, every charge with its date, signatures.

    Example: fmfl-secure ledger export pilot/sites/site-1/ledger.sqlite --output site-1.json
    """
    from fmfl_secure.storage.files import write_files
    from privacy import Ledger, LedgerError, export_csv, export_json

    records = Ledger(ledger).records()
    text = export_json(records) if form == "json" else export_csv(records)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        write_files(output.parent, {output.name: text.encode()})
    except OSError as error:
        raise LedgerError(f"cannot write {output}: {error}") from error
    say(f"{output}: {len(records)} records")


def _public_key(given: str) -> PublicIdentity:
    from aggregation import Identity, PublicIdentity

    if Path(given).is_file():
        return Identity.load(Path(given)).public
    return PublicIdentity.parse("admitted", given)


def _load_identity(ledger: str, identity: Path | None) -> Identity:
    from aggregation import Identity
    from privacy import LedgerError
    from privacy.storage import is_url

    if identity is None and is_url(ledger):
        raise LedgerError(
            "a ledger in a database has no key beside it", hint="Name the site's: --identity FILE"
        )
    return Identity.load(identity or Path(ledger).parent / "identity.pem")
