"""Requests made up from the served description: refused or served, and never a failure."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from aggregation import Identity
from fmfl_secure.parties.stops import Stops
from fmfl_secure.parties.workspace import Members
from fmfl_secure.provisioning.certificates import SITE, Peer
from fmfl_secure.runtime.anchor_registry import AnchorRegistry
from fmfl_secure.runtime.inbox import Inbox
from fmfl_secure.runtime.server import take_stop
from fmfl_secure.runtime.task_board import TaskBoard
from fmfl_secure.storage.anchor_store import AnchorStore
from fmfl_secure.storage.message_store import open_store
from fmfl_secure.transports.https.app import build_app
from fmfl_secure.transports.https.guard import PEER
from fmfl_secure.transports.https.metrics import ServerMetrics

schemathesis = pytest.importorskip("schemathesis")
RUN = "0123456789abcdef"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory):
    """The server's application as site-1 reaches it, with a run under way."""
    import datetime as dt

    store = open_store("sqlite:store.sqlite", relative_to=tmp_path_factory.mktemp("openapi"))
    inbox = Inbox(store, part_bytes=1 << 16)
    sites = {"site-1": Identity.generate("site-1").public}
    inbox.open_run(RUN, sites)
    public = {n: Identity.generate(n).public for n in ("coordinator", "aggregator", "decryptor")}
    members = Members(**public, sites=sites)
    anchors = AnchorStore(tmp_path_factory.mktemp("heads") / "anchors.sqlite")
    inner = build_app(
        inbox=inbox,
        board=TaskBoard(),
        membership=list,
        heads=AnchorRegistry(anchors, store, lambda: members),
        take_stop=partial(take_stop, Stops(tmp_path_factory.mktemp("stops"), members)),
        metrics=ServerMetrics(),
    )
    far = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    peer = Peer("tiny", SITE, "site-1", 1, far)

    async def as_site(scope, receive, send) -> None:
        scope[PEER] = peer
        # Made-up questions for work would wait for up to a minute each.
        if scope["type"] == "http" and scope["path"] == "/v1/task":
            scope["query_string"] = scope["query_string"].replace(b"wait_s", b"wait")
        await inner(scope, receive, send)

    yield as_site
    store.close()


def call_all(app, examples: int) -> None:
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", app)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) >= 8
    for operation in operations:

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case) -> None:
            response = case.call()
            assert response.status_code < 500, case.as_curl_command()
            if response.status_code >= 400:
                assert set(response.json()) <= {"code", "message", "received"}
            case.validate_response(response, checks=[schemathesis.checks.not_a_server_error])

        check()


def test_no_made_up_request_fails_the_server(app) -> None:
    call_all(app, 4)
    assert threading.active_count() < 64


@pytest.mark.slow
def test_no_made_up_request_fails_the_server_in_long(app, tmp_path: Path) -> None:
    call_all(app, 500)
