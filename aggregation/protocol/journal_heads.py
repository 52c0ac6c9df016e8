"""Heads of journals, signed by their parties, for others to keep.

A journal that was put back from a backup verifies. Only somebody who remembers a later head can
tell. So a party hands its head out, signed, before a word leaves that its journal must not forget;
and before it gives the next one it asks for the heads that others kept, and gives none while its
journal lacks one of them. Whoever holds a head learns how many entries there are, and nothing else.

A head is one line: `journal-head`, key, journal, sequence, digest, signature. One of a party's log
of acts, which is a journal too, begins with `acts-head` and is of no use in its place.

`roles.release_once` and, for sites, `protocol.witness` sign a head and hold the journal to what
others kept; `parties.acts` does the same for a log of acts. Who only carries heads asks
`is_journal_head`, as `runtime.anchor_registry` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from aggregation.crypto.identity import Identity, PublicIdentity
from aggregation.errors import IdentityError, JournalError, MessageError, SignatureError
from aggregation.protocol.journal import Head, Journal, SqliteJournal
from aggregation.protocol.messages import HEAD_SIZE

_DOMAIN: Final = b"fmfl-secure/aggregation/journal-head/v1\x00"
_LINE: Final = re.compile(
    r"(journal|acts)-head ([0-9a-f]{64}) ([0-9a-f]{32}) ([1-9][0-9]{0,17}) ([0-9a-f]{64}) "
    r"([0-9a-f]{128})",
    re.ASCII,
)
__all__ = [
    "ACTS", "HEAD_SIZE", "JOURNAL", "RECOVERED", "JournalHead", "hold_to", "is_journal_head",
    "lacking", "pack_head", "read_head", "sign_head", "unpack_head",
]  # fmt: skip
JOURNAL: Final = "journal"  # what a party recorded of what it opened
ACTS: Final = "acts"  # what people did at it
RECOVERED: Final = "journal/recovered"  # key JOURNAL: of what was made in place of a lost one


@dataclass(frozen=True, slots=True)
class JournalHead:
    """A head with its signature. Made by `sign_head` and `read_head`, which both see to that.

    Attributes:
        of: Of what: `JOURNAL` or `ACTS`.
        public_key: The party's Ed25519 key, 64 hexadecimal digits.
        head: The journal's head.
        line: Its stored form.
    """

    of: str
    public_key: str
    head: Head
    line: str


def is_journal_head(line: str) -> bool:
    """Whether a line has the form of one; nothing is verified."""
    return _LINE.fullmatch(line) is not None


def read_head(line: str) -> JournalHead:
    """Read a stored line, and check its signature under the key that it names.

    Raises:
        MessageError: It is not a head, or not signed.
    """
    if not isinstance(line, str):
        raise MessageError("a line is not the head of a journal")
    return _read_head(line)


# The same head is told by many, kept, and told again; what failed is not remembered.
@lru_cache(maxsize=4096)
def _read_head(line: str) -> JournalHead:
    found = _LINE.fullmatch(line)
    if found is None:
        raise MessageError("a line is not the head of a journal")
    of, key, journal, sequence, digest, signature = found.groups()
    content = line.rpartition(" ")[0].encode("ascii")
    try:
        PublicIdentity("head", bytes.fromhex(key)).verify(
            bytes.fromhex(signature), _DOMAIN + content
        )
    except (SignatureError, IdentityError):
        raise MessageError("the head of a journal is not signed by the party it names") from None
    return JournalHead(of, key, Head(journal, int(sequence), digest), line)


def pack_head(line: str) -> bytes:
    """A head as `HEAD_SIZE` bytes, for a reader who knows whose it is.

    Raises:
        MessageError: It is not a head, or not signed.
    """
    found = read_head(line)
    if found.of != JOURNAL:
        raise MessageError("a head is of no journal of what was opened")
    head, signature = found.head, bytes.fromhex(found.line.rpartition(" ")[2])
    place = head.sequence.to_bytes(8, "big")
    return bytes.fromhex(head.journal) + place + bytes.fromhex(head.digest) + signature


def unpack_head(owner: PublicIdentity, packed: bytes) -> JournalHead:
    """Read what `pack_head` wrote, and check its owner's signature.

    Raises:
        MessageError: It is not a head, or not signed by its owner.
    """
    journal, place, digest = packed[:16].hex(), packed[16:24], packed[24:56].hex()
    sequence, signature = int.from_bytes(place, "big"), packed[56:].hex()
    return read_head(f"journal-head {owner.key.hex()} {journal} {sequence} {digest} {signature}")


def sign_head(journal: Journal, identity: Identity, *, of: str = JOURNAL) -> str | None:
    """The head that a journal has now, signed; None of one that is in memory alone.

    Raises:
        JournalError: It cannot be read.
    """
    if not isinstance(journal, SqliteJournal):
        return None
    head = journal.head
    key = identity.public.key.hex()
    content = f"{of}-head {key} {head.journal} {head.sequence} {head.digest}"
    return f"{content} {identity.sign(_DOMAIN + content.encode('ascii')).hex()}"


def lacking(
    journal: Journal, own: PublicIdentity, lines: Iterable[str], *, of: str = JOURNAL
) -> list[JournalHead]:
    """Those of a party's heads that its journal lacks, but for those of one that it is made for.

    Args:
        journal: The party's.
        own: The party; heads of others are passed over.
        lines: What others kept.
        of: What kind of journal it is; heads of another kind are passed over.

    Raises:
        MessageError: One is no head, or not signed.
        JournalError: The journal cannot be read.
    """
    if not isinstance(journal, SqliteJournal):
        return []
    heads = [read_head(line) for line in lines]
    current = journal.head.journal
    recovered = journal.lookup(RECOVERED, current) is not None
    return [
        kept
        for kept in heads
        if (kept.of, kept.public_key) == (of, own.key.hex())
        and not journal.holds(kept.head)
        and not (recovered and kept.head.journal != current)
    ]


def hold_to(journal: Journal, own: PublicIdentity, lines: Iterable[str]) -> None:
    """Refuse to go on with a journal that lacks a head that somebody kept of it.

    Raises:
        JournalError: It lacks one: it was put back, cut off, or begun anew.
        MessageError: One is no head.
    """
    lost = lacking(journal, own, lines)
    if lost:
        latest = max(lost, key=lambda kept: kept.head.sequence).head
        raise JournalError(
            f"the journal of {own.name} lacks entry {latest.sequence}, which others have seen: it "
            "was put back or begun anew, and has forgotten what it opened. Put the latest back. "
            "Where it is lost, fmfl-secure journal recover makes one that opens nothing old"
        )
