"""`fmfl-secure ledger grant`, `lower` and `close`: what a custodian permits of a budget.

`cli` imports it for its commands. `grant` on a site's folder shows the proposal and makes it once
it is accepted; on a ledger it permits what options say.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.acting import Act, Given, beside_ledger
from fmfl_secure.cli.answers.ledger import GrantChanged, Granted, GrantShown, ProposalShown
from fmfl_secure.cli.ledger import (
    LedgerPlace,
    SiteKey,
    app,
    grant_shown,
    ledger_at,
    open_to_sign,
    show_standing,
)
from fmfl_secure.report.rounding import left_fine, spent_fine, typed

if TYPE_CHECKING:
    from privacy import Decided, Grant


_KEPT = ("purpose", "delta_reason", "for_plan", "rationale", "decided_by", "review_on")


def _grants(given: Given) -> bool:
    """Whether anything is granted, and not only shown."""
    return bool(given["accept"]) or given["for_plan"] is not None or given["epsilon"] is not None


@command(
    app,
    "grant",
    answers=Granted,
    acts=Act(
        "ledger grant",
        beside_ledger,
        keeps=_KEPT,
        when=_grants,
    ),
)
def grant(
    ledger: Annotated[
        str,
        typer.Argument(
            metavar="LEDGER",
            help="A site's folder; for figures of one's own also a ledger's file or URL.",
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
    rationale: Annotated[
        str, typer.Option(help="Why this epsilon; the ledger and reports keep it.")
    ] = "",
    decided_by: Annotated[str, typer.Option(help="Who decided that: a person, a board.")] = "",
    review_on: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The day by which somebody looks at it again."),
    ] = None,
    identity: SiteKey = None,
) -> Granted:
    """Permit a budget, or more of it: the custodian's decision. Grants add up, in both numbers.

    The first grant is proposed by the settings: alone, this shows the amount and what it means for
    one person, and --accept grants it. More is granted by --epsilon, --delta and --purpose.

    Example: fmfl-secure ledger grant pilot/sites/site-1 --accept
    """
    from privacy import Decided, LedgerError

    said = Decided(rationale.strip(), decided_by.strip(), review_on and review_on.date())
    if for_plan is not None:
        if (
            accept
            or epsilon is not None
            or delta is not None
            or (cap_epsilon is None) != (cap_delta is None)
        ):
            raise LedgerError("--for takes --purpose, --cap-epsilon with --cap-delta, or neither")
        return _grant_run(ledger, for_plan, purpose or "", cap_epsilon, cap_delta, said)
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
        return _show_proposal(ledger, said, accept=accept)
    if accept:
        raise LedgerError("--accept grants what is proposed, and takes no figures")
    opened = open_to_sign(ledger, identity)
    granted = opened.grant(
        epsilon=epsilon,
        delta=delta,
        purpose=purpose,
        insider_epsilon=insider_epsilon,
        population_size=population_size,
        delta_reason=delta_reason,
        decided=said,
    )
    _say_grant(granted)
    show_standing(opened.budget())
    return Granted(granted=grant_shown(opened.status()[granted.number - 1]), proposal=None)


def _grant_run(
    place: str,
    settings: Path,
    purpose: str,
    epsilon: float | None,
    delta: float | None,
    said: Decided,
) -> Granted:
    from fmfl_secure.parties.first_grant import grant_for

    cap = None if epsilon is None or delta is None else (epsilon, delta)
    granted = grant_for(Path(place), settings, purpose=purpose, cap=cap, said=said)
    for each in granted:
        _say_grant(each)
    fixed = granted[0].cap
    if fixed is not None:
        say(
            f"all exact grants of this ledger come to epsilon {fixed[0]:g} at delta "
            f"{fixed[1]:g} at most, from now on and for good; its guarantee counts that"
        )
    first, *besides = (_as_it_stands(Path(place), each) for each in granted)
    return Granted(granted=first, proposal=None, cap=fixed, besides=tuple(besides))


def _as_it_stands(folder: Path, granted: Grant) -> GrantShown:
    from privacy import Ledger

    ledger = Ledger(ledger_at(str(folder)))
    return grant_shown(ledger.status()[granted.number - 1])


def _say_grant(granted: Grant) -> None:
    insider = granted.insider_epsilon
    seen = "" if insider is None else f"; against all other sites {insider:g}"
    say(f"grant {granted.number}: epsilon {granted.epsilon:g} at delta {granted.delta:g}{seen}")
    if granted.exact is not None:
        say(
            f"  for {granted.exact.rounds} rounds of one run as its settings fix it, and no other: "
            f"{granted.purpose}"
        )


def _show_proposal(place: str, said: Decided, *, accept: bool) -> Granted:
    """Say what a site's first grant would be and what it means; make it, if that is accepted."""
    from fmfl_secure.parties import first_grant
    from fmfl_secure.report.verdict import verdict
    from privacy.storage import is_url

    folder = Path(place)
    if is_url(place) or not folder.is_dir():
        folder = Path() if is_url(place) else folder.parent
    given = first_grant.proposed(folder).said(said)
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
    for sentence in given.decided.sentences():
        say(f"  {sentence[0].lower()}{sentence[1:]}")
    insiders = given.insider_epsilon
    proposal = ProposalShown(
        site=given.site,
        population=given.population,
        unit=given.unit,
        population_size=given.population_size,
        epsilon=given.epsilon,
        delta=given.delta,
        meaning=verdict(given.epsilon, given.delta).sentence,
        insider_epsilon=insiders,
        insider_meaning="" if insiders is None else verdict(insiders, given.delta).sentence,
        exact=given.run is not None,
        delta_reason=given.delta_reason,
    )
    if not accept:
        say("nothing is granted yet: --accept grants this; --epsilon and so on, another amount")
        return Granted(granted=None, proposal=proposal)
    granted = first_grant.accept(folder, given)
    for each in granted:
        _say_grant(each)
    first, *besides = (_as_it_stands(folder, each) for each in granted)
    return Granted(granted=first, proposal=proposal, besides=tuple(besides))


