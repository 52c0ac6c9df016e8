"""Heads of ledgers at a site: its own is held to what others kept, and it keeps the others'.

Before a site charges anything it asks the server, and brings what it kept itself: so a server that
lost its record learns it again from the sites, and a site that was put back from a backup learns
of it from whichever party remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from fmfl_secure.parties.workspace import Members
from fmfl_secure.runtime.anchor_registry import short_name
from fmfl_secure.runtime.transport import ServerTransport
from fmfl_secure.storage.anchor_store import AnchorStore

_JSON_BYTES = 2  # at most so many for one of a line, which is ASCII with escaped quotes


class LedgerOwner(Protocol):
    """A site as far as heads go."""

    @property
    def others(self) -> AnchorStore | None:
        """What it keeps of others' ledgers; None for one that takes no part in this."""
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
        line: To the server.
        members: All parties, as this site trusts them now.
    """

    def __init__(self, transport: ServerTransport, members: Callable[[], Members]) -> None:
        self._transport = transport
        self._members = members

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
        unknown = self._unknown(site.others, self._transport.heads(known=True).known)
        for heads in _parts(unknown, part_bytes):
            self._transport.bring_heads(heads)

    def settle(self, site: LedgerOwner) -> None:
        """Hold a site to what others kept, and keep theirs. Before it charges anything.

        Raises:
            LedgerLocked: Its ledger lacks a head that somebody has seen.
            LedgerError, RunError: What the server says is no head, or cannot be kept.
        """
        if site.others is None:
            return
        told = self._transport.heads(known=False)
        self._keep(site.others, told.others)
        site.hold_to(told.own)

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
        self._keep(site.others, self._transport.heads(known=False).others)

    def _keep(self, kept: AnchorStore, others: Mapping[str, str]) -> None:
        sites = self._members().sites
        kept.keep((sites[name], line) for name, line in others.items() if name in sites)

    def _unknown(
        self, kept: AnchorStore, known: Mapping[str, Iterable[str]]
    ) -> Iterator[tuple[str, str]]:
        for name, identity in self._members().sites.items():
            if name in known:
                there = set(known[name])
                for line in kept.held(identity):
                    if short_name(line) not in there:
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
