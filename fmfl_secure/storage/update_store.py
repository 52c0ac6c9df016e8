"""A site's store of its training: durable and encrypted, by run and round.

Finished, quantised updates until they are released, and the site's own parts of the adapter where
it has any: in a table that is named after the first part that there was, the head.

Storing an update before the site says that it is ready is what lets every later attempt at a
round send the same integers again, under fresh keys and masks, at no further privacy cost.

`parties.site_training` puts an update in once it is computed, and gets it again for each further
attempt; `parties.site` has it forgotten when the round is released.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from fmfl_secure.errors import RunDamaged, os_failure
from fmfl_secure.storage.errors import make_missing, storage_errors
from privacy.storage import Transaction, open_store

_NONCE_BYTES = 12
_FAILED: Final = "the stored updates failed"
_TABLES: Final = {
    "sqlite": (
        """CREATE TABLE updates (run TEXT, round INTEGER, sealed BLOB NOT NULL,
             PRIMARY KEY (run, round)) STRICT""",
        """CREATE TABLE heads (run TEXT, round INTEGER, sealed BLOB NOT NULL,
             PRIMARY KEY (run, round)) STRICT""",
    )
}
_ATTEMPTS: Final = {
    "sqlite": (
        """CREATE TABLE attempts (run TEXT PRIMARY KEY, round INTEGER, attempt INTEGER,
             sealed BLOB NOT NULL) STRICT""",
    )
}


class UpdateStore:
    """Updates by run and round, AES-256-GCM under the site's storage key.

    What opens an attempt after a restart, where sites may vanish, is sealed likewise in a file of
    its own beside it, made when it is first needed: files of 0.1.0 stay what they were.

    Args:
        path: SQLite file, made if missing.
        key: 32 bytes.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        # A file and never a database: updates are personal data until they are released.
        self._tables = open_store(path)
        self._attempts = open_store(path.with_name("attempts.sqlite"))
        self._cipher = AESGCM(key)
        with storage_errors(_FAILED):
            make_missing(self._tables, _TABLES)
            with self._tables.read() as transaction:
                transaction.execute("SELECT run FROM updates LIMIT 1")

    @classmethod
    def open(cls, folder: Path) -> UpdateStore:
        """The store of a site's folder, with the key that `init` made.

        Raises:
            RunDamaged: The key is missing, or others may read it.
            Unavailable: It cannot be read now.
        """
        path = folder / "storage.key"
        try:
            if path.stat().st_mode & 0o077:
                raise RunDamaged(f"others may read {path}", hint=f"chmod 600 {path}")
            key = path.read_bytes()
        except OSError as error:
            raise os_failure(RunDamaged, f"cannot read {path}", error) from error
        if len(key) != 32:
            raise RunDamaged(f"{path} does not hold a key of 32 bytes")
        return cls(folder / "updates.sqlite", key)

    def kept_open(self) -> AbstractContextManager[None]:
        """Its file stays open inside, for several calls."""
        return self._tables.kept_open()

    def put(
        self, run: str, round_number: int, integers: NDArray[np.int32], *, personal: bytes = b""
    ) -> None:
        """Store an update; durable when this returns. A round's update is stored once.

        Args:
            run: Run id.
            round_number: Round.
            integers: int32, shape (d,).
            personal: The site's own parts after it, stored in the same transaction; empty for none.

        Raises:
            RunDamaged: One is stored for this round already.
            Unavailable: It cannot be written now; nothing was stored.
        """
        sealed = self._seal(integers.astype("<i4").tobytes(), _context(run, round_number))
        with self._write() as transaction:
            transaction.execute("INSERT INTO updates VALUES (?, ?, ?)", run, round_number, sealed)
            if personal:
                kept = self._seal(personal, _personal_context(run, round_number))
                transaction.execute("INSERT INTO heads VALUES (?, ?, ?)", run, round_number, kept)

    def get(self, run: str, round_number: int) -> NDArray[np.int32] | None:
        """The stored update, or None.

        Raises:
            RunDamaged: It was altered, or the key is another.
            Unavailable: It cannot be read now.
        """
        query = "SELECT sealed FROM updates WHERE run = ? AND round = ?"
        rows = self._read(query, run, round_number)
        if not rows:
            return None
        data = self._open(
            bytes(rows[0][0]), _context(run, round_number), f"update of round {round_number}"
        )
        return np.frombuffer(data, dtype="<i4").astype(np.int32)

    def personal(self, run: str) -> bytes:
        """The site's own parts after the last round it trained; empty where there are none.

        Raises:
            RunDamaged: It was altered, or the key is another.
            Unavailable: It cannot be read now.
        """
        query = "SELECT round, sealed FROM heads WHERE run = ? ORDER BY round DESC LIMIT 1"
        rows = self._read(query, run)
        if not rows:
            return b""
        number, sealed = rows[0]
        return self._open(
            bytes(sealed),
            _personal_context(run, number),
            f"record of its own parts of round {number}",
        )

    def keep_attempt(self, run: str, round_number: int, attempt: int, data: bytes) -> None:
        """Store what opens an attempt after a restart, in the place of any other of the run.

        Raises:
            Unavailable: It cannot be written now; nothing was stored.
        """
        sealed = self._seal(data, _attempt_context(run, round_number, attempt))
        with storage_errors(_FAILED):
            make_missing(self._attempts, _ATTEMPTS)
            with self._attempts.write() as transaction:
                _erase_attempt(transaction, run)
                statement = "INSERT INTO attempts VALUES (?, ?, ?, ?)"
                transaction.execute(statement, run, round_number, attempt, sealed)

    def kept_attempt(self, run: str, round_number: int, attempt: int) -> bytes:
        """Returns the sealed state that opens an attempt; empty where none is kept.

        Raises:
            RunDamaged: It was altered, or the key is another.
            Unavailable: It cannot be read now.
        """
        query = "SELECT sealed FROM attempts WHERE run = ? AND round = ? AND attempt = ?"
        with storage_errors(_FAILED):
            if not self._attempts.exists():
                return b""
            with self._attempts.read() as transaction:
                rows = transaction.execute(query, run, round_number, attempt)
        if not rows:
            return b""
        context = _attempt_context(run, round_number, attempt)
        return self._open(bytes(rows[0][0]), context, f"attempt at round {round_number}")

    def forget_attempt(self, run: str) -> None:
        """Delete what opens an attempt of a run: it was opened, or is over."""
        with storage_errors(_FAILED):
            if self._attempts.exists():
                with self._attempts.write() as transaction:
                    _erase_attempt(transaction, run)

    def forget(self, run: str, round_number: int) -> None:
        """Delete an update that was released or can no longer be, and parts before its own."""
        with self._write() as transaction:
            transaction.execute("PRAGMA secure_delete=ON")
            transaction.execute(
                "DELETE FROM updates WHERE run = ? AND round <= ?", run, round_number
            )
            transaction.execute(
                "DELETE FROM heads WHERE run = ? AND round < ? AND round < "
                "(SELECT max(round) FROM heads WHERE run = ?)",
                run,
                round_number,
                run,
            )

    def _seal(self, data: bytes, context: bytes) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, context)

    def _open(self, sealed: bytes, context: bytes, what: str) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:  # the latter where the nonce is cut short
            raise RunDamaged(f"the stored {what} does not verify") from error

    def _read(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with storage_errors(_FAILED), self._tables.read() as transaction:
            return transaction.execute(query, *parameters)

    @contextmanager
    def _write(self) -> Iterator[Transaction]:
        with storage_errors(_FAILED), self._tables.write() as transaction:
            yield transaction


def _erase_attempt(transaction: Transaction, run: str) -> None:
    transaction.execute("PRAGMA secure_delete=ON")
    transaction.execute("DELETE FROM attempts WHERE run = ?", run)


def _attempt_context(run: str, round_number: int, attempt: int) -> bytes:
    return f"fmfl-secure/attempt/v1/{run}/{round_number}/{attempt}".encode()


def _context(run: str, round_number: int) -> bytes:
    return f"fmfl-secure/update/v1/{run}/{round_number}".encode()


def _personal_context(run: str, round_number: int) -> bytes:
    return f"fmfl-secure/head/v1/{run}/{round_number}".encode()
