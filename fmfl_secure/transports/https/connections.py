"""The door: connections are counted as they are accepted, before TLS and before anyone is known.

A bare connection costs whoever makes it nothing, and here a descriptor and, for TLS, tens of KiB.
So of those that have not shown a certificate yet there are so many at a time, and of one address
fewer. When they are all taken, the oldest of the address that has most goes, so that whoever does
speak TLS gets through in a flood. Of those that have shown one, each party has its own number. What
the process keeps for itself, the state of the run first, no connection can take: all of them
together stay below its limit of descriptors.

`transports.https.server` opens the `Door` with as much room as `room_for` finds;
`transports.https.listener` tells it of each connection that has shown a certificate, and of each
that is gone.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import resource
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from fmfl_secure.errors import ServiceError
from fmfl_secure.settings.service import Limits

_LOG = logging.getLogger("fmfl_secure.transports.https.connections")
_OWN: Final = 96  # descriptors that the process itself may need: stores, certificates, a report
_FEWEST: Final = 16  # connections, however few descriptors there are
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with nothing left behind


@dataclass(frozen=True, slots=True)
class Room:
    """How many connections there may be.

    Attributes:
        connections: In all.
        handshakes: Of them, without a certificate yet.
        from_address: Of those, of one address.
    """

    connections: int
    handshakes: int
    from_address: int


def room_for(limits: Limits) -> Room:
    """Makes room for the settings' connections, as far as the limit of descriptors allows.

    The soft limit is raised to the hard one where that is needed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + limits.handshakes + _OWN
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    free = wanted if soft == resource.RLIM_INFINITY else soft - _OWN
    handshakes = max(_FEWEST // 2, min(limits.handshakes, free // 4))
    connections = max(_FEWEST // 2, min(limits.connections, free - handshakes))
    if connections < limits.connections:
        _LOG.warning(
            "%s connections at a time, not %s: this process may have %s descriptors (ulimit -n)",
            connections,
            limits.connections,
            soft,
        )
    return Room(connections, handshakes, min(limits.handshakes_from_address, handshakes))


class _Accepted(socket.socket):
    """A connection that says when it is closed."""

    door: Door | None = None
    address: str = ""
    party: str | None = None

    def close(self) -> None:
        door, self.door = self.door, None
        if door is not None:
            door.gone(self)
        super().close()


class Door(socket.socket):
    """A listening socket that lets in as many connections as there is room for.

    Args:
        address: Interface.
        port: TCP port; 0 takes a free one.
        room: How many.
        handshake_s: From the connection to a certificate.

    Raises:
        ServiceError: The place is taken, or is none of this machine's.
    """

    def __init__(self, address: str, port: int, room: Room, *, handshake_s: float) -> None:
        try:
            found = socket.getaddrinfo(
                address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, place = min(found, key=lambda one: one[0])  # IPv4 first
            super().__init__(family, kind, protocol)
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.bind(place)
        except OSError as error:
            raise ServiceError(
                f"cannot listen on {address}, port {port}: {error.strerror or error}",
                hint="Stop the other server, or set another port in [listen] of service.toml.",
            ) from error
        self._room = room
        self._handshake_s = handshake_s
        self._early: dict[_Accepted, asyncio.TimerHandle] = {}  # the oldest first
        self._by_address: Counter[str] = Counter()
        self._by_party: Counter[str] = Counter()
        self._known: dict[int, _Accepted] = {}
        self._spare = os.open(os.devnull, os.O_RDONLY)
        self._turned_away = 0

    def close(self) -> None:
        """Stops listening, and gives back the spare descriptor."""
        super().close()
        spare, self._spare = self._spare, -1
        if spare >= 0:
            os.close(spare)

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that there is room for; as `socket.accept`."""
        while True:
            connection, address = self._next()
            connection.address = _neighbourhood(str(address[0]))
            if self._make_room(connection.address):
                break
            self._turn_away(connection)
        connection.door = self
        self._by_address[connection.address] += 1
        loop = asyncio.get_running_loop()
        self._early[connection] = loop.call_later(self._handshake_s, _cut, connection)
        self._known[connection.fileno()] = connection
        return connection, address

    def established(self, fileno: int, party: str, *, most: int) -> bool:
        """A connection has shown its certificate; whether its party may have another.

        Args:
            fileno: Of the connection.
            party: Whose certificate.
            most: Connections of one party.
        """
        connection = self._known.get(fileno)
        if connection is None:  # cut off at this very moment
            return False
        self._no_longer_early(connection)
        self._by_party[party] += 1
        connection.party = party
        return self._by_party[party] <= most

    def gone(self, connection: _Accepted) -> None:
        """Forgets a connection that is closed."""
        self._known.pop(connection.fileno(), None)
        self._no_longer_early(connection)
        if connection.party is not None:
            _less(self._by_party, connection.party)

    def _no_longer_early(self, connection: _Accepted) -> None:
        timer = self._early.pop(connection, None)
        if timer is None:
            return
        timer.cancel()
        _less(self._by_address, connection.address)

    def _next(self) -> tuple[_Accepted, Any]:
        try:
            descriptor, address = self._accept()  # type: ignore[attr-defined]
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            # Whoever waits would wake the loop for ever: take one in by the spare, and send it off.
            os.close(self._spare)
            try:
                os.close(self._accept()[0])  # type: ignore[attr-defined]
            finally:
                self._spare = os.open(os.devnull, os.O_RDONLY)
            self._say("descriptors")
            raise ConnectionAbortedError("no descriptor is left") from error
        return _Accepted(self.family, self.type, self.proto, fileno=descriptor), address

    def _make_room(self, address: str) -> bool:
        if self._by_address[address] >= self._room.from_address:
            self._drop_oldest(address)
        elif len(self._early) >= self._room.handshakes:
            self._drop_oldest(self._by_address.most_common(1)[0][0])
        return len(self._known) - len(self._early) < self._room.connections

    def _drop_oldest(self, address: str) -> None:
        oldest = next(each for each in self._early if each.address == address)
        self._no_longer_early(oldest)
        _cut(oldest)
        self._say("handshakes")

    def _turn_away(self, connection: _Accepted) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.close()
        self._say("connections")

    def _say(self, what: str) -> None:
        self._turned_away += 1
        if self._turned_away & (self._turned_away - 1) == 0:  # 1, 2, 4, 8: a flood fills no log
            _LOG.warning("%s: turned away %s connections so far", what, self._turned_away)


def _neighbourhood(address: str) -> str:
    """Returns the addresses of one customer: of IPv6, a network of 2^64."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


def _cut(connection: socket.socket) -> None:
    """End a connection that something else still owns: it reads the end, and closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        if error.errno not in {errno.ENOTCONN, errno.EBADF}:
            raise
