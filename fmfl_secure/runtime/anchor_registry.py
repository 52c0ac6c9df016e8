"""Heads of ledgers and journals at the server: kept for good, returned, shared with the sites.

A site that restored an older ledger is told the heads that it lacks, by the server or by any other
site, whose own record of them reaches it through the server.

`runtime.server` holds it; transports call `give`, `bring` and `tell` for a party that asks.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Final

import msgspec

from aggregation import AggregationError, PublicIdentity, is_journal_head
from fmfl_secure.errors import Problem, RunError
from fmfl_secure.parties.workspace import COORDINATOR, DECRYPTOR, Members
from fmfl_secure.storage.anchor_store import AnchorStore, HeadsFull
from fmfl_secure.storage.message_store import Messages
from privacy import Anchor, LedgerError

PER_RUN: Final = 10_000
ALL: Final = ""  # since when a party asks for others' heads: ever
NOW: Final = "now"  # and for none of them
_HEAD: Final = "head"  # kind of the notes of each site's latest head; of no run in particular


HeadLine = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class AnchorsForSite(msgspec.Struct, frozen=True):
    """Heads that a site is told.

    Attributes:
        own: All that are kept of its own ledgers.
        others: The latest of each other site.
        known: Short names of all that are kept of each other site, to spare their sending; where
            they were asked for.
        journals: The latest heads that are kept of its own journals.
        other_journals: The same of each other party.
        upto: What to ask `since` next time, so that nothing of others comes twice.
    """

    own: list[HeadLine]
    others: dict[str, HeadLine]
    known: dict[str, list[HeadLine]]
    journals: list[HeadLine] = []
    other_journals: dict[str, list[HeadLine]] = {}
    upto: Annotated[str, msgspec.Meta(max_length=64)] = ""


def parties_with_journals(members: Members) -> dict[str, PublicIdentity]:
    """Those that keep a journal: sites, decryptor, custodians; the coordinator, of acts alone."""
    roles = {COORDINATOR: members.coordinator, DECRYPTOR: members.decryptor}
    return {**roles, **members.custodians, **members.sites}


def short_name(line: str) -> str:
    """A head as 16 hexadecimal digits, for finding out which ones another party has."""
    return hashlib.sha256(line.encode()).hexdigest()[:16]


class AnchorRegistry:
    """The coordinator's store of heads. Safe to use from several threads.

    Args:
        anchors: All heads that were ever given.
        store: Which of each site's is the latest.
        members: All parties, as of now.
        per_run: Heads of its ledgers that one party may give while this server runs.
    """

    def __init__(
        self,
        anchors: AnchorStore,
        store: Messages,
        members: Callable[[], Members],
        *,
        per_run: int = PER_RUN,
    ) -> None:
        self._per_run = per_run
        self._given: dict[str, tuple[int, str]] = {}
        self._anchors = anchors
        self._store = store
        self._members = members
        # By party the number of its last change, as far as this process saw one: everybody asks for
        # everybody's many times a round.
        self._process = secrets.token_hex(4)
        self._changes = 0
        self._changed: dict[str, int] = {}
        self._changing = threading.Lock()

    def give(self, site: str, line: str) -> None:
        """A party gives the head that its ledger or journal has now; durable when this returns.

        Raises:
            Problem: 422, it is no head that this party signed; 409, it gave too many.
        """
        if is_journal_head(line):
            self._keep_journals({site: [line]})
            return
        identity = self._members().sites.get(site)
        if identity is None:
            raise Problem(422, "refused", "a party that is no site has no ledger")
        signed = _signed_by(identity, [line])
        head = Anchor.parse(line).head
        given, last = self._given.get(site, (0, ""))
        if head != last and given >= self._per_run:
            raise _quota(f"{given} heads of ledgers in one run are as many as are kept")
        self._keep(signed)
        self._given[site] = (given + (head != last), head)
        self._store.note("", _HEAD, site, line.encode())
        self._note_change(site)

    def bring(self, heads: Mapping[str, Iterable[str]]) -> None:
        """A site brings what it kept of others' ledgers; those of strangers are passed over.

        Raises:
            Problem: 422, one is no head, or not of the site that it is said to be of.
        """
        sites = self._members().sites
        found: list[tuple[PublicIdentity, str]] = []
        journals: dict[str, list[str]] = {}
        for name, lines in heads.items():
            journals[name] = [line for line in lines if is_journal_head(line)]
            if name in sites:
                found += _signed_by(sites[name], (n for n in lines if not is_journal_head(n)))
        self._keep_journals(journals)
        self._keep(found)

    def _keep(self, signed: Iterable[tuple[PublicIdentity, str]]) -> None:
        try:
            self._anchors.keep(signed)
        except HeadsFull as error:
            raise _quota(str(error)) from error

    def _keep_journals(self, heads: Mapping[str, Iterable[str]]) -> None:
        parties = parties_with_journals(self._members())
        given = [(parties[name], line) for name in heads if name in parties for line in heads[name]]
        kept = {party: self._anchors.journals(party) for party, _ in given}
        try:
            self._anchors.keep_journals(given)
        except AggregationError as error:
            raise Problem(422, "refused", "a line is not the head of a journal") from error
        except HeadsFull as error:
            raise _quota(str(error)) from error
        except RunError as error:
            raise Problem(422, "refused", "a head is not of the party that gives it") from error
        finally:
            for party, lines in kept.items():
                if self._anchors.journals(party) != lines:
                    self._note_change(party.name)

    def _note_change(self, party: str) -> None:
        """Noted once it is kept: who asks in between is told it once more, and never too little."""
        with self._changing:
            self._changes += 1
            self._changed[party] = self._changes

    def tell(self, site: str, *, known: bool, since: str = ALL) -> AnchorsForSite:
        """Returns the heads for a party; for one that is no site, those of its own journal.

        Args:
            site: Which.
            known: Whether it asks what is kept of the others as well, which takes longer.
            since: Of the others what changed since an answer's `upto`; all where that is of another
                process or of other members; nothing of them with `NOW`.
        """
        parties, sites = parties_with_journals(self._members()), self._members().sites
        with self._changing:
            changes = self._changes
        named = hashlib.sha256("\n".join(sorted(parties)).encode()).hexdigest()[:16]
        upto = f"{self._process}.{named}.{changes}"
        process, _, after = since.rpartition(".")
        if since == NOW:
            parties, sites, upto = {}, {site: sites[site]} if site in sites else {}, ""
        elif process == upto.rpartition(".")[0] and after.isdecimal():
            recent = {name for name, at in self._changed.copy().items() if at > int(after)}
            parties = {name: each for name, each in parties.items() if name in recent}
            sites = {name: each for name, each in sites.items() if name in recent or name == site}
        if site not in sites:
            own = parties_with_journals(self._members())[site]
            journals = self._anchors.journals(own)
            return AnchorsForSite(own=[], others={}, known={}, journals=journals)
        latest = self._store.notes("", _HEAD) if len(sites) > 1 else {}
        others = {name: identity for name, identity in sites.items() if name != site}
        return AnchorsForSite(
            own=self._anchors.held(sites[site]),
            others={name: latest[name].decode() for name in others if name in latest},
            known={
                name: [short_name(line) for line in self._anchors.held(identity)]
                for name, identity in others.items()
                if known
            },
            journals=self._anchors.journals(sites[site]),
            other_journals={
                name: self._anchors.journals(identity)
                for name, identity in parties.items()
                if name != site
            },
            upto=upto,
        )


def _quota(text: str) -> Problem:
    return Problem(409, "quota", text)


def _signed_by(identity: PublicIdentity, lines: Iterable[str]) -> list[tuple[PublicIdentity, str]]:
    given = []
    for line in lines:
        try:
            anchor = Anchor.parse(line)
        except LedgerError as error:
            raise Problem(422, "refused", "a line is not the head of a ledger") from error
        # What a database's text cannot hold is no population's name.
        if anchor.public_key != identity.key.hex() or not anchor.population.isprintable():
            raise Problem(422, "refused", "a head is not of the site that it is said to be of")
        given.append((identity, line))
    return given
