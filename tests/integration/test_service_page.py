"""The live pages in a real browser: the coordinator's of everyone, a site's of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import DESKTOP, NARROWEST, PHONE, browser, fits, needs_browser, problems
from support import make_kits

from aggregation import Identity
from fmfl_secure.provisioning.kit import Kit
from fmfl_secure.run.ledger_statement import describe_ledger, sign_statement
from fmfl_secure.runtime.inbox import SignedStatement
from fmfl_secure.settings.service import Operations
from fmfl_secure.transports.https.processes.operations import OperationsApp, OperationsPort
from fmfl_secure.transports.https.processes.server_page import server_page
from fmfl_secure.transports.https.processes.site import SiteProcess
from fmfl_secure.transports.https.processes.site_page import site_page
from fmfl_secure.transports.https.server import Service
from privacy import Ledger, PoissonSampledGaussian

EVENT = PoissonSampledGaussian(0.25, 2.0, 2)
FOCUSED = "document.activeElement"
pytestmark = needs_browser
__all__ = ["browser"]


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    """A server's and a site's operations ports, of a run in which a site refused."""
    kits = make_kits(tmp_path_factory.mktemp("page"), tiny_model, evaluation=False)
    service = Service(Kit(kits / "server"), kits.parent / "run")
    run = service.run.run
    service.inbox.join("site-1", run, "private")
    service.inbox.refuse("site-2", run, "budget")
    identity = Identity.load(kits / "site-1/identity.pem", "site-1")
    ledger = Ledger(kits / "site-1/ledger.sqlite", signer=identity)
    ledger.reserve(run=run, event=EVENT, rounds=2, plan="sha256:" + 64 * "0", purpose="page")
    ledger.commit(run=run, round=1)
    statement = describe_ledger(ledger, site="site-1", run=run)
    stated = SignedStatement(statement, sign_statement(identity, statement))
    service.inbox.state("site-1", run, stated, final=False)
    site = SiteProcess(Kit(kits / "site-1"))
    site.agent.refusal = "<i>epsilon 8 asked</i>, 1.5 left"
    apps = [
        OperationsApp(
            token=Kit(kits / name).operations_token(),
            template=template,
            page=page,
            ready=lambda: "",
            registry=metrics.registry,
            certificate=Kit(kits / name).certificate,
        )
        for name, template, page, metrics in (
            ("server", "server.html", lambda: server_page(service), service.metrics),
            ("site-1", "site.html", lambda: site_page(site), site.metrics),
        )
    ]
    free = Operations(port=0)
    with OperationsPort(apps[0], free) as server, OperationsPort(apps[1], free) as own:
        yield kits, run, server.port, own.port
    service.store.close()


@pytest.fixture
def page(browser) -> Iterator:
    context = browser.new_context()
    page = context.new_page()
    page.requests = []
    page.problems = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("console", lambda message: page.problems.append(message.text))
    yield page
    context.close()


def sign_in(page, port: int, kit: Path) -> None:
    """By keyboard alone: the token's field has the focus."""
    page.unroute_all()
    page.goto(f"http://localhost:{port}/")
    assert page.url.endswith("/sign-in")
    page.wait_for_function(f"{FOCUSED}.id == 'token'")
    page.keyboard.type(Kit(kit).operations_token())
    page.keyboard.press("Enter")
    page.wait_for_url(f"http://localhost:{port}/")
    # It renews itself every few seconds. An empty answer leaves it as it is, with its focus, for
    # as long as a test on a busy machine may take.
    page.route("**/*", lambda route: route.fulfill(status=204))


