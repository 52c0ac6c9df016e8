"""A ledger as it is read and written: verified whole, appended to under the store's write lock.

What may be appended is said in `privacy.ledger.ledger`; what records add up to, in
`privacy.ledger.budget`.

`ledger.custody` appends to it, and `Ledger` below that. A change opens a transaction, reads and
verifies the records, asks the rules, appends, and reads what it appended once more as a reader
would.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from privacy.errors import LedgerDamaged, LedgerError
from privacy.ledger.anchors import Anchor
from privacy.ledger.budget import Budget
from privacy.ledger.chain import (
    PROBE,
    Record,
    Signer,
    new_record,
    verifies,
    verify_chain,
    verify_lines,
)
from privacy.ledger.grants import GrantStatus
from privacy.ledger.signers import Signers
from privacy.ledger.tables import insert, ledger_errors, open_ledger_store, read_lines
from privacy.ledger.times import time_after
from privacy.storage import Transaction


class VerifiedLedger:
    """A ledger that is read whole, verified, and appended to in one transaction.

    Args:
        location: The SQLite file, or the URL of a PostgreSQL database.
        signer: The site's identity; None opens for reading only.

    Raises:
        LedgerError: There is no ledger there.
        LedgerUnavailable: It cannot be reached.
        LedgerDamaged: It is not a ledger, or does not verify.
    """

    def __init__(self, location: Path | str, *, signer: Signer | None = None) -> None:
        self._store = open_ledger_store(location)
        self._signer = signer
        self._key: bytes | None = None  # of the signer, once it is known to sign here
        self._heads: set[str] = set()  # that must be in it for anything to be charged
        # Of the last reading: lines, what they say, and the state they lead to. A ledger is read
        # whole for each charge; what is there byte for byte as before is not verified again.
        self._lines: list[str] = []
        self._records: list[Record] = []
        self._state: Budget | None = None
        self._unheard: Record | None = None  # may have been kept: the store's answer was lost
        self.budget()  # refuse a damaged ledger at once

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    @property
    def name(self) -> str:
        """The ledger's name in messages: its path, or its URL without secrets."""
        return self._store.name

    def kept_open(self) -> AbstractContextManager[None]:
        """Its connection stays open inside, for several calls."""
        return self._store.kept_open()

    @staticmethod
    def exists(location: Path | str) -> bool:
        """Whether there is a ledger, sound or not.

        Raises:
            LedgerUnavailable: It cannot be known.
        """
        store = open_ledger_store(location)
        with ledger_errors(store):
            return store.exists()

    def budget(self) -> Budget:
        """The verified state.

        Raises:
            LedgerDamaged: The chain, a signature or the arithmetic does not verify.
        """
        return self.state()[0]

    def state(self) -> tuple[Budget, Record]:
        """The verified state, and the last record that led to it.

        Raises:
            LedgerDamaged: The chain, a signature or the arithmetic does not verify.
        """
        records = self.records()
        return self._add_up(records), records[-1]

    def _verified(self, transaction: Transaction) -> list[Record]:
        lines, known = read_lines(transaction), len(self._lines)
        if known and lines[:known] == self._lines:
            signers = Signers.of(self._records)
            more = verify_chain(lines[known:], signers, after=self._records[-1])
            records = [*self._records, *more]
        else:
            records = verify_lines(lines)
        self._lines, self._records = lines, records
        return records

    def _add_up(self, records: Sequence[Record]) -> Budget:
        """The state that verified records lead to."""
        state = self._state
        if state is not None and state.follows(records):
            state = state.continued(records[state.sequence :])
        else:
            state = Budget.replay(records)
        self._state = state
        return state

    def status(self) -> list[GrantStatus]:
        """Every grant with what has become of it."""
        return self.budget().status()

    def records(self) -> list[Record]:
        """All records, verified.

        Raises:
            LedgerUnavailable: They cannot be reached.
            LedgerDamaged: One does not verify.
        """
        with ledger_errors(self._store), self._store.read() as transaction:
            return list(self._verified(transaction))

    def head(self) -> tuple[int, str]:
        """Sequence and digest of the last record: what others keep as an anchor."""
        last = self.records()[-1]
        return last.sequence, last.digest

    def anchor(self) -> Anchor:
        """The head, signed, for others to keep."""
        signer = self._require_signer()
        budget, last = self.state()
        return Anchor.sign(
            population=budget.population,
            public_key=self._own_key(budget),
            sequence=last.sequence,
            digest=last.digest,
            signer=signer,
        )

    def hold_to(self, anchors: Iterable[Anchor]) -> int:
        """Charge nothing from now on unless the ledger holds all these heads.

        Anchors of other populations and of other sites' ledgers are passed over.

        Returns:
            How many are this ledger's.

        Raises:
            LedgerLocked: It lacks one.
        """
        budget = self.budget()
        heads = budget.own_heads(anchors)
        self._heads.update(heads)
        budget.require_heads(heads)
        return len(heads)

    @contextmanager
    def _transaction(self, kind: str, *, locks: bool = False) -> Iterator[tuple[Budget, Append]]:
        signer = self._require_signer()
        with ledger_errors(self._store), self._store.write() as transaction:
            records = self._verified(transaction)
            budget = self._add_up(records)
            if locks:
                budget.require_heads(sorted(self._heads))
            name = budget.signers.name_of(self._own_key(budget)) or ""
            budget.signers.require(name, kind)
            landed = self._unheard if self._unheard in records else None
            append = Append(transaction, records[-1], signer, name, landed)
            yield budget, append
            if append.record is not None:
                self._require_readable(transaction)
                self._unheard = append.record
        self._unheard = None
        for record in (landed, append.record):  # kept: whatever comes next must find it there
            if record is not None:
                self._heads.add(record.head)

    def _require_readable(self, transaction: Transaction) -> None:
        """Verifies records just appended as they will be when read back, signatures included."""
        try:
            self._add_up(self._verified(transaction))
        except LedgerDamaged as error:
            raise LedgerError(
                f"the ledger is unchanged: what was to be added would not verify: {error}",
                hint="Check that the signer is the identity that the ledger was created with, or "
                "one that its custodian admitted.",
            ) from error

    def _own_key(self, budget: Budget) -> bytes:
        """The public key of whoever signs, as far as this ledger knows it; else its opener's."""
        if self._key is None:
            signature = self._require_signer().sign(PROBE)
            known = (bytes.fromhex(each.key) for each in budget.signers)
            self._key = next((key for key in known if verifies(key, signature, PROBE)), None)
        return self._key or budget.public_key

    def _require_signer(self) -> Signer:
        if self._signer is None:
            raise LedgerError("this ledger is open for reading only")
        return self._signer


class Append:
    """Appends records inside a transaction.

    Attributes:
        signer: How records name who signs.
        now: The time of the transaction, not before the last record's.
        record: The last one appended; None before.
        landed: One that an earlier call appended and is here, although that call failed: the store
            kept it, and its answer was lost. None otherwise.
    """

    def __init__(
        self,
        transaction: Transaction,
        last: Record,
        signer: Signer,
        name: str,
        landed: Record | None,
    ) -> None:
        self._transaction, self._last, self._signer = transaction, last, signer
        self.signer = name
        self.now = time_after(last.at)
        self.record: Record | None = None
        self.landed = landed

    def has_landed(self, kind: str, body: dict[str, object]) -> bool:
        """Whether it was appended by the call before this one, which failed after it was kept."""
        found = self.landed
        return found is not None and found.kind == kind and found.body == {**body, **self._signed()}

    def _signed(self) -> dict[str, object]:
        return {"signer": self.signer} if self.signer else {}

    def __call__(self, kind: str, body: dict[str, object]) -> None:
        """Append one."""
        body = {**body, **self._signed()}
        self.record = new_record(previous=self._last, kind=kind, body=body, signer=self._signer)
        insert(self._transaction, self.record)
        self._last = self.record
