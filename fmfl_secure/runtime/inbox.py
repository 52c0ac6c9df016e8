"""Takes in what parties send: checked, made durable, and only then acknowledged.

Transports call it, for each request of a party, from threads of their own; the drivers open a run
and an attempt here, and are woken by `changed` when something came.

A message comes in parts (`part`), or whole by reference in one process (`deliver`). Its last part
has it verified by the attempt, accepted in the store, and acknowledged. `runtime.server` makes the
one inbox of a run.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from aggregation import AggregationError, PublicIdentity, RefusedError
from aggregation.protocol import prepared
from fmfl_secure.errors import Problem, RunError
from fmfl_secure.provisioning.certificates import CUSTODIAN, DECRYPTOR, SITE
from fmfl_secure.run.ledger_statement import verify_statement
from fmfl_secure.run.refusal_codes import GENERIC, MEANINGS
from fmfl_secure.run.statement import SiteStatement, read_statement
from fmfl_secure.runtime.attempt_state import (
    ACCUSATION,
    CUSTODIAN_KINDS,
    DECRYPTOR_KINDS,
    KINDS,
    SITE_KINDS,
    ServerAttempt,
)
from fmfl_secure.storage.message_store import (
    MessageKey,
    Messages,
    Receipt,
    following_receipt,
    is_intact,
)

_LOG = logging.getLogger("fmfl_secure.runtime.inbox")
# Notes that are kept of a run, by kind; keys are sites' names but for OVER.
JOINED: Final = "joined"
REFUSED: Final = "refused"
STATED: Final = "stated"
MOST_STATEMENT: Final = 1 << 20  # bytes of a site's statement, as JSON
LEAST_PART: Final = 4096  # bytes of a part that others follow
UNSHOWN: Final = "unshown"  # why a site's last statement is not kept
CLOSED: Final = "closed"
INVALID: Final = b"invalid"  # of a failure: the party sent what does not hold
UNAVAILABLE: Final = "unavailable"  # of a failure: the surroundings took the attempt from a party
OVER: Final = "over"  # key ROUND/ATTEMPT: why it ended without a release
_KINDS_BY_ROLE = {SITE: SITE_KINDS, DECRYPTOR: DECRYPTOR_KINDS, CUSTODIAN: CUSTODIAN_KINDS}


class SignedStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A site's statement of its ledger as it came, with its signature in hexadecimal."""

    statement: Any
    signature: str


@dataclass(frozen=True, slots=True)
class Stated:
    """A site's statement, or why it is not shown.

    Attributes:
        statement: Of its ledger; None if it made none, or none that can be shown.
        signature: Of the statement.
        not_shown: Why its last statement cannot be shown; empty where it is.
    """

    statement: SiteStatement | None = None
    signature: str = ""
    not_shown: str = ""


def statements(store: Messages, run: str) -> dict[str, Stated]:
    """Reads the sites' statements of their ledgers in a run, by site."""
    refused = store.notes(run, UNSHOWN)
    found = {site: Stated(not_shown=reason.decode()) for site, reason in refused.items()}
    for site, note in store.notes(run, STATED).items():
        if site not in refused:
            found[site] = _stated(note)
    return found


def _stated(note: bytes) -> Stated:
    kept = msgspec.msgpack.decode(note, type=prepared(SignedStatement))
    if kept.statement is None:
        return Stated(signature=kept.signature)
    try:
        return Stated(read_statement(kept.statement), kept.signature)
    except RunError as error:  # an earlier version took any
        return Stated(not_shown=str(error))


