"""Every page that people are handed, in Chromium: screen readers, phone, desktop, paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import test_closer_look
import test_report_dataset
import test_report_records
from browser import (
    DESKTOP,
    NARROWEST,
    PHONE,
    TABLET,
    browser,
    fits,
    needs_browser,
    prints,
    problems,
)

from fmfl_secure.demonstration import demonstrate, render_page
from fmfl_secure.report import render_html
from fmfl_secure.report.closely import render_evaluation
from fmfl_secure.report.dataset import render_dataset

pytestmark = needs_browser
__all__ = ["browser"]

# The pages with the most on them; what differs in others are words.
RUNS = ("multi_run", "without_privacy", "distributed_noise")
DATASETS = ("several_runs", "set_back")
PAGES = [*(f"run-{name}" for name in RUNS), *(f"dataset-{name}" for name in DATASETS)]
PAGES += ["demo", "evaluation"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of runs, of data sets, and of the demonstration, as files."""
    folder = tmp_path_factory.mktemp("pages")
    texts = {f"run-{n}": render_html(getattr(test_report_records, n)()) for n in RUNS}
    for name in DATASETS:
        ledger = folder / name
        ledger.mkdir()
        record = getattr(test_report_dataset, name)(ledger)
        texts[f"dataset-{name}"] = render_dataset(record)
    texts["demo"] = render_page(demonstrate(3, custodians=1))
    texts["evaluation"] = render_evaluation(test_closer_look.record(public=False))
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


@pytest.fixture
def page(browser: Any, pages: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(bypass_csp=True)  # axe is a script; the pages allow none
    opened = context.new_page()
    said, asked = [], []
    opened.on("console", lambda message: said.append(message.text))
    opened.on("request", lambda asking: asked.append(asking.url))
    file = pages[request.param]
    opened.goto(file.as_uri())
    yield opened
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    context.close()


every_page = pytest.mark.parametrize("page", PAGES, indirect=True)


@every_page
def test_axe_finds_nothing_serious_and_the_page_fits_every_window_and_paper(page: Any) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert problems(page) == [], scheme
    for width in (NARROWEST, PHONE, TABLET, DESKTOP):
        fits(page, width)
    assert prints(page).startswith(b"%PDF-")


@pytest.mark.parametrize("page", ["demo"], indirect=True)
def test_axe_and_the_widths_can_tell(page: Any) -> None:
    """The reject arm: a picture without words, a table too wide, a fold that stays shut."""
    page.evaluate("document.querySelector('img').removeAttribute('alt')")
    assert any(found.startswith("image-alt") for found in problems(page))
    page.evaluate("document.querySelector('h1').style.width = '500px'")
    with pytest.raises(AssertionError):
        fits(page, PHONE)
    page.evaluate(
        "document.querySelector('main').insertAdjacentHTML('beforeend', "
        "'<div style=\"overflow: hidden; width: 90px\"><pre>' + 'x'.repeat(99) + '</pre></div>')"
    )
    with pytest.raises(AssertionError):
        prints(page)
