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
        keep_open: Whether one is kept and shared from the start.
        usable: Whether a kept one can serve another call.
        source: What is connected to. Once it is another, a kept connection serves no more.
    """

    def __init__(
        self,
        *,
        keep_open: bool,
        usable: Callable[[C], bool] = lambda _: True,
        source: Callable[[], object] = lambda: None,
    ) -> None:
        self._keepers = int(keep_open)
        self._usable, self._source = usable, source
        self._lock = threading.RLock()  # a call inside another one has a connection of its own
        self._kept: tuple[C, object] | None = None

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep one inside, and share it; closed at the end, unless others keep it still."""
        with self._lock:
            self._keepers += 1
        try:
            yield
        finally:
            with self._lock:
                self._keepers -= 1
                if not self._keepers:
                    self._close()

    @contextmanager
    def get(self, connect: Callable[[], C]) -> Iterator[C]:
        """A connection with no transaction open; what is open at the end is rolled back.

        Args:
            connect: Makes one.
        """
        if not self._keepers:
            with closing(connect()) as connection:
                yield connection
            return
        with self._lock:
            source = self._source()  # before it is opened: one that comes between is noticed
            if self._kept is not None and not (
                self._kept[1] == source and self._usable(self._kept[0])
            ):
                self._close()
            kept, self._kept = self._kept, None
            connection = connect() if kept is None else kept[0]
            try:
                yield connection
                connection.rollback()
            except BaseException:
                connection.close()  # and whatever it had begun is rolled back
                raise
            self._close()  # of a call inside this one
            self._kept = connection, source
            if not self._keepers:  # its last keeper went meanwhile
                self._close()

    def close(self) -> None:
        """Closes the connection that is kept, if there is one."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[0].close()
