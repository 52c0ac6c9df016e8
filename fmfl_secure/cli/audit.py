"""`fmfl-secure audit`: an empirical check of the claimed epsilon."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fmfl_secure.cli._command import command
from fmfl_secure.cli._console import facts, progress, say
from fmfl_secure.cli._heartbeat import doing

if TYPE_CHECKING:
    from fmfl_secure.run.audit_record import AuditRecord

app = typer.Typer()

ABOVE_CLAIM_EXIT_CODE = 2


@command(
    app,
    answers="fmfl_secure.run.audit_record:AuditRecord",
    ends=lambda record: ABOVE_CLAIM_EXIT_CODE if record.above_claim else 0,
    acts="it trains on records of its own making, and charges no ledger",
)
def audit(
    target: Annotated[
        Path, typer.Argument(metavar="RUN-or-PLAN", help="A run's folder, or a federation.toml.")
    ],
    canaries: Annotated[
        int | None, typer.Option(help="Canaries; default: as many as the claim needs.", min=100)
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of the lower bound.", min=0.5, max=0.9999)] = (
        0.95
    ),
    against: Annotated[
        Literal["outsiders", "sites"],
        typer.Option(
            help="With distributed noise: whoever sees released sums, or all other sites together."
        ),
    ] = "outsiders",
    answers: Annotated[
        bool, typer.Option(help="Audit what a federation.toml asks, not what it trains.")
    ] = False,
    base: Annotated[
        Path | None, typer.Option(help="Base model folder, if it is elsewhere than at the run.")
    ] = None,
) -> AuditRecord:
    """Look for gross mistakes: train on canaries and bound epsilon from below.

    Uses no data and charges no budget. Of a run, it writes audit.json and the report anew. Exit
    code 2 if the bound is above the claimed epsilon: stop then. A bound below proves nothing.
    Example: fmfl-secure audit pilot/run-1
    """
    from rich.progress import Progress

    from fmfl_secure.audit import audit_answers, audit_run, audit_settings
    from fmfl_secure.errors import ConfigError
    from fmfl_secure.report import empirical
    from fmfl_secure.run.audit_record import AUDIT_NAME

    of_run = target.is_dir()
    if answers and of_run:
        raise ConfigError("--answers is for a federation.toml: answers are audited beforehand")
    if base is not None and not of_run:
        raise ConfigError(
            "--base is for a run's folder", hint="Set model.base in federation.toml instead."
        )
    with Progress(console=progress, transient=True) as shown:
        bar = shown.add_task("training on canaries", total=None)

        def on_step(step: int, steps: int) -> None:
            shown.update(bar, completed=step, total=steps)
            doing(f"training on canaries, step {step} of {steps}")

        if answers:
            record = audit_answers(
                target, confidence=confidence, canaries=canaries, against=against
            )
        elif of_run:
            record = audit_run(
                target,
                base=base,
                confidence=confidence,
                canaries=canaries,
                against=against,
                on_step=on_step,
            )
        else:
            record = audit_settings(
                target,
                confidence=confidence,
                canaries=canaries,
                against=against,
                on_step=on_step,
            )
    what = f"run {record.run}" if record.run else "these settings"
    facts(f"{record.federation}: empirical check of {what}", empirical.figures(record))
    for sentence in empirical.sentences(record):
        say(sentence)
    if of_run:
        say(f"written to {target / AUDIT_NAME} and {target / 'report.html'}")
    return record
