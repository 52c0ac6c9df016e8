"""A process's own port: nothing without its token, and the page of one party shows that party."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fmfl_secure.transports.https.logs import JsonLines
from fmfl_secure.transports.https.metrics import ClientMetrics
from fmfl_secure.transports.https.processes.operations import OperationsApp

TOKEN = "a-token-of-this-kit"
VALUES = {
    "federation": "tiny <b>",
    "connected": True,
    "url": "https://localhost:8443",
    "run": "0123456789abcdef",
    "phase": "wait",
    "refresh_s": 5,
}


class Port:
    def __init__(self) -> None:
        self.trouble = ""
        app = OperationsApp(
            token=TOKEN,
            template="decryptor.html",
            page=lambda: VALUES,
            ready=lambda: self.trouble,
            registry=ClientMetrics().registry,
            certificate=Path("no certificate"),
        )
        self.client = TestClient(app.app, base_url="http://localhost:9443", follow_redirects=False)
        self.bearer = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def port() -> Port:
    return Port()


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer wrong"}, {"cookie": "a=b"}])
def test_nothing_is_told_without_the_token(port: Port, path: str, header: dict[str, str]) -> None:
    answer = port.client.get(path, headers=header)
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"


def test_the_page_asks_for_the_token(port: Port) -> None:
    answer = port.client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert port.client.post("/sign-in", data={"token": "wrong"}).status_code == 401
    signed_in = port.client.post("/sign-in", data={"token": TOKEN})
    assert signed_in.status_code == 303
    cookie = signed_in.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    page = port.client.get("/")
    assert page.status_code == 200
    assert "tiny &lt;b&gt;" in page.text
    assert port.client.post("/sign-in", content=b"x" * 5000).status_code == 413


def test_a_custodian_s_page_says_what_it_let_not_open() -> None:
    shown = VALUES | {"name": "board", "round": 2, "refusal": "<b>no round after 1"}
    app = OperationsApp(
        token=TOKEN,
        template="custodian.html",
        page=lambda: shown,
        ready=lambda: "",
        registry=ClientMetrics().registry,
        certificate=Path("no certificate"),
    )
    client = TestClient(app.app, base_url="http://localhost:9443")
    page = client.get("/", headers={"authorization": f"Bearer {TOKEN}"})
    assert page.status_code == 200
    assert "Custodian board" in page.text
    assert "round 2" in page.text
    assert "&lt;b&gt;no round after 1" in page.text


def test_health_and_readiness(port: Port) -> None:
    assert port.client.get("/health", headers=port.bearer).json() == {"status": "alive"}
    assert port.client.get("/ready", headers=port.bearer).status_code == 200
    port.trouble = "the server does not answer"
    answer = port.client.get("/ready", headers=port.bearer)
    assert answer.status_code == 503
    assert answer.json()["reason"] == port.trouble
    metrics = port.client.get("/metrics", headers=port.bearer)
    assert "fmfl_sent_bytes_total" in metrics.text


def test_a_page_from_elsewhere_cannot_reach_it(port: Port) -> None:
    """A name that resolves to this machine, as in DNS rebinding, is not its own."""
    answer = port.client.get("/health", headers=port.bearer | {"host": "evil.example.org"})
    assert answer.status_code == 421
    policy = port.client.get("/sign-in").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    for host in ("localhost", "127.0.0.1:9443", "[::1]:9443"):
        assert port.client.get("/health", headers=port.bearer | {"host": host}).status_code == 200


def test_logs_are_json_with_run_and_round() -> None:
    record = logging.LogRecord("fmfl", logging.INFO, "", 0, "released %s", ("x",), None)
    record.run, record.round, record.secret = "0123456789abcdef", 3, "not a field"
    line = json.loads(JsonLines("server").format(record))
    assert line["message"] == "released x"
    assert (line["party"], line["run"], line["round"], line["level"]) == (
        "server", "0123456789abcdef", 3, "info",
    )  # fmt: skip
    assert "secret" not in line
