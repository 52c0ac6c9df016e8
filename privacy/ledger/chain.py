"""Append-only records: salted, hash-chained, signed.

A record is one line of canonical JSON. Its digest covers its sequence number, the digest of the
record before it, a random salt (so that a digest shown to others reveals nothing about the
body), time, kind and body; an identity that the ledger admits (`privacy.ledger.signers`) signs the
digest. Editing, deleting or reordering breaks the chain. Cutting the end off does not, which is why
others keep heads they have seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privacy.errors import LedgerDamaged, LedgerError
from privacy.ledger.signers import Signers
from privacy.ledger.times import time_after, written_time

_DOMAIN = b"fmfl-secure/ledger/v1\x00"
PROBE = b"fmfl-secure/ledger-signer/v1\x00"  # signed to find out which key signs; says nothing
GENESIS = "0" * 64
_SALT_BYTES = 32
_MAX_RECORD_BYTES = 1 << 20
# One spelling each: capitals would verify too, and a record would have many forms.
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


class Signer(Protocol):
    """Signs for the site, with Ed25519."""

    def sign(self, message: bytes) -> bytes:
        """Returns the Ed25519 signature of a message, 64 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a chain, as stored.

    Attributes:
        sequence: 1 for the first record, then one more each.
        kind: What the body is.
        at: UTC time of writing, ISO 8601; not before that of the record before, whatever the clock
            says. Order is the sequence.
        body: JSON data.
        salt: 64 hex digits.
        previous: Digest of the record before, or 64 zeros.
        digest: SHA-256, 64 hex digits.
        signature: Ed25519 over the digest, 128 hex digits.
    """

    sequence: int
    kind: str
    at: str
    body: dict[str, Any]
    salt: str = field(repr=False)  # shown to others, it would let them guess at the body
    previous: str
    digest: str
    signature: str

    @property
    def head(self) -> str:
        """`SEQUENCE:DIGEST`: what others keep of a ledger that ends here."""
        return f"{self.sequence}:{self.digest}"

    def to_line(self) -> str:
        """The stored form: one line of canonical JSON."""
        return canonical_json({name: getattr(self, name) for name in self.__slots__})


def canonical_json(data: Any) -> str:
    """JSON with sorted keys, no spaces, ASCII; floats are refused by design of its callers."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def new_record(
    *, previous: Record | None, kind: str, body: dict[str, Any], signer: Signer
) -> Record:
    """The next record of a chain, signed."""
    sequence = 1 if previous is None else previous.sequence + 1
    head = GENESIS if previous is None else previous.digest
    at = written_time(time_after(None if previous is None else previous.at))
    salt = os.urandom(_SALT_BYTES).hex()
    digest = _digest(sequence, kind, at, body, salt, head)
    signature = signer.sign(_DOMAIN + bytes.fromhex(digest)).hex()
    return Record(sequence, kind, at, body, salt, head, digest, signature)


def parse_line(line: str) -> Record:
    """Read a stored line; checks form only.

    Raises:
        LedgerDamaged: It is not a record in canonical form.
    """
    try:
        if len(line) > _MAX_RECORD_BYTES:
            raise ValueError("too long")
        data = json.loads(line)
        record = Record(**data)
        if not (
            isinstance(record.sequence, int)
            and isinstance(record.body, dict)
            and isinstance(record.kind, str)
            and isinstance(record.at, str)
            and all(_DIGEST.fullmatch(v) for v in (record.salt, record.previous, record.digest))
            and _SIGNATURE.fullmatch(record.signature)
        ):
            raise TypeError("a field has the wrong type or form")
        if record.to_line() != line:
            raise ValueError("not in canonical form")
    except (TypeError, ValueError, RecursionError) as error:
        raise LedgerDamaged(f"a line is not a ledger record: {error}") from error
    return record


def verify_chain(
    lines: Iterable[str], signers: bytes | Signers, *, after: Record | None = None
) -> Iterator[Record]:
    """Parse and verify records in order, yielding each once it is known to be sound.

    Args:
        lines: Stored lines, first to last.
        signers: The 32-byte Ed25519 key that opened the ledger; with `after`, who may sign by
            then. It is brought up to date with each record.
        after: The verified record that the first line follows; None at the start of a chain.

    Raises:
        LedgerDamaged: Names the first record that does not verify.
    """
    if isinstance(signers, bytes):
        signers = Signers(signers)
    sequence, previous = (0, GENESIS) if after is None else (after.sequence, after.digest)
    for line in lines:
        where = f"record {sequence + 1}"
        try:
            record = parse_line(line)
        except LedgerDamaged as error:
            raise LedgerDamaged(f"{where}: {error}") from error
        if record.sequence != sequence + 1:
            raise LedgerDamaged(f"{where} carries sequence {record.sequence}: one is missing")
        if record.previous != previous:
            raise LedgerDamaged(f"{where} does not continue the record before it")
        expected = _digest(
            record.sequence, record.kind, record.at, record.body, record.salt, record.previous
        )
        if record.digest != expected:
            raise LedgerDamaged(f"{where} was altered: its digest does not match its content")
        if not is_signed_by(record, signers.key_for(record)):
            whose = (
                "the identity that it names" if "signer" in record.body else "this site's identity"
            )
            raise LedgerDamaged(f"{where} is not signed by {whose}")
        try:
            signers.apply(record)
        except (LedgerError, KeyError) as error:
            raise LedgerDamaged(f"{where} ({record.kind}) does not hold: {error}") from error
        sequence, previous = record.sequence, record.digest
        yield record


def is_signed_by(record: Record, public_key: bytes) -> bool:
    """Whether a record carries a key's signature."""
    message = _DOMAIN + bytes.fromhex(record.digest)
    return verifies(public_key, bytes.fromhex(record.signature), message)


def verifies(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether an Ed25519 signature is a key's under a message."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def verify_lines(lines: Sequence[str]) -> list[Record]:
    """Verify a whole chain against the key that its first record names.

    Raises:
        LedgerDamaged: There are no records, no key, or one record does not verify.
    """
    if not lines:
        raise LedgerDamaged("the ledger holds no records")
    public_key = parse_line(lines[0]).body.get("public_key")
    if not isinstance(public_key, str) or not _DIGEST.fullmatch(public_key):
        raise LedgerDamaged("the first record names no public key")
    return list(verify_chain(lines, bytes.fromhex(public_key)))


def _digest(
    sequence: int, kind: str, at: str, body: dict[str, Any], salt: str, previous: str
) -> str:
    content = canonical_json(
        {
            "sequence": sequence,
            "kind": kind,
            "at": at,
            "body": body,
            "salt": salt,
            "previous": previous,
        }
    )
    return hashlib.sha256(_DOMAIN + content.encode()).hexdigest()
