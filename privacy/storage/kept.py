"""A connection that several calls share, one at a time, or one that each call opens for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Generic, Protocol, TypeVar


class _Connection(Protocol):
    def close(self) -> None: ...

    def rollback(self) -> None: ...


C = TypeVar("C", bound=_Connection)


class Connections(Generic[C]):
    """Hands out connections.

    Args:
        keep_open: Whether one is kept and shared.
        usable: Whether a kept one can serve another call.
    """

    def __init__(self, *, keep_open: bool, usable: Callable[[C], bool]) -> None:
        self._keep_open = keep_open
        self._usable = usable
        self._lock = threading.Lock()
        self._kept: C | None = None

    @contextmanager
    def get(self, connect: Callable[[], C]) -> Iterator[C]:
        """A connection with no transaction open; what is open at the end is rolled back.

        Args:
            connect: Makes one.
        """
        if not self._keep_open:
            with closing(connect()) as connection:
                yield connection
            return
        with self._lock:
            kept, self._kept = self._kept, None
            if kept is not None and not self._usable(kept):
                kept.close()
                kept = None
            connection = connect() if kept is None else kept
            try:
                yield connection
                connection.rollback()
            except BaseException:
                connection.close()  # and whatever it had begun is rolled back
                raise
            self._kept = connection

    def close(self) -> None:
        """Close what is kept."""
        with self._lock:
            kept, self._kept = self._kept, None
            if kept is not None:
                kept.close()
