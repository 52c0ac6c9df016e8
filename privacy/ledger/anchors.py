"""Anchors: a ledger's head at some moment, signed by the site, kept where the site's backup is not.

A chain whose end was cut off, or that was put back from yesterday's backup, verifies. Only someone
who remembers a later head can tell. Other parties of a federation keep the heads they saw; the
data-protection officer keeps anchors outside the backup. Whoever holds one learns that the ledger
of a population had so many records, and nothing of what they say: each digest is over 32 random
bytes besides.

An anchor is one line of canonical JSON; a file may hold many, a folder many files.

A party signs one from its `Ledger` and gives it away; `storage.anchor_store` keeps those of
others. Before a run reserves, `parties.run_budget` reads the officer's with `read_anchors`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from privacy.errors import LedgerError
from privacy.ledger.chain import Signer, canonical_json

_DOMAIN = b"fmfl-secure/ledger-anchor/v1\x00"
_HEX_32 = re.compile(r"[0-9a-f]{64}")
_HEX_64 = re.compile(r"[0-9a-f]{128}")
_MAX_BYTES = 4096  # of one line
_MAX_SEQUENCE = 10**18


@dataclass(frozen=True, slots=True)
class Anchor:
    """A ledger's head, signed. Made by `sign` and `parse`, which both see to its signature.

    Attributes:
        population: Whose ledger.
        public_key: The site's Ed25519 key, 64 hex digits: the key that signs the records too.
        sequence: Number of records.
        digest: Digest of the last one.
        at: UTC time of the anchor.
        signature: Ed25519 over the rest, 128 hex digits.
    """

    population: str
    public_key: str
    sequence: int
    digest: str
    at: str
    signature: str

    @classmethod
    def sign(
        cls, *, population: str, public_key: bytes, sequence: int, digest: str, signer: Signer
    ) -> Anchor:
        """A new anchor.

        Raises:
            LedgerError: The signer is not the one whose public key this is.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        unsigned = cls(population, public_key.hex(), sequence, digest, at, "")
        return cls.parse(unsigned._with(signer.sign(_DOMAIN + unsigned.content)).line)

    @property
    def head(self) -> str:
        """The head in one word, `SEQUENCE:DIGEST`."""
        return f"{self.sequence}:{self.digest}"

    @property
    def content(self) -> bytes:
        """Canonical JSON of all fields but the signature: the bytes signed, less their domain."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "signature"}
        return canonical_json(fields).encode()

    @property
    def line(self) -> str:
        """The stored form, without a line's end."""
        return canonical_json({name: getattr(self, name) for name in self.__slots__})

    def _with(self, signature: bytes) -> Anchor:
        return Anchor(
            self.population, self.public_key, self.sequence, self.digest, self.at, signature.hex()
        )

    @classmethod
    def parse(cls, line: str) -> Anchor:
        """Read a stored line and check its signature under the key that it names.

        Raises:
            LedgerError: It is not an anchor, or not signed.
        """
        if not isinstance(line, str) or len(line) > _MAX_BYTES:
            raise LedgerError(f"a line is not a ledger's anchor: no text of {_MAX_BYTES} at most")
        return _parse(line)


# The same anchor is told by many, kept, and told again; what failed is not remembered.
@lru_cache(maxsize=4096)
def _parse(line: str) -> Anchor:
    try:
        anchor = Anchor(**json.loads(line))
        if not (
            type(anchor.sequence) is int
            and 0 < anchor.sequence < _MAX_SEQUENCE
            and isinstance(anchor.population, str)
            and isinstance(anchor.at, str)
            and _HEX_32.fullmatch(anchor.public_key)
            and _HEX_32.fullmatch(anchor.digest)
            and _HEX_64.fullmatch(anchor.signature)
            and anchor.line == line
        ):
            raise ValueError("a field has the wrong type or form")
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(anchor.public_key))
        key.verify(bytes.fromhex(anchor.signature), _DOMAIN + anchor.content)
    except InvalidSignature:
        raise LedgerError("an anchor is not signed by the site that it names") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise LedgerError(f"a line is not a ledger's anchor: {error}") from error
    return anchor


def read_anchors(path: Path) -> list[Anchor]:
    """Anchors in a file, or in every file of a folder.

    Raises:
        LedgerError: There is nothing, it cannot be read, or a line is not a signed anchor.
    """
    try:
        files = (
            sorted(file for file in path.iterdir() if not file.name.startswith("."))
            if path.is_dir()
            else [path]
        )
        lines = [
            (file, line) for file in files for line in file.read_text("ascii").splitlines() if line
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise LedgerError(
            f"cannot read the anchors in {path}: {error}",
            hint="Check that the medium is mounted that the officer keeps them on.",
        ) from error
    anchors = []
    for file, line in lines:
        try:
            anchors.append(Anchor.parse(line))
        except LedgerError as error:
            raise LedgerError(f"{file}: {error}") from error
    return anchors
