"""`fmfl-secure ledger`: a population's privacy budget, for its custodian and its officer.

`cli` registers the group `ledger`, to which `cli.afford`, `cli.ledger_grants` and
`cli.ledger_signers` add their commands, with `ledger_at` and `open_to_sign` from here.
"""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Column, Table

from fmfl_secure.cli._command import Group, command
from fmfl_secure.cli._console import console, say
from fmfl_secure.cli.acting import READS, Act, beside_ledger
from fmfl_secure.cli.answers.base import shown
from fmfl_secure.cli.answers.ledger import (
    ChargeShown,
    GrantShown,
    HeadAnchored,
    LedgerExported,
    LedgerShown,
    LedgerVerified,
    RecoveryShown,
    RunShown,
    SignerShown,
)
from fmfl_secure.report.rounding import left_fine, spent_fine, typed

if TYPE_CHECKING:
    from privacy import Budget, Charge, Event, GrantStatus, Ledger, Reservation

app = typer.Typer(
    cls=Group, help="A population's privacy budget.", no_args_is_help=True, rich_markup_mode=None
)


def ledger_at(place: str) -> str:
    """Where a ledger is: the place itself, or what `site.toml` says if that is a site's folder."""
    from fmfl_secure.settings.federation import load_site
    from privacy.storage import is_url

    folder = Path(place)
    if is_url(place) or not folder.is_dir():
        return place
    return str(load_site(folder / "site.toml").budget.ledger_from(folder))


LedgerPlace = Annotated[
    str,
    typer.Argument(
        metavar="LEDGER",
        help="A ledger's file, its site's folder, or its PostgreSQL URL.",
        callback=ledger_at,
    ),
]
SiteKey = Annotated[
    Path | None,
    typer.Option(help="The site's key; default: identity.pem beside the ledger's file."),
]


@command(app, "show", answers=LedgerShown, acts=READS)
def show(ledger: LedgerPlace) -> LedgerShown:
    """Show a ledger: grants, runs, what is spent and left.

    Example: fmfl-secure ledger show pilot/sites/site-1/ledger.sqlite
    """
    from privacy import Ledger

    budget = Ledger(ledger).budget()
    size = budget.population_size
    say(f"population {budget.population!r}, unit {budget.unit!r}, add or remove one unit")
    say("population size not declared" if size is None else f"{size:,} units declared")
    whole = Column("purpose", overflow="fold")  # not cut where a word is longer than the column
    grants = Table("grant", "date", "epsilon", "delta", "spent", "charged", "left", whole)
    for status in budget.status():
        grants.add_row(
            str(status.grant.number),
            status.grant.at[:10],
            typed(status.grant.epsilon),
            f"{status.grant.delta:g}",
            spent_fine(status.epsilon_committed),
            spent_fine(status.epsilon_charged),
            left_fine(status.epsilon_left),
            escape(status.grant.purpose),
        )
    console.print(grants)
    show_standing(budget)
    _show_insiders(budget)
    _show_signers(budget)
    run_id = Column("run, begun", no_wrap=True)  # in one: apart, 80 columns are too few
    named = any(held.dataset for held in budget.reservations.values())
    whose = ["data set"] if named else []
    runs = Table(run_id, "grant", *whose, "purpose", "trained", "reserved", "state")
    for held in budget.reservations.values():
        dataset = [escape(held.dataset.name) if held.dataset else ""] if named else []
        runs.add_row(
            f"{held.run}\n{held.at[:10]}",
            str(held.grant),
            *dataset,
            escape(held.purpose),
            str(len(held.commits)),
            str(held.rounds),
            _state(held),
        )
    console.print(runs)
    _show_exceptions(budget)
    return LedgerShown(
        population=budget.population,
        unit=budget.unit,
        population_size=size,
        grants=tuple(grant_shown(status) for status in budget.status()),
        runs=tuple(_run_shown(held) for held in budget.reservations.values()),
        signers=tuple(shown(each, SignerShown) for each in budget.signers),
        recoveries=tuple(
            RecoveryShown(
                at=each.at,
                reason=each.reason,
                charges=tuple(charge_shown(charge) for charge in each.charges),
            )
            for each in budget.recoveries
        ),
        non_private=tuple(budget.non_private),
    )


