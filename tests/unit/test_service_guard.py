"""The guard's turns: what large bodies take of memory does not grow with the number of parties."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from fmfl_secure.provisioning.certificates import SITE, Peer
from fmfl_secure.settings.service import Limits
from fmfl_secure.transports.https.guard import PEER, Guard, Message, Receive, Scope, Send
from fmfl_secure.transports.https.metrics import ServerMetrics

LARGE = 1 << 17


class _Everyone:
    """Lets everybody in: who may speak is tested with real certificates elsewhere."""

    def check(self, peer: Peer | None) -> Peer:
        assert peer is not None
        return peer


class _App:
    """Reads each body, then waits until it is told to answer."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.most = 0
        self.answer = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.inside.append(scope[PEER].name)
        self.most = max(self.most, len(self.inside))
        await receive()
        await self.answer.wait()
        self.inside.remove(scope[PEER].name)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def _scope(site: str, length: int) -> Scope:
    return {
        "type": "http",
        "method": "PUT",
        "path": "/",
        "headers": [(b"content-length", b"%d" % length)],
        PEER: Peer("tiny", SITE, site, serial=1, expires=datetime(2099, 1, 1, tzinfo=UTC)),
    }


async def _request(guard: Guard, site: str, length: int) -> list[int]:
    statuses = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await guard(_scope(site, length), receive, send)
    return statuses


async def _settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def _guard(app: _App, **limits: Any) -> Guard:
    return Guard(
        app,
        access=_Everyone(),  # type: ignore[arg-type]
        limits=Limits(**limits),
        heard=lambda _: None,
        metrics=ServerMetrics(),
    )


@pytest.mark.parametrize("turns", [1, 3])
def test_large_bodies_take_turns_over_all_parties(turns: int) -> None:
    async def scenario() -> tuple[int, int, list[list[int]]]:
        app = _App()
        guard = _guard(app, bodies_at_once=turns)
        asked = [asyncio.create_task(_request(guard, f"site-{n}", LARGE)) for n in range(10)]
        await _settle()
        waiting = len(app.inside)
        app.answer.set()
        return waiting, app.most, list(await asyncio.gather(*asked))

    waiting, most, statuses = asyncio.run(scenario())
    assert waiting == most == turns, "as many as there are turns, and no more"
    assert statuses == [[204]] * 10, "every one is answered in the end"


def test_one_party_holds_one_turn_and_small_requests_need_none() -> None:
    async def scenario() -> list[str]:
        app = _App()
        guard = _guard(app, bodies_at_once=2)
        asked = [asyncio.create_task(_request(guard, "greedy", LARGE)) for _ in range(5)]
        await _settle()
        asked.append(asyncio.create_task(_request(guard, "modest", LARGE)))
        asked.append(asyncio.create_task(_request(guard, "greedy", 100)))
        await _settle()
        inside = list(app.inside)
        app.answer.set()
        await asyncio.gather(*asked)
        return inside

    assert asyncio.run(scenario()) == ["greedy", "modest", "greedy"]


def test_a_turn_is_given_back_by_a_request_that_fails() -> None:
    class _Failing(_App):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope[PEER].name == "broken":
                raise ConnectionResetError
            await super().__call__(scope, receive, send)

    async def scenario() -> list[int]:
        app = _Failing()
        app.answer.set()
        guard = _guard(app, bodies_at_once=1)
        with pytest.raises(ConnectionResetError):
            await _request(guard, "broken", LARGE)
        return await _request(guard, "site-1", LARGE)

    assert asyncio.run(scenario()) == [204]
