"""A network on loopback that misbehaves, by a seed: between parties and the server's port.

Each connection draws what becomes of it: nothing, or after so many bytes of an answer a delay, an
end, a reset, two pieces in the wrong order, or silence until it is reset. All of it is bounded:
after `most` misfortunes connections are let be.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from typing import Final, Self

KINDS: Final = ("delay", "truncate", "reset", "reorder", "black-hole")
_PIECE: Final = 16 * 1024
_SILENT_S: Final = 1.5
_DELAY_S: Final = 0.3


class Proxy:
    """Takes connections on one port and passes them on to another, while it is open.

    Args:
        port: Where parties connect to.
        to: The server's.
        seed: Decides what happens.
        one_in: Of so many connections one meets with something.
        most: Misfortunes in all.
    """

    def __init__(self, port: int, to: int, *, seed: int, one_in: int = 3, most: int = 40) -> None:
        self._to = to
        self._drawn = random.Random(seed)
        self._one_in = one_in
        self._left = most
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.met: Counter[str] = Counter()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                party, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(party,), daemon=True).start()

    def _draw(self) -> tuple[str, int]:
        """What a connection meets, and after how many bytes of the server's."""
        with self._lock:
            # The first always meets with something, so that no run is without.
            if self._left == 0 or (self.met and self._drawn.randrange(self._one_in)):
                return "", 0
            self._left -= 1
            kind = self._drawn.choice(KINDS)
            self.met[kind] += 1
            return kind, self._drawn.choice((0, 500, 4_000, 20_000, 200_000))

    def _carry(self, party: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._to), timeout=5)
            server.settimeout(None)
        except OSError:  # it is not up, or down: as the party sees it
            _reset(party)
            return
        kind, after = self._draw()
        threading.Thread(target=_pass, args=(party, server), daemon=True).start()
        with contextlib.suppress(OSError):
            self._answers(server, party, kind, after)
        for each in (party, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _answers(self, server: socket.socket, party: socket.socket, kind: str, after: int) -> None:
        passed = 0
        while data := server.recv(_PIECE):
            if kind and passed + len(data) > after:
                if kind == "delay":
                    self._closing.wait(_DELAY_S)
                    kind = ""
                elif kind == "truncate":
                    party.sendall(data[: len(data) // 2])
                    return
                elif kind == "reset":
                    _reset(party)
                    return
                elif kind == "reorder":
                    half = len(data) // 2
                    data = data[half:] + data[:half]
                    kind = ""
                else:
                    self._closing.wait(_SILENT_S)
                    _reset(party)
                    return
            party.sendall(data)
            passed += len(data)


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_PIECE):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _reset(connection: socket.socket) -> None:
    """End a connection without a goodbye."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
