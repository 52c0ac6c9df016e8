"""A certificate that is about to end says so: in log, page, metrics and the authority's list."""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from fmfl_secure.cli import app
from fmfl_secure.provisioning.authority import Authority, issued
from fmfl_secure.settings.service import Operations
from fmfl_secure.transports.https.expiry import CertificateWatch
from fmfl_secure.transports.https.processes.operations import OperationsApp, OperationsPort


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "authority", "pilot", [])


def certificate(authority: Authority, days: int, name: str = "site-1") -> Path:
    file = authority.folder.parent / f"{name}.pem"
    file.write_bytes(authority.certify("site", name, days=days).certificate)
    return file


@pytest.mark.parametrize(("days", "said"), [(29, True), (31, False), (397, False)])
def test_it_is_due_thirty_days_ahead(authority: Authority, days: int, said: bool, caplog) -> None:
    watch = CertificateWatch(certificate(authority, days), CollectorRegistry())
    with caplog.at_level(logging.WARNING):
        watch.warn()
    ends = (dt.datetime.now(dt.UTC) + dt.timedelta(days=days)).strftime("%Y-%m-%d")
    assert (f"ends on {ends}" in watch.warning) == said
    assert bool(caplog.messages) == said


def test_one_that_is_renewed_is_seen_without_a_restart(authority: Authority) -> None:
    registry = CollectorRegistry()
    file = certificate(authority, 5)
    watch = CertificateWatch(file, registry)
    assert watch.warning
    before = registry.get_sample_value("fmfl_certificate_expires_seconds")
    certificate(authority, 300)
    assert not watch.warning
    after = registry.get_sample_value("fmfl_certificate_expires_seconds")
    assert round((after - before) / 86_400) == 295
    file.write_bytes(b"none")
    assert watch.expires is None
    assert math.isnan(registry.get_sample_value("fmfl_certificate_expires_seconds"))


def test_the_page_says_it(authority: Authority) -> None:
    operations = OperationsApp(
        token="token",
        template="sign_in.html",
        page=lambda: {"wrong": False},
        ready=lambda: "",
        registry=CollectorRegistry(),
        certificate=certificate(authority, 5),
    )
    with OperationsPort(operations, Operations(port=0)) as port:
        asked = {"authorization": "Bearer token"}
        page = httpx.get(f"http://127.0.0.1:{port.port}/", headers=asked).text
        metrics = httpx.get(f"http://127.0.0.1:{port.port}/metrics", headers=asked).text
    assert "certificate ends on" in page
    assert "fmfl_certificate_expires_seconds 1" in metrics


@pytest.mark.parametrize(
    ("address", "said"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)]
)
def test_an_operations_port_that_others_reach_is_warned_of(
    authority: Authority, caplog: pytest.LogCaptureFixture, address: str, said: bool
) -> None:
    operations = OperationsApp(
        token="token",
        template="sign_in.html",
        page=dict,
        ready=lambda: "",
        registry=CollectorRegistry(),
        certificate=certificate(authority, 300),
    )
    with OperationsPort(operations, Operations(address=address, port=0)):
        assert ("reads its token" in caplog.text) == said


def test_the_authority_lists_who_is_due(authority: Authority, tmp_path: Path) -> None:
    certificate(authority, 5, "site-1")
    certificate(authority, 300, "site-2")
    authority.revoke("site-2", keep_last=False)
    certificate(authority, 300, "site-2")
    assert [each.state for each in issued(tmp_path)] == ["due", "revoked", "valid"]
    # What 0.1.0 wrote has no such field.
    file = authority.folder / "issued.json"
    first, *others = json.loads(file.read_text())
    del first["expires"]
    file.write_text(json.dumps([first, *others]))
    assert issued(tmp_path)[0].state == "valid"
    shown = CliRunner().invoke(app, ["certificates", "list", str(tmp_path)]).output
    assert "not noted" in shown
    assert issued(tmp_path)[2].expires in shown
