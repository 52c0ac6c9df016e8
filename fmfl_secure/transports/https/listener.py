"""How uvicorn is run here: it says who is on the other end, and does not wait for slow heads.

`transports.https.server` serves the federation's port with it, and
`transports.https.processes.operations` a party's own.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from fmfl_secure.errors import Problem, ServiceError
from fmfl_secure.provisioning.certificates import Peer, read_peer
from fmfl_secure.settings.service import Limits
from fmfl_secure.transports.https.connections import Door
from fmfl_secure.transports.https.guard import PEER, App, Receive, Scope, Send, problem_body


class _Protocol(H11Protocol):
    """An HTTP/1.1 connection that knows its peer and has a time limit for request heads."""

    limits: Limits = Limits()
    door: Door | None = None

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        peer = _peer_of(transport)
        if self.door is not None:
            party = f"{peer.role}/{peer.name}" if peer is not None else ""
            number = transport.get_extra_info("socket").fileno()
            if not self.door.established(number, party, most=self.limits.connections_of_party):
                transport.abort()
                return
        self.app = _with_peer(self.app, peer)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._watch_head()
        else:
            self._unwatch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch_head()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        self._refuse(Problem(400, "malformed", "this is no HTTP request"))

    def _watch_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_s, self._too_slow)

    def _unwatch_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self._refuse(Problem(408, "too-slow", "the head of a request took too long"))

    def _refuse(self, problem: Problem) -> None:
        body = problem_body(problem)
        head = (
            f"HTTP/1.1 {problem.status} Refused\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def _peer_of(transport: asyncio.Transport) -> Peer | None:
    tls = transport.get_extra_info("ssl_object")
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    try:
        return read_peer(der) if der else None
    except ServiceError:
        return None


def _with_peer(app: Any, peer: Peer | None) -> Any:
    inner: App = app

    async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
        scope[PEER] = peer
        await inner(scope, receive, send)

    return with_peer


class Listener(uvicorn.Server):
    """A uvicorn server that tells when it is asked to stop, before it waits for connections.

    Args:
        config: uvicorn's.
        stopping: Called once, from the event loop's thread.
        door: Where connections come in, if not at the settings' address and port.
    """

    def __init__(
        self, config: uvicorn.Config, stopping: Callable[[], None], door: Door | None = None
    ) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._door = door

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serves until it is told to stop, as uvicorn does."""
        await super().serve(sockets if self._door is None else [self._door])

    def stop(self) -> None:
        """Stop taking connections; what is under way is finished. Safe from any thread."""
        self.should_exit = True
        self._stopping()

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002 - uvicorn's signature
        """Stop on a signal. The process ends by itself, and not by the signal raised again."""
        if self.should_exit:
            self.force_exit = True
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on, once it does."""
        return int(self.servers[0].sockets[0].getsockname()[1])


def https_config(
    app: Any, *, door: Door, context: ssl.SSLContext, limits: Limits
) -> uvicorn.Config:
    """Uvicorn's settings for the federation's port."""
    protocol = type("_LimitedProtocol", (_Protocol,), {"limits": limits, "door": door})
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(limits.idle_s),
        timeout_graceful_shutdown=1,
        ssl_context_factory=lambda _config, _default: context,
    )


def loopback_config(app: Any, *, address: str, port: int) -> uvicorn.Config:
    """Uvicorn's settings for the operations port: plain HTTP, a token in every request."""
    return uvicorn.Config(
        app,
        host=address,
        port=port,
        http=type("_LimitedProtocol", (_Protocol,), {"limits": Limits(connections=64)}),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