def test_the_coordinator_sees_every_site(ports, page) -> None:
    kits, run, port, _ = ports
    sign_in(page, port, kits / "server")
    assert page.inner_text("#run") == run
    assert page.inner_text("#round") == "0 of 2"
    told = page.inner_text("#progress")
    assert "2 of 2 left" in told
    assert "1 of 3 sites with it" in told
    assert "1 not joined" in told
    assert "1 refused or removed" in told
    assert page.locator("#progress svg").count() == 2
    rows = page.locator("#sites tbody tr")
    texts = [rows.nth(n).inner_text().split("\t") for n in range(rows.count())]
    assert [(row[0], row[1], row[-1]) for row in texts] == [
        ("site-1", "joined", ""),
        ("site-2", "refused", "budget"),
        ("site-3", "not joined", ""),
    ]
    spent, held, left = (float(cell) for cell in texts[0][5:8])
    assert min(spent, held, left) > 0
    assert spent + held + left == pytest.approx(8.0, abs=2e-4)
    assert texts[1][5:8] == ["-", "-", "-"]
    assert page.locator('meta[http-equiv="refresh"]').get_attribute("content") == "5"


def test_a_site_sees_itself_alone(ports, page) -> None:
    kits, _, _, port = ports
    sign_in(page, port, kits / "site-1")
    assert page.inner_text("h1") == "site-1"
    text = page.inner_text("main")
    assert "site-2" not in text
    assert "site-3" not in text
    assert "<i>epsilon 8 asked</i>" in page.inner_text("#refusal"), "text, and not markup"
    cells = page.locator("#budget tbody tr").first.inner_text().split("\t")
    assert cells[:3] == ["1", "8", "1e-05"]
    spent, held, left = (float(cell) for cell in cells[3:])
    assert min(spent, held, left) > 0
    assert spent + held + left == pytest.approx(8.0, abs=2e-4)
    widths = [float(rect.get_attribute("width")) for rect in page.locator("rect").all()]
    drawn = [amount / 8.0 * 1000 for amount in (spent, held, left)]
    assert widths == pytest.approx(drawn, abs=0.2), "the bar is of these figures"


def test_pages_load_nothing_from_elsewhere_and_work_from_the_keyboard(ports, page) -> None:
    kits, _, server, site = ports
    for port, kit in ((server, "server"), (site, "site-1")):
        page.context.clear_cookies()
        sign_in(page, port, kits / kit)
        page.keyboard.press("Tab")
        page.wait_for_function(f"{FOCUSED}.textContent == 'Skip to the content'")
        seen = set()
        for _ in range(6):
            before = page.evaluate_handle(FOCUSED)
            page.keyboard.press("Tab")
            page.wait_for_function(f"before => {FOCUSED} !== before", arg=before)
            seen.add(page.evaluate(f"{FOCUSED}.tagName"))
        assert {"DIV", "A"} <= seen, "tables scroll and links open without a mouse"
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.locator("script").count() == 0
    assert all(url.startswith("http://localhost:") for url in page.requests)
    assert page.problems == []


def test_axe_finds_nothing_serious_and_the_pages_fit_a_phone(ports, browser) -> None:
    kits, _, server, site = ports
    for port, kit in ((server, "server"), (site, "site-1")):
        for scheme in ("light", "dark"):
            # axe is a script, and the pages allow none
            context = browser.new_context(bypass_csp=True, color_scheme=scheme)
            page = context.new_page()
            page.goto(f"http://localhost:{port}/")
            assert problems(page) == [], "the sign-in page"
            fits(page, PHONE)
            sign_in(page, port, kits / kit)
            # A page that renews itself is the one thing that axe objects to, and it can be stopped.
            assert [p for p in problems(page) if not p.startswith("meta-refresh")] == []
            page.unroute_all()
            page.goto(f"http://localhost:{port}/")
            page.click("text=stop that")
            page.wait_for_url(f"http://localhost:{port}/?still")
            assert problems(page) == []
            for width in (NARROWEST, PHONE, DESKTOP):
                fits(page, width)
            context.close()


def test_a_wrong_token_opens_nothing(ports, page) -> None:
    _, _, port, _ = ports
    page.goto(f"http://localhost:{port}/sign-in")
    page.wait_for_function(f"{FOCUSED}.id == 'token'")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert]")
    page.goto(f"http://localhost:{port}/")
    assert page.url.endswith("/sign-in")
