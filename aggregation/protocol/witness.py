"""Heads of journals from site to site, in a message that nobody on the way can take out or change.

Heads also travel through the server, which may withhold them. So a site's `exchange` message, which
it signs for one attempt and which every other site of the cohort asks for before it uploads, has
the head of its own journal, for the others to keep, and what it has kept of each of theirs. A site
whose journal was put back learns of it from any one honest site that it was ever in a cohort with,
and uploads nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.errors import CohortError, MessageError
from aggregation.protocol.exchange import Exchanged
from aggregation.protocol.journal import Journal
from aggregation.protocol.journal_heads import (
    HEAD_SIZE,
    JOURNAL,
    hold_to,
    pack_head,
    read_head,
    sign_head,
    unpack_head,
)
from aggregation.protocol.messages import MAX_HEADS
from aggregation.protocol.round import FixedCohort

_LOG = logging.getLogger("aggregation.protocol.witness")


class Witness(Protocol):
    """Keeps heads of others' journals for one party, durably."""

    def journals(self, of: PublicIdentity) -> Sequence[str]:
        """The latest head of each journal of a party."""
        ...

    def keep_journals(self, given: Iterable[tuple[PublicIdentity, str]]) -> None:
        """Keep heads, each given by the party that signed it; durable when this returns."""
        ...


def tell(
    cohort: FixedCohort,
    identity: Identity,
    journal: Journal,
    witness: Witness,
    to: Iterable[int],
) -> tuple[bytes, dict[int, bytes]]:
    """Signs the head of a site's own journal for all, and collects those it keeps of others'.

    Args:
        cohort: The verified cohort.
        identity: The site's key pair.
        journal: Its journal.
        witness: What it keeps of others'.
        to: Positions of those that it tells.

    Returns:
        The head of its own journal, empty of one in memory alone; by position those it keeps.

    Raises:
        JournalError: Its own cannot be read.
    """
    own = sign_head(journal, identity)
    kept = {place: _of_journals(witness, cohort.members[place].identity) for place in to}
    return (
        pack_head(own) if own else b"",
        {place: b"".join(pack_head(line) for line in lines) for place, lines in kept.items()},
    )


def _of_journals(witness: Witness, party: PublicIdentity) -> Sequence[str]:
    """The heads of a party's journals that are kept; those of its log of acts are none."""
    return [line for line in witness.journals(party) if read_head(line).of == JOURNAL][-MAX_HEADS:]


def hear(
    cohort: FixedCohort,
    own: PublicIdentity,
    journal: Journal,
    witness: Witness,
    exchanges: Iterable[Exchanged],
) -> None:
    """Hold a site's journal to what its cohort remembers, and keep what is told of the others'.

    Args:
        cohort: The verified cohort.
        own: The site.
        journal: Its journal.
        witness: What it keeps of others'.
        exchanges: The others' exchange messages, as it was handed them. All of them where all are
            neighbours; above that, of those that chose it, who cannot be known beforehand.

    Raises:
        JournalError: The journal lacks what somebody has seen of it.
        RefusedError: A message is missing.
    """
    place, heard = cohort.position(own.name), {own.name}
    remembered: list[str] = []
    given: list[tuple[PublicIdentity, str]] = []
    for sent in exchanges:
        sender = cohort.members[sent.sender].identity
        heard.add(sender.name)
        remembered += _read(own, sent.parts[place].heads, sender)
        given += [(sender, line) for line in _read(sender, sent.head, sender)]
    missing = [name for name in cohort.names if name not in heard]
    if missing and not cohort.chooses:
        raise CohortError(f"the exchange message of {', '.join(missing)} is missing")
    hold_to(journal, own, remembered)
    witness.keep_journals(given)


def _read(owner: PublicIdentity, heads: bytes, sender: PublicIdentity) -> list[str]:
    """Heads that their owner signed. Others are passed over: else one liar could stop a site."""
    lines = []
    for start in range(0, len(heads), HEAD_SIZE):
        try:
            lines.append(unpack_head(owner, heads[start : start + HEAD_SIZE]).line)
        except MessageError:
            _LOG.warning("%s tells a head that %s did not sign", sender.name, owner.name)
    return lines
