"""A log of people's acts at a party: one entry before each takes effect, one with its outcome.

The log is a journal (`aggregation.protocol.journal`), chained like any other, in the party's folder
beside its key. Besides, that key signs each entry together with the head that it follows: whoever
can write the file and has no key can cut its end off, and nothing else. Against that there are
heads that others keep, as of journals. Where a log is missing, was changed or was put back, nothing
is done at that party until it was put right, or begun anew and that said (`recover`).

What stands in an entry is named by the command (`cli.acting`): figures, and texts that it lists.
"""

from __future__ import annotations

import base64
import json
import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from aggregation import Identity, PublicIdentity, SqliteJournal
from aggregation.errors import AggregationError, RecordedError
from aggregation.protocol import (
    ACTS,
    RECOVERED,
    Head,
    JournalEntry,
    heads_of,
    lacking,
    read_head,
    set_aside,
    sign_head,
)
from fmfl_secure.errors import ConfigError, FmflError, Nature
from fmfl_secure.outside import MALFORMED
from fmfl_secure.parties.own_identity import own_folder, own_identity
from fmfl_secure.settings.federation import load_custodian, load_federation, load_site
from privacy import PrivacyError

FILE: Final = "acts.sqlite"
PERMIT: Final = "FMFL_PERMIT"  # number of the permit that somebody acts under, in the environment
FORMAT: Final = "fmfl-secure/acts/v1"
_DOMAIN: Final = b"fmfl-secure/acts/v1\x00"
_SIGNATURE_BYTES: Final = 64  # Ed25519
_KIND: Final = "act"
_LOST: Final = "Where it is lost, fmfl-secure acts recover begins another, which says so"
_MOST_PERMIT: Final = 100  # characters
_READ: Final = "as follows"
_UNREADABLE: Final = "cannot be read"

_MOST_REAL: Final = 1e300
_MOST: Final = 2**53  # of a whole number that is kept as one

Place = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Whole = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
Real = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Fact = bool | Whole | Real | str | None