def grant_shown(status: GrantStatus) -> GrantShown:
    """Makes a grant's answer, for programs."""
    grant = status.grant
    return GrantShown(
        grant=grant.number,
        at=grant.at,
        purpose=grant.purpose,
        epsilon=grant.epsilon,
        delta=grant.delta,
        spent=status.epsilon_committed,
        held=status.epsilon_charged,
        left=status.epsilon_left,
        insider_epsilon=grant.insider_epsilon,
        insider_spent=status.insider_epsilon_committed,
        insider_held=status.insider_epsilon_charged,
        delta_reason=grant.delta_reason,
        objection=status.objection,
        lowered_from=grant.lowered_from,
        closed=grant.closed,
        exact_plan=grant.exact.plan if grant.exact else "",
        is_used=status.is_used,
        rationale=grant.decided.rationale,
        decided_by=grant.decided.by,
        review_on="" if grant.decided.review_on is None else str(grant.decided.review_on),
        review_is_due=grant.decided.is_due(_today()),
    )


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def charge_shown(charge: Charge) -> ChargeShown:
    """A charge for what was lost, for programs."""
    return ChargeShown(
        grant=charge.grant, rounds=charge.rounds, mechanism=mechanism_in_words(charge.event)
    )


def _run_shown(held: Reservation) -> RunShown:
    return RunShown(
        run=held.run,
        at=held.at,
        grant=held.grant,
        dataset=held.dataset.name if held.dataset else "",
        purpose=held.purpose,
        trained=len(held.commits),
        reserved=held.rounds,
        open=held.open,
        expires=held.expires,
        released=held.released,
    )


def _state(held: Reservation) -> str:
    if held.open:
        return f"open until {held.expires[:10]}" if held.expires else "open"
    return escape(f"closed: {held.released}") if held.released else "closed"


def show_standing(budget: Budget) -> None:
    """Say what is special about each grant."""
    for status in budget.status():
        grant = status.grant
        for sentence in grant.decided.sentences(_today()):
            say(f"grant {grant.number}: {sentence[0].lower()}{sentence[1:]}")
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
                f"{status.grant.insider_epsilon:g} against all other sites together, "
                f"{spent_fine(spent)} are spent and {spent_fine(charged)} charged"
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
            f"{c.rounds} x {mechanism_in_words(c.event)} on grant {c.grant}"
            for c in recovery.charges
        )
        say(f"{recovery.at[:10]}: for a lost history ({recovery.reason}): {charged or 'nothing'}")
    for run in budget.non_private:
        say(f"run {run} used data without privacy: nothing is left of any grant")


def mechanism_in_words(event: Event) -> str:
    """Describes the event that was charged, for people."""
    from privacy import NonPrivate, PoissonSampledSkellam

    if isinstance(event, NonPrivate):
        return "a cost without bound"
    steps = f"{event.steps} steps at rate {event.sample_rate:g}, noise {event.noise_multiplier:.4f}"
    if isinstance(event, PoissonSampledSkellam):
        return f"{steps} in shares ({event.seen_by_sites().noise_multiplier:.4f} to other sites)"
    return steps


