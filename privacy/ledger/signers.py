"""Who may sign a ledger's records: whoever opened it, and whom its custodian admitted since.

A ledger belongs to a population, and the same people may be in the data of several federations, in
each of which their site has an identity of its own. All of them sign in the one ledger. A record
that another than the opener signed names the key in its body, as `signer`; the opener's do not.

Custodians grant, admit and dismiss. The others reserve and commit, each for the runs that it
reserved itself. There is always a custodian.

`ledger.chain` asks it for the key that a record's signature must be under, `ledger.budget` applies
each record that changes it, and `ledger.verified` asks before it appends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from privacy.errors import LedgerDamaged, LedgerError

if TYPE_CHECKING:
    from privacy.ledger.chain import Record

OPENER: Final = ""  # how a record that the opener signed names it
_KEY: Final = re.compile(r"[0-9a-f]{64}")
_CUSTODIANS_ALONE: Final = frozenset(
    {"open", "settle", "grant", "lower", "close", "recover", "admit", "dismiss"}
)


@dataclass(frozen=True, slots=True)
class LedgerSigner:
    """An identity that signs, or signed, in a ledger.

    Attributes:
        key: Its Ed25519 public key, 64 hex digits.
        name: The custodian's name for it; empty for the opener.
        custodian: Whether it may grant, admit and dismiss.
        dismissed: Sequence of the record that dismissed it; None while it may sign.
    """

    key: str
    name: str = ""
    custodian: bool = False
    dismissed: int | None = None


class Signers:
    """The identities of one ledger, as its records up to some point say.

    Args:
        opener: The 32-byte key that the first record names.
    """

    def __init__(self, opener: bytes) -> None:
        self._opener = opener.hex()
        self._all = {self._opener: LedgerSigner(self._opener, custodian=True)}

    def __iter__(self) -> Iterator[LedgerSigner]:
        """All that ever were, in the order of their admission."""
        return iter(self._all.values())

    @classmethod
    def of(cls, records: Sequence[Record]) -> Signers:
        """Who may sign after a chain's verified records."""
        made = cls(bytes.fromhex(records[0].body["public_key"]))
        for record in records:
            made.apply(record)
        return made

    def copy(self) -> Signers:
        """The same, to go on from."""
        made = Signers(bytes.fromhex(self._opener))
        made._all = dict(self._all)
        return made

    def named(self, signer: str) -> LedgerSigner | None:
        """Who may sign under a name of `Record.body`, or None."""
        found = self._all.get(signer or self._opener)
        return None if found is None or found.dismissed is not None else found

    def name_of(self, key: bytes) -> str | None:
        """How records name a key that may sign; None for one that may not."""
        found = self.named(key.hex())
        if found is None:
            return None
        return OPENER if found.key == self._opener else found.key

    def vouches(self, key: str, sequence: int) -> bool:
        """Whether a head of so many records that a key signed is of this ledger.

        A key that was dismissed cannot have seen later heads than that.
        """
        found = self._all.get(key)
        if found is None:
            return False
        return found.dismissed is None or sequence <= found.dismissed

    def key_for(self, record: Record) -> bytes:
        """The key that a record's signature has to be under.

        Raises:
            LedgerDamaged: Nobody, or nobody who may sign this kind of record.
        """
        signer = record.body.get("signer", OPENER)
        found = self.named(signer) if isinstance(signer, str) and signer != self._opener else None
        if found is None:
            raise LedgerDamaged(
                f"record {record.sequence} is signed by an identity that the ledger does not admit"
            )
        if record.kind in _CUSTODIANS_ALONE and not found.custodian:
            raise LedgerDamaged(
                f"record {record.sequence} ({record.kind}) is a custodian's to sign, and is not"
            )
        return bytes.fromhex(found.key)

    def require(self, signer: str, kind: str) -> None:
        """Check that an identity may write a kind of record.

        Raises:
            LedgerError: It may not.
        """
        found = self.named(signer)
        if found is None or (kind in _CUSTODIANS_ALONE and not found.custodian):
            raise LedgerError(
                f"a {kind} is the decision of the ledger's custodian, and this identity is not",
                hint="--identity FILE names the custodian's key.",
            )

    def apply(self, record: Record) -> None:
        """Note what a record says of who may sign.

        Raises:
            LedgerError: It admits who may sign already, or dismisses who may not, or the last
                custodian; or the key is none.
        """
        if record.kind == "admit":
            self.admit(record.body["key"], record.body["name"], record.body.get("custodian", False))
        elif record.kind == "dismiss":
            self.dismiss(record.body["key"], record.sequence)

    def admit(self, key: object, name: object, custodian: object) -> None:
        """Lets a key sign from now on; errors as `apply`."""
        if not (isinstance(key, str) and _KEY.fullmatch(key)):
            raise LedgerError(f"{str(key)[:80]!r} is no public key: 64 hexadecimal digits")
        if not (isinstance(name, str) and name.strip() and type(custodian) is bool):
            raise LedgerError("an admission needs a name for who is admitted")
        if self.named(key) is not None:
            raise LedgerError(f"{key[:16]}... may sign in this ledger already")
        self._all[key] = LedgerSigner(key, name, custodian)

    def dismiss(self, key: object, sequence: int) -> None:
        """Lets a key sign records up to `sequence` and none after; errors as `apply`."""
        found = self.named(key) if isinstance(key, str) and key else None
        if found is None:
            raise LedgerError(f"{str(key)[:16]}... does not sign in this ledger")
        self._all[found.key] = replace(found, dismissed=sequence)
        if not any(each.custodian and each.dismissed is None for each in self):
            self._all[found.key] = found
            raise LedgerError("the last custodian of a ledger cannot be dismissed")