class ActsDamaged(FmflError):
    """A log of acts was changed, or lacks what others have seen of it."""

    nature: ClassVar[Nature] = "damage"
    code = "acts"


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entry, as it is signed.

    Attributes:
        place: In the log's chain.
        log: The log's id.
        previous: Digest of the entry before, 64 hexadecimal digits.
        party: Whose log it is.
        at: UTC time of writing. Order is the place.
        user: Who acted, as the operating system names the account; with what it was become from.
        what: `begun`, before an act takes effect; `done`, `refused`, `interrupted` or `failed`, as
            it ended; `found`, what settings say that said something else before; `recovered`, that
            this log stands in place of one that was lost.
        permit: Number of the permit that they said they act under; empty for none.
        act: Which command; empty where it is not of one.
        of: Place of the entry with which an act that ended had begun.
        code: Word of the error that ended it.
        facts: What the command lists, by name.
    """

    place: Place
    log: str
    previous: str
    party: str
    at: str
    user: str
    what: Literal["begun", "done", "refused", "interrupted", "failed", "found", "recovered"]
    permit: str = ""
    act: str = ""
    of: Place = 0
    code: str = ""
    facts: dict[str, Fact | list[Fact]] = {}


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: str
    key: str
    value: str  # base64


class _Export(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    party: str
    public_key: str
    log: str
    head: str
    entries: list[_Line]


class ActLog:
    """A party's log; made when the first act is recorded.

    Args:
        folder: A kit, a party's folder, or a federation's for its coordinator.
        identity: The party's key, if it is at hand already.

    Raises:
        AggregationError: The key cannot be read.
    """

    def __init__(self, folder: Path, identity: Identity | None = None) -> None:
        self._folder = folder
        self.path = own_folder(folder) / FILE
        self._identity = identity or own_identity(folder)
        self._opened: SqliteJournal | None = None

    @property
    def party(self) -> str:
        """Name of the party whose log it is."""
        return self._identity.public.name

    @property
    def exists(self) -> bool:
        """Whether anything was ever recorded here."""
        return self.path.exists() or self.path.with_name(f"{FILE}.made").exists()

    @property
    def _journal(self) -> SqliteJournal:
        """The log's journal, verified when first used.

        Raises:
            AggregationError: It is missing, does not verify, or cannot be used now.
        """
        if self._opened is None:
            self._opened = SqliteJournal(self.path, lost=_LOST)
        return self._opened

    def begin(self, act: str, facts: Mapping[str, Any]) -> int:
        """Record that somebody is about to do something; durable when this returns.

        Returns:
            The entry's place, for `end`.

        Raises:
            ConfigError: The permit's number is none.
            ActsDamaged, AggregationError: The log does not hold, or cannot be written.
        """
        found = self._found()
        if found:
            self._append(what="found", facts=found)
        return self._append(what="begun", act=act, facts=dict(facts))

    def end(self, begun: int, act: str, what: str, *, code: str, facts: Mapping[str, Any]) -> None:
        """Record what came of it.

        Raises:
            AggregationError: It cannot be written.
        """
        self._append(what=what, act=act, of=begun, code=code, facts=dict(facts))

    def notes(self) -> list[Note]:
        """All entries, verified; none where nothing was recorded.

        Raises:
            ActsDamaged, AggregationError: They do not verify, or cannot be read.
        """
        if not self.exists:
            return []
        return _read(*self._journal.entries(), self._identity.public)

    def head(self) -> str | None:
        """The log's head, signed, for others to keep; None where nothing was recorded."""
        return sign_head(self._journal, self._identity, of=ACTS) if self.exists else None

    def hold_to(self, lines: Iterable[str]) -> int:
        """Check that the log has every head that others kept of it.

        Returns:
            How many there were of it.

        Raises:
            ActsDamaged: It lacks one: it was put back, cut off, or begun anew.
            AggregationError: A line is no head, or the log cannot be read.
        """
        own = self._identity.public
        kept = [
            head.line
            for line in lines
            if (head := read_head(line)).of == ACTS and head.public_key == own.key.hex()
        ]
        if not kept:
            return 0
        lost = lacking(self._journal, own, kept, of=ACTS) if self.exists else map(read_head, kept)
        latest = max((each.head.sequence for each in lost), default=0)
        if latest:
            raise ActsDamaged(
                f"the log of acts {self.path} lacks entry {latest}, which others have seen: it was "
                "put back, cut off or begun anew",
                hint="Put the latest back. Where that is lost: fmfl-secure acts recover "
                f"{self._folder} --reason TEXT.",
            )
        return len(kept)

    def export(self) -> bytes:
        """The log as a document that `read_export` verifies by itself.

        Raises:
            ConfigError: Nothing was recorded.
            ActsDamaged, AggregationError: It does not verify.
        """
        head = self.head()
        if head is None:
            raise ConfigError(
                f"nothing was recorded at {self._folder}", hint="Name a party's folder or kit."
            )
        log, entries = self._journal.entries()
        _read(log, entries, self._identity.public)
        document = _Export(
            format=FORMAT,
            party=self.party,
            public_key=self._identity.public.text,
            log=log,
            head=head,
            entries=[
                _Line(each.kind, each.key, base64.b64encode(each.value).decode())
                for each in entries
            ],
        )
        return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"

    def recover(self, reason: str) -> Path | None:
        """Begin another log in place of one that does not hold, and say so in it.

        Returns:
            Where the old one was set aside; None where nothing of it was left.

        Raises:
            AggregationError: It cannot be set aside, or the new one not written.
        """
        self._opened = None
        aside = set_aside(self.path)
        log = self._journal.head.journal
        self._journal.record(RECOVERED, log, reason.encode())
        facts = {"reason": reason, "aside": "" if aside is None else aside.name}
        self._append(what="recovered", facts=facts)
        return aside

    def _append(self, **fields: Any) -> int:
        while True:
            before = self._journal.head
            note = Note(
                place=before.sequence + 1,
                log=before.journal,
                previous=before.digest,
                party=self.party,
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                user=_user(),
                permit=_permit(),
                **{**fields, "facts": {n: _fact(v) for n, v in fields.get("facts", {}).items()}},
            )
            body = msgspec.json.encode(note)
            value = self._identity.sign(_DOMAIN + body) + body
            try:
                self._journal.record(_KIND, str(note.place), value, after=before)
            except RecordedError:  # by another process, in between
                continue
            return note.place

    def _found(self) -> dict[str, Any]:
        """Returns settings that changed since they were last looked at."""
        known: dict[str, Any] = {}
        for note in self.notes():
            if note.what == "found":
                known |= note.facts
        return {name: value for name, value in _said_here(self._folder).items()
                if name not in known or known[name] != value}  # fmt: skip


def heads_in(text: bytes, *, source: str) -> list[str]:
    """The signed head of an export, for a log to be held to.

    Raises:
        ConfigError, ActsDamaged: See `read_export`.
    """
    read_export(text, source=source)
    return [msgspec.json.decode(text, type=_Export).head]


