"""Heads of ledgers and journals: a party's own are held to what others kept; a site keeps theirs.

Before a site charges anything it asks the server, and brings what it kept itself: so a server that
lost its record learns it again from the sites, and a site that was put back from a backup learns
of it from whichever party remembers.

`runtime.agents.site` calls `SiteAnchors`: `bring` before a run, `settle` before it reserves,
`share` after each charge. Every agent calls `check_journal` before a word that its journal must
not forget and `share_journal` before the word leaves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from fmfl_secure.parties.acts import ActLog
from fmfl_secure.parties.workspace import Members
from fmfl_secure.runtime.anchor_registry import (
    ALL,
    NOW,
    AnchorsForSite,
    parties_with_journals,
    short_name,
)
from fmfl_secure.runtime.transport import ServerTransport
from fmfl_secure.storage.anchor_store import AnchorStore, HeadsFull

_LOG = logging.getLogger("fmfl_secure.runtime.agents.anchors")
_JSON_BYTES = 2  # at most so many for one of a line, which is ASCII with escaped quotes


class JournalOwner(Protocol):
    """A party as far as its journal's heads go."""

    def journal_head(self) -> str | None:
        """Its journal's head, signed; None of one in memory alone."""
        ...

    def hold_journal(self, heads: Iterable[str]) -> None:
        """Check its journal against what others kept."""
        ...

    def kept_open(self) -> AbstractContextManager[None]:
        """Its journal stays open inside: for the calls of one assignment."""
        ...


def check_journal(party: JournalOwner, transport: ServerTransport) -> None:
    """Hold a party's journal to what others kept, before a word that it must not give twice.

    Raises:
        AggregationError: It lacks a head that somebody has seen.
    """
    if party.journal_head() is not None:
        party.hold_journal(transport.heads(known=False, since=NOW).journals)


def share_journal(party: JournalOwner, transport: ServerTransport) -> None:
    """Give the server the head of a party's journal, before the word leaves that it holds.

    Raises:
        AggregationError: The journal cannot be read.
        Rejected: The server does not take it.
    """
    head = party.journal_head()
    if head is not None:
        transport.give_head(head)


def carry_acts(acts: ActLog, transport: ServerTransport) -> None:
    """Hold a party's log of acts to what others kept of it, and give the head that it has now.

    Raises:
        ActsDamaged, AggregationError: It lacks what somebody has seen, or cannot be read.
        Rejected: The server does not take it.
    """
    acts.hold_to(transport.heads(known=False, since=NOW).journals)
    head = acts.head()
    if head is not None:
        transport.give_head(head)


class LedgerOwner(JournalOwner, Protocol):
    """A site as far as heads go."""

    @property
    def others(self) -> AnchorStore | None:
        """Heads that it keeps of others' ledgers; None for one that takes no part in this."""
        ...

    def hold_to(self, anchors: Iterable[str]) -> None:
        """Check its own ledger against what others kept."""
        ...

    def anchor(self) -> str | None:
        """Its ledger's head; None without a ledger."""
        ...


class SiteAnchors:
    """Carries heads between one site and the server.

    Args:
        transport: To the server.
        members: All parties, as this site trusts them now.
    """

    def __init__(self, transport: ServerTransport, members: Callable[[], Members]) -> None:
        self._transport = transport
        self._members = members
        self._said: set[str] = set()
        self._upto = ALL

    def bring(self, site: LedgerOwner, *, part_bytes: int) -> None:
        """Bring the server what a site kept of others' ledgers, as far as the server lacks it.

        Args:
            site: The site.
            part_bytes: Largest body of a request.

        Raises:
            RunError: What it kept cannot be read.
            Rejected: The server takes none.
        """
        if site.others is None:
            return
        unknown = self._unknown(site.others, self._transport.heads(known=True, since=ALL))
        for heads in _parts(unknown, part_bytes):
            self._transport.bring_heads(heads)

    def settle(self, site: LedgerOwner) -> None:
        """Hold a site to what others kept, and keep theirs. Before it charges anything.

        Raises:
            LedgerLocked: Its ledger lacks a head that somebody has seen.
            JournalError: Its journal does.
            LedgerError, RunError: What the server says is no head, or cannot be kept.
        """
        if site.others is None:
            return
        told = self._keep(site.others)
        site.hold_to(told.own)
        site.hold_journal(told.journals)

    def share(self, site: LedgerOwner) -> None:
        """Give the server the head that a site's ledger has now, and keep the others' latest.

        Raises:
            LedgerError, RunError: What the server says is no head, or cannot be kept.
            Rejected: The server does not take it.
        """
        if site.others is None:
            return
        head = site.anchor()
        if head is not None:
            self._transport.give_head(head)
        self._keep(site.others)

    def _keep(self, kept: AnchorStore) -> AnchorsForSite:
        """Ask, keep what is new of the others, and return what was told."""
        told = self._transport.heads(known=False, since=self._upto)
        members = self._members()
        sites, parties = members.sites, parties_with_journals(members)
        given = [(sites[name], line) for name, line in told.others.items() if name in sites]
        journals = [
            (parties[name], line)
            for name, lines in told.other_journals.items()
            if name in parties
            for line in lines
        ]
        for keep, heads in ((kept.keep, given), (kept.keep_journals, journals)):
            try:
                keep(heads)
            except HeadsFull as error:  # one party's heads are no reason not to take part
                if str(error) not in self._said:
                    self._said.add(str(error))
                    _LOG.warning("%s", error)
        self._upto = told.upto  # only once all of it is kept
        return told

    def _unknown(self, kept: AnchorStore, told: AnchorsForSite) -> Iterator[tuple[str, str]]:
        members = self._members()
        for name, identity in members.sites.items():
            if name in told.known:
                there = set(told.known[name])
                for line in kept.held(identity):
                    if short_name(line) not in there:
                        yield name, line
        for name, identity in parties_with_journals(members).items():
            if name in told.other_journals:
                for line in kept.journals(identity):
                    if line not in told.other_journals[name]:
                        yield name, line


def _parts(heads: Iterable[tuple[str, str]], part_bytes: int) -> Iterator[dict[str, list[str]]]:
    """Cut them into requests of at most so many bytes, each with one head at least."""
    part: dict[str, list[str]] = {}
    size = 0
    for name, line in heads:
        needed = _JSON_BYTES * (len(name) + len(line)) + 64
        if part and size + needed > part_bytes:
            yield part
            part, size = {}, 0
        part.setdefault(name, []).append(line)
        size += needed
    if part:
        yield part
