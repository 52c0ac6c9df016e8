"""`fmfl-secure ledger admit`, `dismiss`, `recover` and `release`: who signs, and what was lost.

`cli` imports it for its commands; each opens the ledger to sign, writes one record, and says what
is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.acting import Act, beside_ledger
from fmfl_secure.cli.answers.ledger import (
    GrantShown,
    LedgerRecovered,
    RunReleased,
    SignerAdmitted,
    SignerDismissed,
)
from fmfl_secure.cli.ledger import (
    LedgerPlace,
    SiteKey,
    app,
    charge_shown,
    grant_shown,
    mechanism_in_words,
    open_to_sign,
)
from fmfl_secure.report.rounding import left_fine

if TYPE_CHECKING:
    from aggregation import PublicIdentity
    from privacy import Event, Ledger


SignerKey = Annotated[
    str, typer.Argument(help="The identity: its identity.pem, or its public key (ed25519:...).")
]


@command(
    app,
    "admit",
    answers=SignerAdmitted,
    acts=Act("ledger admit", beside_ledger, keeps=("key", "name"), tells=("fingerprint",)),
)
def admit(
    ledger: LedgerPlace,
    key: SignerKey,
    name: Annotated[str, typer.Option(help="Your own name for it.")],
    custodian: Annotated[
        bool, typer.Option("--custodian", help="It may grant, admit and dismiss as well.")
    ] = False,
    identity: SiteKey = None,
) -> SignerAdmitted:
    """Let another identity charge this ledger: a site of another federation over the same people.

    Example: fmfl-secure ledger admit pilot/sites/site-1/ledger.sqlite
    second/sites/site-1/identity.pem --name 'second federation'
    """
    opened, admitted = open_to_sign(ledger, identity), _public_key(key)
    opened.admit(admitted.key, name=name, custodian=custodian)
    say(f"{name} may sign in this ledger: {admitted.fingerprint}")
    return SignerAdmitted(name=name, fingerprint=admitted.fingerprint, custodian=custodian)


@command(
    app,
    "dismiss",
    answers=SignerDismissed,
    acts=Act("ledger dismiss", beside_ledger, keeps=("key", "reason"), tells=("fingerprint",)),
)
def dismiss(
    ledger: LedgerPlace,
    key: SignerKey,
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the ledger.")],
    identity: SiteKey = None,
) -> SignerDismissed:
    """Let an identity charge this ledger no more. What it charged stays.

    Example: fmfl-secure ledger dismiss pilot/sites/site-1/ledger.sqlite
    second/sites/site-1/identity.pem --reason 'the federation is over'
    """
    opened, dismissed = open_to_sign(ledger, identity), _public_key(key)
    opened.dismiss(dismissed.key, reason=reason)
    say(f"{dismissed.fingerprint} signs in this ledger no more")
    held = [r for r in opened.budget().reservations.values() if r.open]
    runs = tuple(r.run for r in held if r.signer == dismissed.key.hex())
    for run in runs:
        say(f"run {run} still holds budget: fmfl-secure ledger release closes it")
    return SignerDismissed(fingerprint=dismissed.fingerprint, open_runs=runs)


@command(
    app,
    "recover",
    answers=LedgerRecovered,
    acts=Act("ledger recover", beside_ledger, keeps=("anchor", "reason", "report")),
)
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
) -> LedgerRecovered:
    """Record what to charge for a history that the ledger lost, and unlock it.

    The officer's decision: in doubt, charge more. Say what was lost by the reports of the runs, by
    their figures, or charge everything.

    Example: fmfl-secure ledger recover pilot/sites/site-1/ledger.sqlite --anchor
    pilot/sites/site-1/lost-heads.jsonl --reason 'backup of Monday put back' --report
    pilot/run-3/report.json
    """
    from fmfl_secure.parties.ledger_recovery import lost_heads, lost_runs
    from fmfl_secure.report.on_its_word import unsigned_parts
    from fmfl_secure.report.signed import read_report
    from privacy import LedgerError, PoissonSampledGaussian

    figures = (rounds, steps, sample_rate, noise_multiplier)
    by_figures = any(figure is not None for figure in figures)
    if sum((everything, nothing, bool(report), by_figures)) != 1:
        raise LedgerError(
            "say what to charge in one way",
            hint="--report, or --rounds with --steps, --sample-rate and --noise-multiplier, or "
            "--everything, or --nothing",
        )
    opened = open_to_sign(ledger, identity)
    losses: list[tuple[int, Event, int]] | None = None if everything else []
    if report:
        for each in report:
            # Whoever sent it may have made it cost less than sites signed.
            for text in unsigned_parts(read_report(each), ended=False)[:-1]:
                say(f"not signed in {each}: {text}")
        losses = [(grant, event, times) for event, times in lost_runs(report)]
    elif by_figures:
        if rounds is None or steps is None or sample_rate is None or noise_multiplier is None:
            raise LedgerError("--rounds, --steps, --sample-rate and --noise-multiplier go together")
        losses = [(grant, PoissonSampledGaussian(sample_rate, noise_multiplier, steps), rounds)]
    done = opened.recover(lost_heads(opened.budget(), anchor), reason=reason, losses=losses)
    say(f"settled {len(done.heads)} lost heads; charged:")
    for charge in done.charges:
        say(f"  grant {charge.grant}: {charge.rounds} x {mechanism_in_words(charge.event)}")
    return LedgerRecovered(
        heads=len(done.heads),
        charges=tuple(charge_shown(charge) for charge in done.charges),
        grants=_say_left(opened),
    )


@command(
    app,
    "release",
    answers=RunReleased,
    acts=Act("ledger release", beside_ledger, keeps=("run", "reason", "anchor")),
)
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
) -> RunReleased:
    """Close a run's reservation, without asking its coordinator, and for good.

    What was begun stays charged; only rounds that never began come back. The run can never begin
    another one here, so it goes on without this site.

    Example: fmfl-secure ledger release pilot/sites/site-1/ledger.sqlite --run 6a1f0c --reason
    'nobody here knows this run' --anchor /media/officer/site-1.jsonl
    """
    from privacy import read_anchors

    opened = open_to_sign(ledger, identity)
    kept = [each for path in anchor for each in read_anchors(path)]
    end = opened.head()[0]
    back = opened.release(run=run, reason=reason, anchors=kept)
    held = opened.budget().reservations[run]
    latest = max(a.sequence for a in kept if opened.budget().own_heads([a]))
    say(f"run {run} is closed here: {len(held.commits)} trainings stay charged, {back} come back")
    say(f"the latest anchor was of record {latest} of {end}: nobody vouches for what came after it")
    return RunReleased(
        run=run,
        charged=len(held.commits),
        returned=back,
        anchored_record=latest,
        last_record=end,
        grants=_say_left(opened),
    )


def _say_left(ledger: Ledger) -> tuple[GrantShown, ...]:
    for status in ledger.status():
        say(f"grant {status.grant.number}: {left_fine(status.epsilon_left)} of epsilon is left")
    return tuple(grant_shown(status) for status in ledger.status())


def _public_key(given: str) -> PublicIdentity:
    from aggregation import Identity, PublicIdentity

    if Path(given).is_file():
        return Identity.load(Path(given)).public
    return PublicIdentity.parse("admitted", given)
