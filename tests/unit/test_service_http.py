"""Bad input at the server's port: who gets in, and what everyone else is told."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import httpx
import pytest

from aggregation import Identity
from fmfl_secure.errors import Problem, Rejected, Unreachable
from fmfl_secure.parties.stops import Stops
from fmfl_secure.parties.workspace import Members
from fmfl_secure.provisioning.certificates import (
    CUSTODIAN,
    DECRYPTOR,
    SERVER,
    SITE,
    Issued,
    issue,
    new_authority,
    revocation_list,
    serial_of,
)
from fmfl_secure.provisioning.kit import write_private
from fmfl_secure.run.refusal_codes import MEANINGS
from fmfl_secure.run.stop import sign_stop
from fmfl_secure.runtime.anchor_registry import AnchorRegistry
from fmfl_secure.runtime.inbox import Inbox
from fmfl_secure.runtime.server import take_stop
from fmfl_secure.runtime.task_board import Assignment, Document, Step, TaskBoard
from fmfl_secure.settings.service import Limits, Upstream
from fmfl_secure.storage.anchor_store import AnchorStore
from fmfl_secure.storage.message_store import MessageKey, MessageStore, open_store
from fmfl_secure.transports.https.access import Access
from fmfl_secure.transports.https.app import build_app
from fmfl_secure.transports.https.client import HttpsTransport
from fmfl_secure.transports.https.connections import Door, room_for
from fmfl_secure.transports.https.guard import Guard
from fmfl_secure.transports.https.listener import Listener, https_config
from fmfl_secure.transports.https.memory import spare_memory
from fmfl_secure.transports.https.metrics import ClientMetrics, ServerMetrics, exposition
from fmfl_secure.transports.https.tls import Renewal, client_context, server_context

RUN = "0123456789abcdef"
LIMITS = Limits(part_bytes=8192, header_s=0.5, body_s=0.5, requests_per_s=0.5, burst=60)


class FakeAttempt:
    """An attempt that takes whatever has the right first byte."""

    def __init__(self) -> None:
        from types import SimpleNamespace

        self.plan = SimpleNamespace(run=RUN, round=1, attempt=1)
        self.place = (1, 1)
        self.taken: list[tuple[str, str, bytes]] = []

    def cap(self, kind: str) -> int:
        return 64 * 1024

    def receive(self, party: str, kind: str, parts) -> None:
        from aggregation import MessageError, StateError

        message = b"".join(parts)
        if message[:1] == b"!":
            raise MessageError("a secret detail")
        if message[:1] == b"?":
            raise StateError("a secret detail")
        self.taken.append((party, kind, message))


@dataclass
class Running:
    """A server on loopback, and what to reach it with."""

    url: str
    port: int
    folder: Path
    authority: Issued
    board: TaskBoard
    inbox: Inbox
    attempt: FakeAttempt
    metrics: ServerMetrics
    context: ssl.SSLContext
    custodian: Identity

    def tls(self, role: str, name: str, *, days: int = 30, federation: str = "tiny") -> Path:
        folder = self.folder / f"{role}-{name}-{days}-{federation}-{time.monotonic_ns()}"
        made = issue(self.authority, federation=federation, role=role, name=name, days=days)
        _write(folder, self.authority, made)
        return folder

    def client(self, role: str = SITE, name: str = "site-1", **more) -> httpx.Client:
        context = client_context(self.tls(role, name, **more))
        return httpx.Client(base_url=self.url, verify=context, trust_env=False, timeout=10)


def _write(folder: Path, authority: Issued, made: Issued) -> None:
    write_private(folder / "ca.pem", authority.certificate)
    write_private(folder / "certificate.pem", made.certificate)
    write_private(folder / "key.pem", made.key)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    authority = new_authority("tiny")
    tls = tmp_path / "tls"
    hosts = ("localhost", "127.0.0.1")
    made = issue(authority, federation="tiny", role=SERVER, name="server", hosts=hosts)
    _write(tls, authority, made)
    public = {n: Identity.generate(n).public for n in ("coordinator", "aggregator", "decryptor")}
    sites = {f"site-{n}": Identity.generate(f"site-{n}").public for n in (1, 2, 3)}
    board_key = Identity.generate("board")
    custodians = {"board": board_key.public}
    members = Members(**public, sites=sites, custodians=custodians)
    store, board, metrics = (
        open_store("sqlite:s.sqlite", relative_to=tmp_path),
        TaskBoard(),
        ServerMetrics(),
    )
    inbox = Inbox(store, part_bytes=LIMITS.part_bytes)
    inbox.open_run(RUN, sites)
    attempt = FakeAttempt()
    inbox.open_attempt(attempt)  # type: ignore[arg-type]
    heads = AnchorRegistry(AnchorStore(tmp_path / "anchors.sqlite"), store, lambda: members)
    app = build_app(
        inbox=inbox,
        board=board,
        membership=list,
        heads=heads,
        take_stop=partial(take_stop, Stops(tmp_path, members)),
        metrics=metrics,
    )
    access = Access(
        "tiny",
        members=lambda: members,
        authority=authority.certificate,
        revocations=tmp_path / "revoked.pem",
    )
    guard = Guard(app, access=access, limits=LIMITS, heard=board.heard, metrics=metrics)
    context = server_context(tls)
    door = Door("127.0.0.1", 0, room_for(LIMITS), handshake_s=LIMITS.header_s)
    config = https_config(guard, door=door, context=context, limits=LIMITS)
    listener = Listener(config, board.close, door)
    thread = threading.Thread(target=lambda: asyncio.run(listener.serve()))
    thread.start()
    while not listener.started:
        time.sleep(0.01)
    port = listener.port
    url = f"https://localhost:{port}"
    yield Running(
        url, port, tmp_path, authority, board, inbox, attempt, metrics, context, board_key
    )
    listener.stop()
    thread.join()
    store.close()


def message_path(kind: str = "ready", *, round_number: int = 1) -> str:
    return f"/v1/runs/{RUN}/rounds/{round_number}/attempts/1/{kind}"


def query(message: bytes, offset: int = 0, size: int | None = None) -> dict[str, object]:
    digest = hashlib.sha256(message).hexdigest()
    return {"sha256": digest, "size": len(message) if size is None else size, "offset": offset}


def assert_problem(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert body["code"] == code
    assert set(body) <= {"code", "message", "received"}
    assert "secret" not in response.text


def test_without_a_certificate_there_is_no_http_at_all(running: Running) -> None:
    context = ssl.create_default_context(cadata=running.authority.certificate.decode())
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{running.url}/v1/task", verify=context, trust_env=False)


@pytest.mark.parametrize("days", [-1])
def test_an_expired_certificate_is_refused(running: Running, days: int) -> None:
    with running.client(days=days) as client, pytest.raises(httpx.TransportError):
        client.get("/v1/task")


def test_a_certificate_of_another_authority_is_refused(running: Running) -> None:
    stranger = new_authority("tiny")
    made = issue(stranger, federation="tiny", role=SITE, name="site-1")
    folder = running.folder / "stranger"
    write_private(folder / "ca.pem", running.authority.certificate)
    write_private(folder / "certificate.pem", made.certificate)
    write_private(folder / "key.pem", made.key)
    context = client_context(folder)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{running.url}/v1/task", verify=context, trust_env=False)


def test_old_tls_is_refused(running: Running) -> None:
    context = client_context(running.tls(SITE, "site-1"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{running.url}/v1/task", verify=context, trust_env=False)


def test_a_site_s_certificate_cannot_serve(running: Running) -> None:
    """Else a site could pose as the server for the others."""
    tls = running.folder / "posing"
    made = issue(
        running.authority, federation="tiny", role=SITE, name="site-1", hosts=["localhost"]
    )
    _write(tls, running.authority, made)
    context = server_context(tls)
    client = client_context(running.tls(SITE, "site-2"))
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with pytest.raises(ssl.SSLError, match=r"bad certificate|unknown|unsupported"):
                context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=accept)
        thread.start()
        with (
            socket.create_connection(server.getsockname()) as raw,
            pytest.raises(ssl.SSLCertVerificationError, match="purpose"),
        ):
            client.wrap_socket(raw, server_hostname="localhost")
        thread.join()


def test_roles_are_kept_apart(running: Running) -> None:
    message = b"ready"
    with running.client(DECRYPTOR, "decryptor") as client:
        assert_problem(
            client.put(message_path(), params=query(message), content=message), 403, "wrong-role"
        )
        path = f"/v1/runs/{RUN}/participation"
        assert_problem(client.put(path, json={"visibility": "private"}), 403, "wrong-role")
    with running.client() as client:
        path = message_path("announcement")
        assert_problem(client.put(path, params=query(message), content=message), 403, "wrong-role")
    with running.client(CUSTODIAN, "board") as client:
        for kind in ("ready", "announcement", "confirmation", "release", "opening"):
            path = message_path(kind)
            answer = client.put(path, params=query(message), content=message)
            assert_problem(answer, 403, "wrong-role")
    for role, name in ((SITE, "site-1"), (DECRYPTOR, "decryptor")):
        with running.client(role, name) as client:
            answer = client.put(message_path("approval"), params=query(message), content=message)
            assert_problem(answer, 403, "wrong-role")
    with running.client(CUSTODIAN, "court") as client:
        assert_problem(client.get("/v1/task"), 403, "removed")
    with running.client(SERVER, "server") as client, pytest.raises(httpx.TransportError):
        client.get("/v1/task")  # its certificate serves, and is no client's
    assert running.attempt.taken == []


def test_strangers_by_name_and_federation_are_refused(running: Running) -> None:
    with running.client(name="site-9") as client:
        assert_problem(client.get("/v1/task"), 403, "removed")
    with running.client(federation="other") as client:
        assert_problem(client.get("/v1/task"), 403, "wrong-federation")
    with running.client(DECRYPTOR, "decryptor-2") as client:
        assert_problem(client.get("/v1/task"), 403, "wrong-role")


def test_a_revocation_holds_from_the_next_request_on(running: Running) -> None:
    folder = running.tls(SITE, "site-1")
    with httpx.Client(
        base_url=running.url, verify=client_context(folder), trust_env=False
    ) as client:
        assert client.get("/v1/task").status_code == 200
        serial = serial_of((folder / "certificate.pem").read_bytes())
        crl = revocation_list(running.authority, [serial])
        (running.folder / "revoked.pem").write_bytes(crl)
        assert_problem(client.get("/v1/task"), 403, "revoked")
    with running.client() as renewed:
        assert renewed.get("/v1/task").status_code == 200


def test_an_unknown_path_or_method_is_a_typed_answer(running: Running) -> None:
    with running.client() as client:
        assert_problem(client.get("/v1/nothing"), 404, "not-found")
        assert_problem(client.get("/docs"), 404, "not-found")
        assert_problem(client.post("/v1/task"), 405, "method")
        assert_problem(client.get(message_path("nothing")), 422, "malformed")


def test_a_body_that_is_too_large_is_refused_unread(running: Running) -> None:
    with running.client() as client:
        big = b"x" * (LIMITS.part_bytes + 1)
        response = client.put(message_path(), params=query(big), content=big)
        assert_problem(response, 413, "too-large")
        assert response.headers["connection"] == "close"
        declared = query(b"x", size=1 << 30)
        assert_problem(client.put(message_path(), params=declared, content=b"x"), 413, "too-large")
        streamed = client.put(message_path(), params=query(b"xy"), content=iter([b"x", b"y"]))
        assert_problem(streamed, 411, "length")


def test_malformed_requests_are_typed_answers(running: Running) -> None:
    with running.client() as client:
        for params in ({}, {"sha256": "zz", "size": 3}, query(b"abc") | {"offset": -1}):
            assert_problem(
                client.put(message_path(), params=params, content=b"abc"), 422, "malformed"
            )
        path = f"/v1/runs/{RUN}/statement"
        for content in (b"", b"{", b"[]", b'{"statement": {"a": NaN}}', b"\xff"):
            assert_problem(client.put(path, content=content), 422, "malformed")
        body = {"statement": {"site": 1}, "signature": "", "final": False}
        assert_problem(client.put(path, json=body), 422, "not-shown")
        assert_problem(client.get("/v1/documents/xyz"), 422, "malformed")
        assert_problem(client.get(f"/v1/documents/{'0' * 64}"), 404, "not-found")
    raw = _raw(running, b"\x00\x01nonsense\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 400")
    assert json.loads(raw.split(b"\r\n\r\n", 1)[1])["code"] == "malformed"


def test_a_message_that_does_not_hold_is_refused_and_forgotten(running: Running) -> None:
    with running.client() as client:
        bad = b"!bad"
        assert_problem(client.put(message_path(), params=query(bad), content=bad), 422, "refused")
        early = b"?early"
        assert_problem(
            client.put(message_path(), params=query(early), content=early), 409, "out-of-order"
        )
        wrong = query(b"right") | {"size": 5}
        assert_problem(client.put(message_path(), params=wrong, content=b"wrong"), 422, "digest")
        good = b"good"
        assert client.put(message_path(), params=query(good), content=good).json()["whole"]
    assert running.attempt.taken == [("site-1", "ready", b"good")]


def test_a_replay_changes_nothing_and_another_message_is_a_conflict(running: Running) -> None:
    with running.client() as client:
        message = b"ready-1"
        for _ in range(3):
            response = client.put(message_path(), params=query(message), content=message)
            assert response.json() == {"received": len(message), "whole": True}
        other = b"ready-2"
        assert_problem(
            client.put(message_path(), params=query(other), content=other), 409, "conflict"
        )
        old = client.put(message_path(round_number=2), params=query(message), content=message)
        assert_problem(old, 409, "over")
    with running.client(name="site-2") as client:
        assert client.get(message_path()).json() == {"received": 0, "whole": False}
    assert len(running.attempt.taken) == 1


def test_an_upload_in_parts_goes_on_where_it_broke_off(running: Running) -> None:
    message = bytes(range(256)) * 100
    part = LIMITS.part_bytes
    path = message_path("chunks")
    with running.client() as client:
        first = client.put(path, params=query(message), content=message[:part])
        assert first.json() == {"received": part, "whole": False}
        gap = client.put(path, params=query(message, 2 * part), content=message[2 * part :][:part])
        assert_problem(gap, 409, "gap")
        assert gap.json()["received"] == part
    with running.client() as client:  # another connection, as after a crash
        start = client.get(path).json()["received"]
        while start < len(message):
            found = client.put(
                path, params=query(message, start), content=message[start : start + part]
            ).json()
            start = found["received"]
        assert found["whole"]
    assert running.attempt.taken == [("site-1", "chunks", message)]


def test_what_a_party_may_fetch_is_its_own_task(running: Running) -> None:
    document = Document([b"for site-1", b" only"])
    running.board.assign(
        ["site-1"], Assignment(step=Step.READY, run=RUN, documents={"plan": document})
    )
    path = f"/v1/documents/{document.sha256}"
    with running.client() as client:
        task = client.get("/v1/task").json()
        assert task["documents"]["plan"] == {"sha256": document.sha256, "size": document.size}
        assert client.get(path).content == b"for site-1 only"
        assert client.get(path, params={"offset": 4}).content == b"site-1 only"
    with running.client(name="site-2") as client:
        assert_problem(client.get(path), 404, "not-found")


def test_a_small_document_comes_with_the_work_that_it_is_for(running: Running) -> None:
    """Where it is asked for, once, and no larger: a request less for each step and site."""
    plan, adapter = Document([b"a plan"]), Document([b"an adapter"])
    running.board.assign(
        ["site-1"],
        Assignment(step=Step.READY, run=RUN, documents={"plan": plan, "adapter": adapter}),
    )
    with running.client() as client:
        assert client.get("/v1/task").json()["inline"] == {}
        assert client.get("/v1/task", params={"inline": 5}).json()["inline"] == {}
        task = client.get("/v1/task", params={"inline": 6}).json()
        assert task["inline"] == {plan.sha256: base64.b64encode(b"a plan").decode()}
        again = {"inline": 6, "after": task["sequence"]}
        assert client.get("/v1/task", params=again).json()["inline"] == {}
        assert_problem(client.get("/v1/task", params={"inline": 1 << 30}), 422, "malformed")
    with line_of(running, running.tls(SITE, "site-1")) as transport:
        work = transport.work(-1)
        assert transport.fetch(work.documents["plan"]) == b"a plan"
        assert transport._metrics.requests.labels("served")._value.get() == 1
        assert transport.fetch(work.documents["adapter"]) == b"an adapter"
        assert transport._metrics.requests.labels("served")._value.get() == 2


def test_a_question_for_work_is_answered_when_there_is_some(running: Running) -> None:
    with running.client() as client:
        now = client.get("/v1/task").json()
        assert now["step"] == "wait"
        timer = threading.Timer(
            0.2, lambda: running.board.assign(["site-1"], Assignment(step=Step.JOIN, run=RUN))
        )
        timer.start()
        response = client.get("/v1/task", params={"after": now["sequence"], "wait_s": 30})
        assert response.json()["step"] == "join"
        timer.join()


def test_too_many_requests_are_turned_away_with_a_time_to_come_back(running: Running) -> None:
    with running.client() as client:
        answers = [client.get("/v1/membership") for _ in range(LIMITS.burst * 3)]
    refused = [a for a in answers if a.status_code == 429]
    assert refused
    assert_problem(refused[0], 429, "rate")
    assert int(refused[0].headers["retry-after"]) >= 1
    with running.client(name="site-2") as other:
        assert other.get("/v1/membership").status_code == 200, "each party has a limit of its own"


def test_too_many_requests_at_once_are_turned_away(running: Running) -> None:
    context = client_context(running.tls(SITE, "site-1"))
    limits = LIMITS.requests_at_once

    async def ask() -> list[int]:
        async with httpx.AsyncClient(
            base_url=running.url, verify=context, trust_env=False, timeout=30
        ) as client:
            number = (await client.get("/v1/task")).json()["sequence"]
            params = {"after": number, "wait_s": 50}
            asked = [client.get("/v1/task", params=params) for _ in range(limits + 4)]
            statuses = []
            for answered in asyncio.as_completed(asked):
                statuses.append((await answered).status_code)
                if len(statuses) == 4:  # the others wait for work
                    running.board.assign(["site-1"], Assignment(Step.JOIN, RUN))
            return statuses

    statuses = asyncio.run(ask())
    assert statuses.count(429) == 4
    assert statuses.count(200) == limits


def _raw(running: Running, *pieces: bytes) -> bytes:
    """Send bytes as they are and read to the end."""
    context = client_context(running.tls(SITE, "site-1"))
    with (
        socket.create_connection(("127.0.0.1", running.port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        for piece in pieces:
            tls.sendall(piece)
        out = b""
        while data := tls.recv(65536):
            out += data
        return out


def test_a_slow_head_is_cut_off(running: Running) -> None:
    answer = _raw(running, b"GET /v1/task HTTP/1.1\r\nhost: localhost\r\n")
    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["code"] == "too-slow"


def test_a_silent_connection_is_cut_off(running: Running) -> None:
    assert _raw(running).startswith(b"HTTP/1.1 408")


def test_a_party_has_so_many_connections_and_takes_none_from_others(running: Running) -> None:
    context = client_context(running.tls(SITE, "site-1"))
    with ExitStack() as held:

        def opens() -> bool:
            raw = held.enter_context(socket.create_connection(("127.0.0.1", running.port)))
            tls = held.enter_context(context.wrap_socket(raw, server_hostname="localhost"))
            tls.sendall(b"GET /v1/task HTTP/1.1\r\nhost: localhost\r\n\r\n")
            try:
                return tls.recv(100).startswith(b"HTTP/1.1 200")
            except OSError:
                return False

        assert [opens() for _ in range(18)] == [True] * 16 + [False] * 2
        with running.client(SITE, "site-2") as client:
            assert client.get("/v1/task").status_code == 200


def test_whoever_says_nothing_gives_way_to_who_speaks(running: Running) -> None:
    with ExitStack() as held:
        bare = [
            held.enter_context(socket.create_connection(("127.0.0.1", running.port)))
            for _ in range(LIMITS.handshakes_from_address + 20)
        ]
        with running.client() as client:
            assert client.get("/v1/task").status_code == 200
        assert bare[0].recv(1) == b"", "the oldest went"


def test_a_slow_body_is_cut_off(running: Running) -> None:
    path = f"{message_path()}?sha256={'0' * 64}&size=100"
    head = f"PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n"
    answer = _raw(running, head.encode(), b"only this")
    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["code"] == "too-slow"


def test_a_connection_that_ends_amid_a_body_is_said_in_a_sentence_and_is_no_fault(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{message_path()}?sha256={'0' * 64}&size=100"
    head = f"PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nonly this"
    context = client_context(running.tls(SITE, "site-1"))
    told = threading.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info or "connection ended" in record.getMessage():
                told.set()

    handler = Told()
    logging.getLogger().addHandler(handler)
    caplog.set_level(logging.INFO)
    try:
        with (
            socket.create_connection(("127.0.0.1", running.port)) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            tls.sendall(head.encode())
        assert told.wait(10)
    finally:
        logging.getLogger().removeHandler(handler)
    with running.client() as client:  # and it goes on
        assert client.get("/v1/task").status_code == 200
    said = [record for record in caplog.records if "connection ended" in record.getMessage()]
    assert [record.levelname for record in said] == ["INFO"]
    assert not [record for record in caplog.records if record.exc_info]


def test_a_server_that_goes_down_says_so(running: Running) -> None:
    with running.client() as client:
        assert client.get("/v1/task").status_code == 200
        running.board.close()
        assert_problem(client.get("/v1/task"), 503, "stopping")


def line_of(
    running: Running, folder: Path, *, stopping: threading.Event | None = None
) -> HttpsTransport:
    upstream = Upstream(url=running.url, poll_s=0.5, retry_s=0.2, timeout_s=5)
    return HttpsTransport(
        upstream, folder, metrics=ClientMetrics(), stopping=stopping or threading.Event()
    )


def test_a_server_s_clock_that_jumps_past_certificates_shuts_nobody_out_for_good(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = [dt.timedelta(days=400)] * 3 + [dt.timedelta(0)]

    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return dt.datetime.now(tz) + (jumps.pop(0) if len(jumps) > 1 else jumps[0])

    with line_of(running, running.tls(SITE, "site-1")) as transport:
        transport.work(-1)
        monkeypatch.setattr("fmfl_secure.transports.https.access.datetime", Clock)
        with pytest.raises(Unreachable, match="certificate has expired"):
            transport._once("GET", "/v1/task", params={"after": -1, "wait_s": 0})
        transport.work(-1)  # waits, asks again, and is served once the clock is back
        assert len(jumps) == 1
        assert transport.connected


def test_a_party_s_line_sends_in_parts_and_goes_on_after_a_break(running: Running) -> None:
    message = bytes(range(256)) * 150
    folder = running.tls(SITE, "site-1")
    running.board.assign(
        ["site-1"],
        Assignment(
            step=Step.UPLOAD, run=RUN, round=1, attempt=1, documents={"d": Document([message])}
        ),
    )
    with line_of(running, folder) as transport:
        work = transport.work(-1)
        assert transport.fetch(work.documents["d"]) == message, "fetched in parts, digest checked"
        key = MessageKey(RUN, 1, 1, "site-1", "chunks")
        digest = hashlib.sha256(message).hexdigest()
        running.inbox.store.append(
            key, sha256=digest, size=len(message), offset=0, data=message[: LIMITS.part_bytes]
        )
        transport.send(work, "chunks", message)
        transport.send(work, "chunks", message)  # the answer to the last part was lost
        assert transport._metrics.sent._value.get() < 2 * len(message)
        with pytest.raises(Rejected) as refusal:
            transport.send(work, "ready", b"!bad")
    assert refusal.value.reason == "refused"
    assert running.attempt.taken == [("site-1", "chunks", message)]


def test_a_part_that_comes_again_while_the_first_is_looked_at_waits_for_it(
    running: Running,
) -> None:
    looking, go_on = threading.Event(), threading.Event()
    receive = running.attempt.receive

    def slowly(party: str, kind: str, parts) -> None:
        looking.set()
        go_on.wait()
        receive(party, kind, parts)

    running.attempt.receive = slowly  # type: ignore[method-assign]
    key, message = MessageKey(RUN, 1, 1, "site-1", "chunks"), b"once"
    digest, receipts = hashlib.sha256(message).hexdigest(), []

    def send() -> None:
        receipts.append(
            running.inbox.part(SITE, key, sha256=digest, size=len(message), offset=0, data=message)
        )

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    looking.wait()
    go_on.set()
    for sender in senders:
        sender.join()
    assert [receipt.whole for receipt in receipts] == [True] * 3
    assert running.attempt.taken == [("site-1", "chunks", message)]


def test_a_message_in_one_part_is_one_change_of_the_store_and_none_if_refused(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write = [], MessageStore._write
    monkeypatch.setattr(MessageStore, "_write", lambda self: (written.append(1), write(self))[1])
    key = MessageKey(RUN, 1, 1, "site-1", "chunks")

    def send(message: bytes, digest: str = ""):
        digest = digest or hashlib.sha256(message).hexdigest()
        return running.inbox.part(
            SITE, key, sha256=digest, size=len(message), offset=0, data=message
        )

    with pytest.raises(Problem, match="digest"):
        send(b"other", "0" * 64)
    with pytest.raises(Problem, match="does not come now"):
        send(b"?early")
    assert (written, running.inbox.receipt(SITE, key)) == ([], None)
    assert send(b"once").whole
    assert send(b"once").whole, "the answer was lost"
    assert len(written) == 1
    with pytest.raises(Problem, match="another message"):
        send(b"twice")
    assert running.attempt.taken == [("site-1", "chunks", b"once")]


def test_a_connection_takes_a_small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncio.sslproto import SSLProtocol

    monkeypatch.setattr(SSLProtocol, "max_size", SSLProtocol.max_size)  # put back afterwards
    spare_memory()
    assert SSLProtocol.max_size == 1 << 16


def test_a_message_that_the_server_forgot_is_sent_anew_once(running: Running) -> None:
    message = bytes(range(256)) * 100
    running.board.assign(["site-1"], Assignment(step=Step.UPLOAD, run=RUN, round=1, attempt=1))
    take, failures = running.inbox._take, [1]

    def forgetful(attempt, key, receipt):
        if failures:
            failures.pop()
            running.inbox.store.discard(key)
            raise Problem(422, "digest", "gone")
        return take(attempt, key, receipt)

    running.inbox._take = forgetful  # type: ignore[method-assign]
    with line_of(running, running.tls(SITE, "site-1")) as transport:
        work = transport.work(-1)
        transport.send(work, "chunks", message)
        assert running.attempt.taken == [("site-1", "chunks", message)]
        failures[:] = [1, 1]
        with pytest.raises(Rejected) as refusal:
            transport.send(work, "exchange", message)
    assert refusal.value.reason == "digest", "once, and not for ever"


def test_a_renewed_certificate_is_taken_up_by_both_ends(running: Running) -> None:
    folder = running.tls(SITE, "site-1")
    with line_of(running, folder) as transport:
        transport.work(-1)
        old = serial_of((folder / "certificate.pem").read_bytes())
        made = issue(running.authority, federation="tiny", role=SITE, name="site-1")
        for name, data in (("key.pem", made.key), ("certificate.pem", made.certificate)):
            (folder / name).write_bytes(data)
        (running.folder / "revoked.pem").write_bytes(revocation_list(running.authority, [old]))
        transport.work(-1)  # by the new one: the old is revoked
    tls = running.folder / "tls"
    renewal = Renewal(running.context, tls)
    assert not renewal.check()
    hosts = ("localhost", "127.0.0.1")
    made = issue(running.authority, federation="tiny", role=SERVER, name="server", hosts=hosts)
    for name, data in (("key.pem", made.key), ("certificate.pem", made.certificate)):
        (tls / name).write_bytes(data)
    assert renewal.check()
    context = client_context(folder)
    with (
        socket.create_connection(("127.0.0.1", running.port)) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        shown = connection.getpeercert()
        assert shown is not None
        assert int(str(shown["serialNumber"]), 16) == serial_of(made.certificate)


def test_a_line_waits_for_a_server_that_is_away_until_it_is_told_to_stop(running: Running) -> None:
    stopping = threading.Event()
    running.board.close()  # answers 503 from now on
    with line_of(running, running.tls(SITE, "site-1"), stopping=stopping) as transport:
        threading.Timer(0.5, stopping.set).start()
        with pytest.raises(Unreachable, match="503"):
            transport.work(-1)
        assert not transport.connected


def test_a_site_may_say_every_word_of_the_list_and_no_other(running: Running) -> None:
    path = f"/v1/runs/{RUN}/refusal"
    with running.client() as client:
        for code in (*MEANINGS, "mrs-quimby"):
            assert client.put(path, json={"code": code}).status_code == 204, code
            kept = running.inbox.store.notes(RUN, "refused")["site-1"].decode()
            assert kept == (code if code in MEANINGS else "failed")
        assert_problem(client.put(path, json={"code": "Mrs Quimby"}), 422, "malformed")


def test_heads_of_ledgers_are_the_sites_to_give_and_to_ask_for(running: Running) -> None:
    with running.client(DECRYPTOR, "decryptor") as client:
        told = client.get("/v1/heads", params={"known": True}).json()
        assert told.pop("upto") == ""
        assert told == {"own": [], "others": {}, "known": {}, "journals": [], "other_journals": {}}
        assert_problem(client.put("/v1/head", json={"head": "{}"}), 422, "refused")
        assert_problem(client.put("/v1/heads", json={"heads": {}}), 403, "wrong-role")
    with running.client() as client:
        told = client.get("/v1/heads", params={"known": True}).json()
        assert told.pop("upto")
        assert told.pop("other_journals").keys() >= {"decryptor", "site-2", "site-3"}
        assert told == {
            "own": [], "others": {}, "known": {"site-2": [], "site-3": []}, "journals": []
        }  # fmt: skip
        assert_problem(client.put("/v1/head", json={"head": "[" * 4000}), 422, "refused")
        assert_problem(client.put("/v1/head", json={"head": "x" * 5000}), 422, "malformed")
        body = {"heads": {"site-2": ["{}"]}}
        assert_problem(client.put("/v1/heads", json=body), 422, "refused")


def test_any_party_brings_a_signed_stop_and_nobody_one_that_was_not_signed(
    running: Running,
) -> None:
    signed = sign_stop(running.custodian, RUN, "board", "consent was withdrawn")
    forged = sign_stop(Identity.generate("board"), RUN, "board", "consent was withdrawn")
    with running.client() as client:
        for statement in (forged, signed[:-1], b"x" * 64 + b"{}"):
            body = {"statement": base64.b64encode(statement).decode()}
            assert_problem(client.put("/v1/stop", json=body), 422, "refused")
        assert_problem(client.put("/v1/stop", json={"statement": "="}), 422, "malformed")
    assert not (running.folder / "stops").exists()
    with line_of(running, running.tls(SITE, "site-1")) as line:
        line.give_stop(signed)
        line.give_stop(signed)  # again, as after a lost answer
    (kept,) = (running.folder / "stops").iterdir()
    assert kept.read_bytes() == signed


def test_metrics_name_roles_and_routes_and_no_one(running: Running) -> None:
    message = b"a-message"
    with running.client() as client:
        client.put(message_path(), params=query(message), content=message)
        client.get("/v1/nothing-" + "x" * 50)
    text = exposition(running.metrics.registry).decode()
    assert 'kind="ready"' in text
    assert 'route="/v1/runs/{run}' in text
    for hidden in ("site-1", RUN, "nothing-"):
        assert hidden not in text


def test_every_kind_of_message_has_a_way_over_https() -> None:
    """An accusation had none: 422 shut its sender out, and nobody learned whose fault it was."""
    from fmfl_secure.runtime.attempt_state import KINDS
    from fmfl_secure.transports.https import app

    assert set(get_args(app.Kind)) == set(KINDS)
