"""Heads of a ledger as others keep them, `SEQUENCE:DIGEST`, and what a missing one means."""

from __future__ import annotations

import re
from collections.abc import Sequence

from privacy.errors import LedgerError, LedgerLocked

_HEAD = re.compile(r"[1-9][0-9]{0,17}:[0-9a-f]{64}", re.ASCII)


def is_head(text: str) -> bool:
    """Whether a text has the form `SEQUENCE:DIGEST`."""
    return _HEAD.fullmatch(text) is not None


def parse_head(head: str) -> tuple[int, str]:
    """Sequence and digest of `SEQUENCE:DIGEST`.

    Raises:
        LedgerError: It is not in that form.
    """
    if not (isinstance(head, str) and is_head(head)):
        raise LedgerError(f"{str(head)[:90]!r} is not an anchor, expected SEQUENCE:DIGEST")
    sequence, _, digest = head.partition(":")
    return int(sequence), digest


def missing_heads(lacking: Sequence[str], *, of: int, end: int) -> LedgerLocked:
    """The refusal of a ledger that lacks heads that were seen of it.

    Args:
        lacking: Which, at least one.
        of: How many were looked for.
        end: How many records the ledger has.
    """
    latest = max(lacking, key=lambda head: parse_head(head)[0])
    sequence = parse_head(latest)[0]
    happened = (
        f"the ledger ends at record {end}, a head that was seen of it is at {sequence}: it was "
        "truncated or rolled back"
        if sequence > end
        else f"record {sequence} is not the one whose head was seen: it was forked"
    )
    return LedgerLocked(
        f"{happened} ({len(lacking)} of {of} heads are missing, the latest {latest})",
        heads=tuple(lacking),
        hint="Put the ledger back that the heads are of. Where it is lost, the data-protection "
        "officer records what to charge for it: fmfl-secure ledger recover",
    )
