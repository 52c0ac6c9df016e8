"""How a ledger lies in a store: one append-only table, and the errors of a store in its words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from privacy.errors import (
    LedgerDamaged,
    LedgerError,
    LedgerUnavailable,
    StorageDamaged,
    StorageError,
    StorageExists,
    StorageMissing,
    StorageUnusable,
)
from privacy.ledger.chain import Record
from privacy.storage import Store, Transaction, open_store

_APPLICATION_ID = 0x464D464C  # "FMFL", in the SQLite header
_SCHEMA = "fmfl_ledger"  # in PostgreSQL, where the URL names none

# The triggers keep honest tools honest; against others there is the chain.
TABLES = {
    "sqlite": (
        "CREATE TABLE records (sequence INTEGER PRIMARY KEY, line TEXT NOT NULL) STRICT",
        """CREATE TRIGGER records_are_not_edited BEFORE UPDATE ON records
             BEGIN SELECT RAISE(ABORT, 'ledger records are append-only'); END""",
        """CREATE TRIGGER records_are_not_deleted BEFORE DELETE ON records
             BEGIN SELECT RAISE(ABORT, 'ledger records are append-only'); END""",
        # REPLACE deletes without a word to the trigger above.
        """CREATE TRIGGER records_are_not_replaced BEFORE INSERT ON records
             WHEN EXISTS (SELECT 1 FROM records WHERE sequence = NEW.sequence)
             BEGIN SELECT RAISE(ABORT, 'ledger records are append-only'); END""",
    ),
    "postgresql": (
        "CREATE TABLE records (sequence BIGINT PRIMARY KEY, line TEXT NOT NULL)",
        """CREATE FUNCTION records_are_append_only() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'ledger records are append-only'; END $$""",
        """CREATE TRIGGER records_are_not_edited BEFORE UPDATE OR DELETE OR TRUNCATE ON records
             FOR EACH STATEMENT EXECUTE FUNCTION records_are_append_only()""",
    ),
}


def open_ledger_store(location: Path | str) -> Store:
    """The store at a place, which may be a URL. Touches nothing.

    Raises:
        LedgerError: The URL cannot be read, or its driver is missing.
    """
    try:
        return open_store(location, schema=_SCHEMA, application_id=_APPLICATION_ID)
    except StorageError as error:
        raise LedgerError(str(error), hint=error.hint) from error


@contextmanager
def ledger_errors(store: Store) -> Iterator[None]:
    """A store's errors as the ledger's."""
    try:
        yield
    except StorageMissing as error:
        raise LedgerError(
            f"no ledger at {store.name}",
            hint="Put the latest backup back. A new site's is made with its keys, by fmfl-secure "
            "init or request; a lost one is never begun anew.",
        ) from error
    except StorageExists as error:
        raise LedgerError(f"{error}; a ledger is never replaced") from error
    except StorageDamaged as error:
        raise LedgerDamaged(f"not a readable ledger: {error}", hint=error.hint) from error
    except StorageUnusable as error:
        raise LedgerError(f"no ledger at {store.name}: {error}", hint=error.hint) from error
    except StorageError as error:
        raise LedgerUnavailable(str(error), hint=error.hint) from error


def insert(transaction: Transaction, record: Record) -> None:
    """Appends a record within the caller's transaction."""
    transaction.execute("INSERT INTO records VALUES (?, ?)", record.sequence, record.to_line())


def read_lines(transaction: Transaction) -> list[str]:
    """All records as they are stored, in order; not verified."""
    return [row[0] for row in transaction.execute("SELECT line FROM records ORDER BY sequence")]
