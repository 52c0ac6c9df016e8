"""`fmfl-secure ledger`: a population's privacy budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from fmfl_secure.cli._console import console, say

app = typer.Typer(
    help="A population's privacy budget.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("show")
def show(path: Annotated[Path, typer.Argument(help="A ledger file.")]) -> None:
    """Show a ledger: grants, runs, what is spent and left.

    Example: fmfl-secure ledger show pilot/sites/site-1/ledger.sqlite
    """
    from privacy.ledger import Ledger

    budget = Ledger(path).budget()
    say(f"population {budget.population!r}, unit {budget.unit!r}, add or remove one unit")
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
    console.print(runs)


@app.command("verify")
def verify(
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
    say(f"{path} verifies: {sequence} records, head {sequence}:{digest}")


@app.command("grant")
def grant(
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
    say(f"grant {granted.number}: epsilon {epsilon:g} at delta {delta:g}")
