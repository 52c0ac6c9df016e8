"""What an officer brings to a recovery: the heads that a ledger lost, and the runs behind them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fmfl_secure.errors import RunError
from fmfl_secure.run.record import decode_record
from privacy import Budget, PoissonSampledGaussian, is_head, read_anchors


def lost_heads(budget: Budget, given: Iterable[str]) -> list[str]:
    """Of the heads and anchors given, those that the ledger lacks.

    Args:
        budget: The ledger's state.
        given: Heads as `SEQUENCE:DIGEST`, and files or folders of anchors. Anchors of other
            ledgers are passed over.

    Raises:
        LedgerError: One cannot be read.
    """
    heads: set[str] = set()
    for each in given:
        if is_head(each):
            heads.add(each)
        else:
            heads.update(budget.own_heads(read_anchors(Path(each))))
    return sorted(head for head in heads if not budget.holds(head))


def lost_runs(reports: Iterable[Path]) -> list[tuple[PoissonSampledGaussian, int]]:
    """What runs cost at most, by their reports: the round's event, and rounds with repeats.

    Raises:
        RunError: A report cannot be read, or is of a run without privacy.
    """
    found = []
    for path in reports:
        try:
            mechanism = decode_record(path.read_bytes()).mechanism
        except OSError as error:
            raise RunError(f"cannot read the report {path}: {error}") from error
        if not mechanism.noise_mechanism.private:
            raise RunError(
                f"{path} is of a run without privacy: its cost has no bound",
                hint="Charge everything: --everything",
            )
        event = PoissonSampledGaussian(
            mechanism.sample_rate, mechanism.noise_multiplier, mechanism.steps_per_round
        )
        found.append((event, mechanism.rounds + mechanism.repeats))
    return found