class Inbox:
    """Where requests end and the driver begins. Safe to use from several threads.

    Args:
        store: What makes a word durable.
        part_bytes: Largest part of a message.
    """

    def __init__(self, store: Messages, *, part_bytes: int) -> None:
        self.store = store
        self.changed = threading.Condition()
        self.part_bytes = part_bytes
        self.run = ""
        self.attempt: ServerAttempt | None = None
        self._said: dict[str, str] = {}
        self._taking: dict[MessageKey, threading.Lock] = {}
        self._underway = 0
        self._sites: dict[str, PublicIdentity] = {}

    def open_run(self, run: str, sites: dict[str, PublicIdentity]) -> None:
        """Take words for this run from now on."""
        self.run, self._sites = run, dict(sites)

    def open_attempt(self, attempt: ServerAttempt | None) -> None:
        """Take messages for this attempt from now on, or for none.

        It waits for messages of the earlier one that are being taken in. Their words may have woken
        the driver before they were in the store, from which it is about to delete that attempt.
        """
        with self.changed:
            if attempt is self.attempt:
                return
            self.attempt = None
            self.changed.wait_for(lambda: not self._underway)
            self.attempt = attempt
            self._taking = {}
            self.changed.notify_all()

    def join(self, site: str, run: str, visibility: Literal["private", "public"]) -> None:
        """A site takes part in a run, with budget reserved.

        Raises:
            Problem: Another run.
        """
        self._check_run(run)
        self.store.note(run, JOINED, site, visibility.encode())
        self.store.drop_note(run, REFUSED, site)
        self._tell()

    def refuse(self, site: str, run: str, code: str) -> None:
        """A site takes no part in what is left of a run.

        Args:
            site: Which.
            run: Of the run.
            code: Why, as one of `refusal_codes.MEANINGS`; any other word is kept as the generic
                one, since reports show it.

        Raises:
            Problem: Another run.
        """
        self._check_run(run)
        self.store.note(run, REFUSED, site, (code if code in MEANINGS else GENERIC).encode())
        self._tell()

    def fail(self, party: str, run: str, round_number: int, attempt: int, code: str) -> None:
        """A party cannot go on with an attempt.

        Raises:
            Problem: It is not the attempt under way.
        """
        self._check_attempt(run, round_number, attempt)
        kind = failures(round_number, attempt)
        with self.changed:  # while `convict` waits: its word is the last
            if self.store.notes(run, kind).get(party) != INVALID:  # which is what counts
                self.store.note(run, kind, party, code.encode())
            self._tell()

    def convict(self, run: str, place: tuple[int, int], names: Iterable[str]) -> None:
        """Note that what these parties sent in an attempt does not hold, whatever they say of it.

        Args:
            run: The run.
            place: Round and attempt.
            names: The parties.
        """
        with self.changed:
            for name in names:
                self.store.note(run, failures(*place), name, INVALID)
            self._tell()

    def state(self, site: str, run: str, stated: SignedStatement, *, final: bool) -> None:
        """A site states its ledger; the last time, it has closed the run.

        Raises:
            Problem: Another run, or a statement that does not verify, or says what cannot be: then
                reports have why in its place, and the site has closed the run all the same.
        """
        self._check_run(run)
        refused = ""
        try:
            word = self._verified(site, stated)
        except RunError as error:
            refused = str(error)
            self.store.note(run, UNSHOWN, site, refused.encode())
        else:
            self.store.note(run, STATED, site, msgspec.msgpack.encode(word))
            self.store.drop_note(run, UNSHOWN, site)
        if final:
            self.store.note(run, CLOSED, site, b"")
        self._tell()
        if refused and self._said.get(site) != refused:  # once, however often it is sent
            self._said[site] = refused
            _LOG.warning("%s's statement is not shown: %s", site, refused)
        if refused:
            raise Problem(422, "not-shown", "the statement is not shown, and reports say why")

    def _verified(self, site: str, stated: SignedStatement) -> SignedStatement:
        if stated.statement is None:
            return stated
        try:
            size = len(msgspec.json.encode(stated.statement))
            form = msgspec.to_builtins(stated.statement)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RunError("it has another form") from error
        if size > MOST_STATEMENT:
            raise RunError(f"it has {size} bytes, at most {MOST_STATEMENT} are kept")
        statement = read_statement(form)
        if statement.site != site:
            raise RunError("it names another site")
        try:
            verify_statement(self._sites[site], statement, stated.signature)
        except (AggregationError, KeyError) as error:
            raise RunError("its signature does not verify") from error
        return SignedStatement(statement, stated.signature)

    def receipt(self, role: str, key: MessageKey) -> Receipt | None:
        """How much of a message is here.

        Raises:
            Problem: It is of no attempt under way, or of another role.
        """
        self._check_kind(role, key.kind)
        self._check_attempt(key.run, key.round, key.attempt)
        return self.store.receipt(key)

    def part(
        self, role: str, key: MessageKey, *, sha256: str, size: int, offset: int, data: bytes
    ) -> Receipt:
        """Take a part of a message, and the message with its last part.

        Raises:
            Problem: 403 another role's, 409 not now, 413 too large, 422 it does not hold.
        """
        self._check_kind(role, key.kind)
        with self._open_for(key) as attempt:
            return self._part(attempt, key, sha256=sha256, size=size, offset=offset, data=data)

    def _part(
        self,
        attempt: ServerAttempt,
        key: MessageKey,
        *,
        sha256: str,
        size: int,
        offset: int,
        data: bytes,
    ) -> Receipt:
        self._check_size(attempt, key.kind, size)
        if not data or len(data) > self.part_bytes:
            raise Problem(413, "too-large", f"a part has 1 to {self.part_bytes} bytes")
        if len(data) < min(LEAST_PART, size - offset):  # a row of the store for each
            raise Problem(422, "refused", f"a part that is not the last has {LEAST_PART} bytes")
        # A party that gave up waiting sends a part again while the first one is still looked at.
        with self._taking.setdefault(key, threading.Lock()):
            if offset == 0 and len(data) == size:
                return self._take_at_once(attempt, key, sha256, data)
            receipt = self.store.append(key, sha256=sha256, size=size, offset=offset, data=data)
            if receipt.whole or receipt.received < receipt.size:
                return receipt
            return self._take(attempt, key, receipt)

    def deliver(self, role: str, key: MessageKey, message: bytes) -> None:
        """Take a whole message by reference: of a party in this process. No copy is kept.

        Raises:
            Problem: As `part`.
        """
        self._check_kind(role, key.kind)
        with self._open_for(key) as attempt:
            self._check_size(attempt, key.kind, len(message))
            self._receive(attempt, key, [message])
        self._tell()

    @contextmanager
    def _open_for(self, key: MessageKey) -> Iterator[ServerAttempt]:
        """The attempt a message is of, which stays open until the message is taken in."""
        with self.changed:
            attempt = self._check_attempt(key.run, key.round, key.attempt)
            self._underway += 1
        try:
            yield attempt
        finally:
            with self.changed:
                self._underway -= 1
                self.changed.notify_all()

    def _take_at_once(
        self, attempt: ServerAttempt, key: MessageKey, sha256: str, data: bytes
    ) -> Receipt:
        """A message that is all in one part: one change of the store, and none of what is refused.

        The attempt has it before it is durable, as it has every message before it is accepted:
        what it had in memory alone is gone with a crash, and its sender has no answer yet.
        """
        known = self.store.receipt(key)
        if known is not None and known.whole:
            size = len(data)
            return following_receipt(known, sha256=sha256, size=size, offset=0, length=size)[1]
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Problem(422, "digest", "the bytes do not have the digest they were sent with")
        self._receive(attempt, key, [data])
        accepted = self.store.put(key, sha256=sha256, data=data)
        self._tell()
        return accepted

    def _take(self, attempt: ServerAttempt, key: MessageKey, receipt: Receipt) -> Receipt:
        """Check a message all of whose bytes are here, and give it to the attempt."""
        if not is_intact(self.store, key, receipt):
            self.store.discard(key)
            raise Problem(422, "digest", "the bytes do not have the digest they were sent with")
        try:
            self._receive(attempt, key, self.store.read(key))
        except Problem:
            self.store.discard(key)
            raise
        accepted = self.store.accept(key)
        self._tell()
        return accepted

    def _receive(self, attempt: ServerAttempt, key: MessageKey, parts: Iterable[bytes]) -> None:
        try:
            attempt.receive(key.party, key.kind, parts)
            if key.kind == ACCUSATION:
                self.convict(key.run, (key.round, key.attempt), attempt.guilty)
        except RefusedError as error:
            if key.kind in SITE_KINDS:  # nobody else could have sent it: it is not waited for
                self.convict(key.run, (key.round, key.attempt), [key.party])
            raise Problem(422, "refused", "the message does not hold") from error
        except AggregationError as error:
            raise Problem(409, "out-of-order", "this message does not come now") from error

    def _tell(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _check_run(self, run: str) -> None:
        if not self.run or run != self.run:
            raise Problem(409, "over", "this run is not under way")

    def _check_attempt(self, run: str, round_number: int, number: int) -> ServerAttempt:
        attempt = self.attempt
        now = (attempt.plan.run, *attempt.place) if attempt else None
        if attempt is None or now != (run, round_number, number):
            raise Problem(409, "over", "this attempt is not under way")
        return attempt

    @staticmethod
    def _check_size(attempt: ServerAttempt, kind: str, size: int) -> None:
        if size > attempt.cap(kind):
            raise Problem(413, "too-large", f"a message of this kind has {size} bytes, too many")

    @staticmethod
    def _check_kind(role: str, kind: str) -> None:
        if kind not in KINDS:
            raise Problem(404, "not-found", "there is no such kind of message")
        if kind not in _KINDS_BY_ROLE.get(role, ()):
            raise Problem(403, "wrong-role", "this kind of message is another role's to send")


def failures(round_number: int, attempt: int) -> str:
    """Kind of the notes of an attempt's failures."""
    return f"failed/{round_number}/{attempt}"
