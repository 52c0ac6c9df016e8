"""A free TCP port on this machine: for benchmarks, tests and pictures, whose server comes later."""

from __future__ import annotations

import random
import socket
from typing import Final

# Below the range that the system gives to connections going out. A port from that range may be
# somebody's by the time the server starts: of a client even, that tried to reach the server on it.
_RANGE: Final = range(20_000, 32_000)
_TRIES: Final = 100


def free_port() -> int:
    """A port of the loopback interface that nobody listens on.

    Raises:
        OSError: There is none to be found.
    """
    for attempt in range(_TRIES):
        port = random.choice(_RANGE)  # noqa: S311 - any will do
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                if attempt == _TRIES - 1:
                    raise
            else:
                return port
    raise AssertionError
