"""What monitoring is given: gauges of a run, rules and a dashboard over metrics that there are."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from pathlib import Path

import pytest
import yaml
from msgspec.structs import replace
from support import make_kits

from aggregation import Identity
from fmfl_secure.parties.stops import stop_run, take_stop
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.runtime.task_board import Step
from fmfl_secure.runtime.transport import Work
from fmfl_secure.transports.https.expiry import CertificateWatch
from fmfl_secure.transports.https.metrics import ClientMetrics, exposition
from fmfl_secure.transports.https.processes.decryptor import DecryptorProcess
from fmfl_secure.transports.https.processes.decryptor_page import decryptor_page
from fmfl_secure.transports.https.processes.server_metrics import follow
from fmfl_secure.transports.https.processes.server_page import server_page
from fmfl_secure.transports.https.processes.site import SiteProcess
from fmfl_secure.transports.https.processes.site_page import site_page
from fmfl_secure.transports.https.server import Service
from privacy import Decided, Ledger

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Service:
    """A server that one site joined and one refused."""
    kits = make_kits(tmp_path_factory.mktemp("monitored"), tiny_model, evaluation=False)
    made = Service(Kit(kits / "server"), kits.parent / "run")
    follow(made)
    CertificateWatch(Kit(kits / "server").certificate, made.metrics.registry)
    made.inbox.join("site-1", made.run.run, "private")
    made.inbox.refuse("site-2", made.run.run, "budget")
    return made


def test_gauges_say_how_a_run_stands(service: Service) -> None:
    def value(name: str, **labels: str) -> float | None:
        return service.metrics.registry.get_sample_value(name, labels)

    states = {s: value("fmfl_sites", state=s) for s in ("joined", "refused", "not joined")}
    everyone = len(service.config.sites)
    assert states == {"joined": 1, "refused": 1, "not joined": everyone - 2}
    assert value("fmfl_helpers_silent") == 1, "the decryptor was not heard of"
    assert value("fmfl_rounds_planned") == service.config.all_rounds
    assert (value("fmfl_rounds_released"), value("fmfl_attempt")) == (0, 0)
    assert (value("fmfl_run_stopped"), value("fmfl_run_finished")) == (0, 0)
    service.run._mark("stopped", "too few")
    assert value("fmfl_run_stopped") == 1


def test_whom_a_run_waits_for_is_named_on_the_page_and_counted_for_monitoring(
    service: Service,
) -> None:
    waiting = service.run.waiting
    assert server_page(service)["awaited"] == ""
    with waiting.awaiting(lambda: ["site-3", "decryptor"], 60.0):
        assert str(server_page(service)["awaited"]).startswith("site-3, decryptor, until 20")
        registry = service.metrics.registry
        assert registry.get_sample_value("fmfl_awaited") == 2
        ends = registry.get_sample_value("fmfl_wait_ends_seconds")
        assert ends == pytest.approx(time.time() + 60, abs=30)
    assert waiting.awaited is None
    shown = exposition(service.metrics.registry).decode()
    names = [site.name for site in service.config.sites]
    assert not any(name in shown for name in (*names, service.run.run)), "numbers only"


def test_a_stop_and_a_past_review_stand_on_every_party_s_page(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, kits = service.run.run, service._kit.folder.parent
    registry = service.metrics.registry
    site, decryptor = SiteProcess(Kit(kits / "site-1")), DecryptorProcess(Kit(kits / "decryptor"))
    nothing = {"documents": {}, "sizes": [], "membership": 1, "part_bytes": 1 << 16}
    work = Work(sequence=1, step=Step.WAIT, run=run, round=0, attempt=0, **nothing)
    monkeypatch.setattr(site.agent, "work", work)
    monkeypatch.setattr(decryptor.agent, "work", work)
    pages = (
        lambda: server_page(service),
        lambda: site_page(site),
        lambda: decryptor_page(decryptor),
    )
    assert [page()["notices"] for page in pages] == [[], [], []]
    assert registry.get_sample_value("fmfl_stop_kept") == 0
    assert registry.get_sample_value("fmfl_reviews_due") == 0

    _, file = stop_run(kits / "server", run, "consent was withdrawn")
    for name in ("site-1", "decryptor"):
        take_stop(kits / name, file.read_bytes())
    past = dt.date(2020, 5, 1)
    for party in (service, site, decryptor):
        privacy = replace(party.config.privacy, review_on=past)
        monkeypatch.setattr(party, "config", replace(party.config, privacy=privacy))
    assert registry.get_sample_value("fmfl_stop_kept") == 1
    assert registry.get_sample_value("fmfl_reviews_due") == 1
    due = "somebody was to look again at privacy.epsilon in federation.toml by 2020-05-01"
    for page in pages:
        stopped, review = page()["notices"]
        assert stopped.startswith(f"coordinator stopped run {run} at 20")
        assert stopped.endswith(": consent was withdrawn")
        assert review == due
    file.unlink()
    assert server_page(service)["notices"] == [due]


def test_a_site_s_page_names_the_grant_whose_review_is_past(
    tmp_path: Path, tiny_model: Path
) -> None:
    kit = make_kits(tmp_path, tiny_model, evaluation=False) / "site-1"
    said = Decided("what the board accepts", "the board", dt.date(2020, 5, 1))
    ledger = Ledger(kit / "ledger.sqlite", signer=Identity.load(kit / "identity.pem", "site-1"))
    ledger.grant(epsilon=1.0, delta=1e-5, decided=said)
    number = ledger.status()[-1].grant.number
    site = SiteProcess(Kit(kit))
    assert site_page(site)["notices"] == [
        f"somebody was to look again at grant {number} by 2020-05-01"
    ]


def asked_for() -> dict[str, set[str]]:
    """Names of metrics in the rules and in the dashboard."""
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    expressions = {
        rule["alert"]: rule["expr"] for group in rules["groups"] for rule in group["rules"]
    } | {
        panel["title"]: " ".join(target["expr"] for target in panel["targets"])
        for panel in dashboard["panels"]
    }
    return {name: set(re.findall(r"fmfl_\w+", text)) for name, text in expressions.items()}


def test_rules_and_dashboard_ask_for_metrics_that_there_are(service: Service) -> None:
    service.metrics.request("site", "/v1/task", "GET", 200, 0.1)
    service.metrics.received.labels("upload").inc(1)
    text = (exposition(service.metrics.registry) + exposition(ClientMetrics().registry)).decode()
    there = set(re.findall(r"^(fmfl_\w+)", text, re.MULTILINE))
    found = asked_for()
    assert len(found) >= 20
    for where, names in found.items():
        assert names, where
        assert names <= there, where


def test_every_rule_says_what_to_do() -> None:
    rules = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert {"summary", "runbook"} == set(rule["annotations"]), rule["alert"]
    panels = json.loads((DEPLOY / "grafana-dashboard.json").read_text())["panels"]
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(places), "no panel lies on another"