def read_export(text: bytes, *, source: str) -> tuple[list[Note], PublicIdentity]:
    """Verify an export by itself: each signature, the chain, and the head that was signed.

    Returns:
        Its entries, and whose key signed them: compare that with one from elsewhere.

    Raises:
        ConfigError: It is no such document.
        ActsDamaged: It does not hold.
    """
    try:
        document = msgspec.json.decode(text, type=_Export)
        public = PublicIdentity.parse(document.party, document.public_key)
        entries = [
            JournalEntry(number, each.kind, each.key, base64.b64decode(each.value, validate=True))
            for number, each in enumerate(document.entries, start=2)
        ]
        head = read_head(document.head)
        if document.format != FORMAT:
            raise ValueError(f"its format is {document.format[:40]!r}")
    except (ValueError, AggregationError, *MALFORMED) as error:
        raise ConfigError(
            f"{source} is no export of a log of acts: {error}",
            hint="fmfl-secure acts export writes one.",
        ) from error
    try:
        notes = _read(document.log, entries, public)
    except ActsDamaged as error:  # which says nothing of the log that it was made of
        raise ActsDamaged(f"{source}: {error}", hint="Ask for it again.") from error
    is_its_own = (head.of, head.public_key) == (ACTS, public.key.hex())
    if not is_its_own or head.head != _head_after(document.log, entries):
        raise ActsDamaged(
            f"{source} does not end where its signed head does", hint="Ask for it again."
        )
    return notes, public


def _head_after(log: str, entries: Sequence[JournalEntry]) -> Head:
    end = JournalEntry(len(entries) + 2, "", "", b"")
    return [head for head, _ in heads_of(log, [*entries, end])][-1]


def _read(log: str, entries: Iterable[JournalEntry], public: PublicIdentity) -> list[Note]:
    notes = []
    for before, entry in heads_of(log, entries):
        if entry.kind == RECOVERED:
            continue
        signature, body = entry.value[:_SIGNATURE_BYTES], entry.value[_SIGNATURE_BYTES:]
        try:
            public.verify(signature, _DOMAIN + body)
            note = msgspec.json.decode(body, type=Note)
        except (AggregationError, *MALFORMED) as error:
            raise _damaged(entry.sequence, str(error)) from error
        place = (note.place, note.log, note.previous, note.party)
        if place != (before.sequence + 1, log, before.digest, public.name):
            raise _damaged(entry.sequence, "it was written for another place")
        notes.append(note)
    return notes


def _damaged(sequence: int, why: str) -> ActsDamaged:
    return ActsDamaged(
        f"entry {sequence} of the log of acts does not hold: {why}",
        hint="Put the log back from a backup; fmfl-secure acts recover begins another.",
    )


def _fact(value: Any) -> Any:
    """A value as an entry can hold it: figures out of any range as they would be printed."""
    if isinstance(value, list | tuple):
        return [_fact(each) for each in value]
    if isinstance(value, int) and abs(value) > _MOST:
        return str(value)
    if isinstance(value, float) and not abs(value) <= _MOST_REAL:
        return str(value)
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def _user() -> str:
    """The account that acts; and the one that it was become from, as far as sudo says."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account that the machine has no name for, as in a container
        name = f"uid {os.getuid()}"
    before = os.environ.get("SUDO_USER", "")
    return f"{name} (sudo by {before})" if before.isprintable() and before else name


def _permit() -> str:
    """The permit's number, as the environment has it.

    Raises:
        ConfigError: It is none.
    """
    number = os.environ.get(PERMIT, "").strip()
    if len(number) > _MOST_PERMIT or not (number.isprintable() or not number):
        raise ConfigError(
            f"{PERMIT} has {len(number)} characters, or some that cannot be seen",
            hint=f"Set it to the permit's number: at most {_MOST_PERMIT} characters.",
        )
    return number


def _said_here(folder: Path) -> dict[str, Any]:
    """Reads settings that people may have changed by hand in a party's folder: no secret."""
    said: dict[str, Any] = {}
    for file, load in (("site.toml", load_site), ("custodian.toml", load_custodian)):
        if (folder / file).exists():
            try:
                policy = json.loads(msgspec.json.encode(load(folder / file).policy))
                said |= {f"policy.{name}": value for name, value in policy.items()}
            except (FmflError, PrivacyError, OSError):
                said["policy"] = _UNREADABLE  # what is wrong with it, the act itself will say
            else:
                said["policy"] = _READ
    if (folder / "federation.toml").exists():
        try:
            said["settings"] = load_federation(folder / "federation.toml").digest
        except (FmflError, PrivacyError, OSError):
            said["settings"] = _UNREADABLE
    return said
