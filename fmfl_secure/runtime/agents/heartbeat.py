"""A party that works for long is not a party that is gone: it says so now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from fmfl_secure.runtime.transport import ServerTransport

_HEARTBEAT_S: Final = 10.0


class Heartbeat:
    """While it is open, the server is told every now and then that this party lives."""

    def __init__(self, open_transport: Callable[[], ServerTransport]) -> None:
        self._open_transport = open_transport
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        with self._open_transport() as transport:
            while not self._done.wait(_HEARTBEAT_S):
                transport.heartbeat()
