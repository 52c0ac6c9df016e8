"""Evidence that an officer brings to a recovery: heads that a ledger lost, runs behind them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from fmfl_secure.errors import RunError
from fmfl_secure.outside import MOST_DOCUMENT, read_regular
from fmfl_secure.planning.terms import terms_of
from fmfl_secure.run.record import decode_record
from fmfl_secure.settings.federation import decode_config
from privacy import Budget, Event, is_head, read_anchors


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


def lost_runs(reports: Iterable[Path]) -> list[tuple[Event, int]]:
    """Reads the largest cost of runs from their reports: each event, and how often, with repeats.

    Shares of distributed noise are charged as what they were: as a local mechanism with the sum's
    noise they would leave out what the other sites together learn, and how noise can fail.

    Raises:
        RunError: A report cannot be read, or is of a run without privacy.
    """
    found = []
    for path in reports:
        try:
            record = decode_record(read_regular(path, most_bytes=MOST_DOCUMENT))
        except OSError as error:
            raise RunError(
                f"cannot read the report {path}: {error.strerror or type(error).__name__}",
                hint="Name the report.json of a run that was lost; or charge by figures.",
            ) from error
        config = decode_config(msgspec.json.encode(record.settings))
        # The same at every site: no population is in it. Training and answers, whichever there are.
        terms = terms_of(config, config.sites[0], record.encryption.parameters)
        if not terms or not config.privacy.noise_mechanism.private:
            raise RunError(
                f"{path} is of a run without privacy: its cost has no bound",
                hint="Charge everything: --everything",
            )
        found += [(each.event, each.trainings) for each in terms]
    return found