@command(app, "verify", answers=LedgerVerified, acts=READS)
def verify(
    ledger: Annotated[
        str,
        typer.Argument(
            metavar="LEDGER",
            help="A ledger's file, its site's folder, its PostgreSQL URL, or an export (.json).",
            callback=ledger_at,
        ),
    ],
    head: Annotated[
        str | None, typer.Option(help="A head seen earlier, SEQUENCE:DIGEST, that must be in it.")
    ] = None,
    anchor: Annotated[
        list[Path] | None,
        typer.Option(help="File or folder of anchors that must be in it; may be repeated."),
    ] = None,
) -> LedgerVerified:
    """Verify a ledger's chain, signatures and arithmetic; exit code 0 only if all hold.

    Example: fmfl-secure ledger verify pilot/sites/site-1/ledger.sqlite --anchor /media/officer
    """
    from aggregation import PublicIdentity
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
    whose = PublicIdentity("site", budget.public_key).fingerprint
    kept = budget.require_anchors([a for path in anchor or () for a in read_anchors(path)])
    if anchor and not kept:
        raise LedgerError(
            f"none of the anchors is of this ledger, of population {budget.population!r} under "
            f"{whose}",
            hint="Name anchors that were made of it, or the ledger that these were made of.",
        )
    if head is not None:
        budget.require_heads([head])
    say(f"population {budget.population!r}, opened by {whose}")
    say(f"{without_secrets(ledger)} verifies: {len(records)} records, head {records[-1].head}")
    if kept:
        say(f"it holds {kept} anchored heads")
    return LedgerVerified(
        ledger=without_secrets(ledger),
        records=len(records),
        head=records[-1].head,
        anchored_heads=kept,
        population=budget.population,
        identity=whose,
    )


@command(
    app,
    "anchor",
    answers=HeadAnchored,
    acts=Act("ledger anchor", beside_ledger, keeps=("output",), tells=("head",)),
)
def anchor(
    ledger: LedgerPlace,
    output: Annotated[
        Path, typer.Option(help="File to add the anchor to; keep it outside the backup.")
    ],
    identity: SiteKey = None,
) -> HeadAnchored:
    """Sign the ledger's head for the data-protection officer to keep.

    Example: fmfl-secure ledger anchor pilot/sites/site-1/ledger.sqlite --output
    /media/officer/site-1.jsonl
    """
    from fmfl_secure.errors import RunError, os_failure
    from privacy import read_anchors

    if output.exists():
        read_anchors(output)  # a line is added to anchors, and to nothing else
    signed = open_to_sign(ledger, identity).anchor()
    try:
        with output.open("a", encoding="ascii") as file:
            file.write(signed.line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise os_failure(RunError, f"cannot write the anchor to {output}", error) from error
    say(f"{output}: head {signed.head} of {signed.population!r}")
    return HeadAnchored(output=str(output), head=signed.head, population=signed.population)


@command(
    app,
    "export",
    answers=LedgerExported,
    acts=Act("ledger export", beside_ledger, keeps=("output", "form")),
)
def export(
    ledger: LedgerPlace,
    output: Annotated[Path | None, typer.Option(help="File to write; default: print.")] = None,
    form: Annotated[
        Literal["json", "csv"],
        typer.Option("--format", help="json: everything, verifiable by itself; csv: the charges."),
    ] = "json",
) -> LedgerExported:
    """Write out all that a ledger says: grants, runs, every charge with its date, signatures.

    Example: fmfl-secure ledger export pilot/sites/site-1/ledger.sqlite --output site-1.json
    """
    from fmfl_secure.storage.files import require_new, write_output
    from privacy import Ledger, export_csv, export_json

    if output is not None:
        require_new(output)
    records = Ledger(ledger).records()
    text = export_json(records) if form == "json" else export_csv(records)
    if output is None:
        say(text.removesuffix("\n"))
        return LedgerExported(form=form, records=len(records), output="", text=text)
    write_output(output, text.encode())
    say(f"{output}: {len(records)} records")
    return LedgerExported(form=form, records=len(records), output=str(output), text="")


def open_to_sign(ledger: str, identity: Path | None) -> Ledger:
    """A ledger, and the site's key: the one that was named, or the one beside its file."""
    from aggregation import Identity
    from privacy import Ledger, LedgerError
    from privacy.storage import is_url

    if identity is None and is_url(ledger):
        raise LedgerError(
            "a ledger in a database has no key beside it", hint="Name the site's: --identity FILE"
        )
    beside = Path(ledger) if Path(ledger).is_dir() else Path(ledger).parent
    return Ledger(ledger_at(ledger), signer=Identity.load(identity or beside / "identity.pem"))