@command(
    app, "lower", answers=GrantChanged, acts=Act("ledger lower", beside_ledger, keeps=("reason",))
)
def lower(
    ledger: LedgerPlace,
    grant: Annotated[int, typer.Option(help="Number of the grant.", min=1)],
    epsilon: Annotated[float, typer.Option(help="What it permits from now on.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the ledger.")],
    insider_epsilon: Annotated[
        float | None, typer.Option(help="The same against all other sites together.")
    ] = None,
    identity: SiteKey = None,
) -> GrantChanged:
    """Permit less of a grant, and never less than is charged to it.

    Example: fmfl-secure ledger lower pilot/sites/site-1/ledger.sqlite --grant 1 --epsilon 2
    --reason 'the study became smaller'
    """
    opened = open_to_sign(ledger, identity)
    lowered = opened.lower(grant, epsilon=epsilon, insider_epsilon=insider_epsilon, reason=reason)
    status = opened.status()[grant - 1]
    say(
        f"grant {grant}: epsilon {typed(lowered.epsilon)}, "
        f"{left_fine(status.epsilon_left)} of it is left"
    )
    if lowered.lowered_from:
        say(
            f"the ledger's guarantee still counts {lowered.lowered_from:g}: trainings were charged "
            "to it before"
        )
    return GrantChanged(changed=grant_shown(status))


@command(
    app, "close", answers=GrantChanged, acts=Act("ledger close", beside_ledger, keeps=("reason",))
)
def close(
    ledger: LedgerPlace,
    grant: Annotated[int, typer.Option(help="Number of the grant.", min=1)],
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the ledger.")],
    identity: SiteKey = None,
) -> GrantChanged:
    """Let nothing more be reserved of a grant. What is reserved already goes on.

    Example: fmfl-secure ledger close pilot/sites/site-1/ledger.sqlite --grant 1
    --reason 'the study is over'
    """
    opened = open_to_sign(ledger, identity)
    opened.close_grant(grant, reason=reason)
    status = opened.status()[grant - 1]
    say(
        f"grant {grant} is closed; {spent_fine(status.epsilon_charged)} of it stay spent or "
        "reserved"
    )
    return GrantChanged(changed=grant_shown(status))
