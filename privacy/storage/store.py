"""The interface of a store and of its transactions; both stores implement it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

Dialect = Literal["sqlite", "postgresql"]


class Transaction(Protocol):
    """Reads and writes between the beginning and the end of a transaction."""

    def execute(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement; returns its rows, none for a statement that has none.

        Args:
            statement: SQL with `?` for each parameter.
            parameters: Whole numbers, text, bytes or None.
        """
        ...


class Store(Protocol):
    """One place for a few tables.

    Attributes:
        name: Its name in messages: a path, or a URL without its secrets.
    """

    name: str

    @property
    def dialect(self) -> Dialect:
        """Which table definitions it takes."""
        ...

    def exists(self) -> bool:
        """Whether something was created here.

        Raises:
            StorageUnavailable: It cannot be known.
        """
        ...

    def create(self, tables: Sequence[str]) -> AbstractContextManager[Transaction]:
        """Create the tables, and what the caller adds, in one transaction.

        Args:
            tables: Definitions in this store's dialect.

        Raises:
            StorageExists: Something is here.
            StorageUnavailable: No access, or not durable.
        """
        ...

    def read(self) -> AbstractContextManager[Transaction]:
        """A transaction that writes nothing.

        Raises:
            StorageMissing, StorageUnavailable, StorageDamaged: See the classes.
        """
        ...

    def write(self) -> AbstractContextManager[Transaction]:
        """A transaction with no other writer beside it; durable when it ends without an error.

        Raises:
            StorageMissing, StorageUnavailable, StorageDamaged: See the classes. With
                `StorageUnavailable` at its very end, a change may or may not have been kept.
        """
        ...

    def kept_open(self) -> AbstractContextManager[None]:
        """Inside, calls share one connection, one at a time, of whichever thread; closed then.

        What a change has written is as durable when it ends as without. No transaction stays open.
        """
        ...

    def close(self) -> None:
        """Release a connection that was kept open. Another call opens one again."""
        ...
