"""Guards the server's application: identity, limits, and answers of one form.

Nothing of a request's body is read before its sender is known and its length is allowed.

`transports.https.server` wraps the application in it. A request is identified by its certificate,
admitted by its party's rate, its length is checked, and only then does it wait for room and reach
the application.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from fmfl_secure.errors import Problem
from fmfl_secure.settings.service import Limits
from fmfl_secure.transports.https.access import Access
from fmfl_secure.transports.https.metrics import ServerMetrics

PEER: Final = "fmfl.peer"  # key of a request's scope
_LARGE: Final = 1 << 16  # bytes of a body, from which on it waits for its turn
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def problem_body(problem: Problem) -> bytes:
    """The one form of all answers that refuse."""
    body: dict[str, object] = {"code": problem.reason, "message": str(problem)}
    if problem.received >= 0:
        body["received"] = problem.received
    return json.dumps(body).encode()


async def answer(problem: Problem, send: Send, *, close: bool) -> None:
    """Sends a problem as the response."""
    body = problem_body(problem)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if close:  # a body that nobody reads would be taken for the next request
        headers.append((b"connection", b"close"))
    if problem.retry_after_s:
        headers.append((b"retry-after", b"%d" % problem.retry_after_s))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float
    under_way: int = 0
    large: asyncio.Lock = field(default_factory=asyncio.Lock)


class Guard:
    """ASGI middleware around the server's application.

    Args:
        app: The application.
        access: Who may speak.
        limits: How much.
        heard: Told the name of every party that gets through.
        metrics: Counts.
    """

    def __init__(
        self,
        app: App,
        *,
        access: Access,
        limits: Limits,
        heard: Callable[[str], None],
        metrics: ServerMetrics,
    ) -> None:
        self._app = app
        self._access = access
        self._limits = limits
        self._heard = heard
        self._metrics = metrics
        self._buckets: dict[str, _Bucket] = {}
        self._turns = asyncio.Semaphore(limits.bodies_at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, begun, role = time.monotonic(), 500, False, "none"
        body = _Body(receive, self._limits.body_s)

        async def counted(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                if body.broken:
                    headers = [*message.get("headers", []), (b"connection", b"close")]
                    message = {**message, "headers": headers}
            await send(message)

        bucket: _Bucket | None = None
        try:
            peer = self._access.check(scope.get(PEER))
            role = peer.role
            bucket = self._admit(f"{peer.role}/{peer.name}")
            length = self._check_length(scope)
            self._heard(peer.name)
            async with self._turn(bucket, length):
                await self._app(scope, body, counted)
        except Problem as problem:
            if not begun:
                await answer(problem, counted, close=True)
        finally:
            if bucket is not None:
                bucket.under_way -= 1
            path = getattr(scope.get("route"), "path", "")
            self._metrics.request(role, path, scope["method"], status, time.monotonic() - started)

    def _admit(self, party: str) -> _Bucket:
        limits, now = self._limits, time.monotonic()
        bucket = self._buckets.setdefault(party, _Bucket(float(limits.burst), now))
        refill = (now - bucket.at) * limits.requests_per_s
        bucket.tokens, bucket.at = min(float(limits.burst), bucket.tokens + refill), now
        if bucket.tokens < 1:
            wait_s = int((1 - bucket.tokens) / limits.requests_per_s) + 1
            raise Problem(429, "rate", "too many requests", retry_after_s=wait_s)
        if bucket.under_way >= limits.requests_at_once:
            raise Problem(429, "concurrency", "too many requests at once", retry_after_s=1)
        bucket.tokens -= 1
        bucket.under_way += 1
        return bucket

    @asynccontextmanager
    async def _turn(self, bucket: _Bucket, length: int) -> AsyncIterator[None]:
        """Room for a body. What large ones take does not grow with the number of parties.

        A party has one turn at a time, so that slow ones do not keep all others waiting.
        """
        if length < _LARGE:
            yield
            return
        async with bucket.large, self._turns:
            yield

    def _check_length(self, scope: Scope) -> int:
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers:
            raise Problem(411, "length", "a body needs its length beforehand")
        raw = headers.get(b"content-length", b"0")
        if not raw.isdigit() or len(raw) > 12:
            raise Problem(400, "malformed", "the length of the body is no number")
        if int(raw) > self._limits.part_bytes:
            text = f"a body has at most {self._limits.part_bytes} bytes"
            raise Problem(413, "too-large", text)
        return int(raw)


class _Body:
    """A request's stream, which ends in an error if the body takes too long.

    Args:
        receive: The stream.
        limit_s: From when it is first asked for until its end.
    """

    def __init__(self, receive: Receive, limit_s: float) -> None:
        self._receive = receive
        self._limit_s = limit_s
        self._deadline = 0.0
        self._whole = False
        self.broken = False  # what is left of it would be taken for the next request

    async def __call__(self) -> Message:
        if self._whole:  # what is waited for now is the end of the connection
            return await self._receive()
        self._deadline = self._deadline or time.monotonic() + self._limit_s
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            self.broken = True
            raise Problem(408, "too-slow", "the body took too long") from None
        self._whole = not message.get("more_body", False)
        return message
