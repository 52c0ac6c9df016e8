"""Chromium for the tests of pages, and what holds of every page of ours in it.

`browser` is a fixture of the module that imports it: a browser's start takes seconds, and
Playwright's loop must not outlive the module.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PHONE, TABLET, DESKTOP = 390, 768, 1280  # CSS pixels
NARROWEST = 320  # WCAG 2.2, 1.4.10: content reflows down to here
A4 = 688  # CSS pixels between the margins of a printed page: 182 mm

needs_browser = [
    pytest.mark.slow,  # a browser's start alone takes seconds
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

# Wider than the window, but for what scrolls by itself; the root's own width comes first.
_TOO_WIDE = """() => {
  const wide = [...document.querySelectorAll('body *')].filter(element => {
    if (element.closest('.scroll') || element.closest('svg')) return false;
    const box = element.getBoundingClientRect();
    return box.width > 0 && Math.round(box.right) > innerWidth;
  });
  return [document.documentElement.scrollWidth - innerWidth,
          wide.slice(0, 5).map(element => element.outerHTML.slice(0, 80))];
}"""
# In print nothing scrolls: what is beyond its box is lost.
_CUT = """() => [...document.querySelectorAll('body *')].filter(element => {
    if (element.closest('svg')) return false;
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    if (style.position === 'absolute' || style.display === 'inline') return false;
    const hides = style.overflowX !== 'visible' && element.scrollWidth > element.clientWidth + 1;
    return hides || (box.width > 0 && Math.round(box.right) > innerWidth);
  }).slice(0, 5).map(element => element.outerHTML.slice(0, 80))"""
_CLOSED = """() => [...document.querySelectorAll('details')]
    .filter(one => one.getBoundingClientRect().height < 60).length"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium; skips, and says so, where its driver is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


def problems(page: Any) -> list[str]:
    """What axe calls serious or critical on a page as it stands: rule, and where."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    found = axe.Axe().run(page).response
    assert len(found["passes"]) > 10, "axe looked at the page"
    return [
        f"{violation['id']}: {node['html'][:120]}: {node['failureSummary'][:200]}"
        for violation in found["violations"]
        if violation["impact"] in {"serious", "critical"}
        for node in violation["nodes"]
    ]


def fits(page: Any, width: int) -> None:
    """At a window this wide, the page itself does not scroll sideways."""
    page.set_viewport_size({"width": width, "height": 900})
    beyond, elements = page.evaluate(_TOO_WIDE)
    assert beyond <= 0, elements
    assert elements == []


def prints(page: Any) -> bytes:
    """On paper nothing is cut off and nothing stays folded; the PDF."""
    page.emulate_media(media="print")
    page.set_viewport_size({"width": A4, "height": 1000})
    assert page.evaluate(_CUT) == []
    assert page.evaluate(_CLOSED) == 0, "what is folded on a screen is not folded on paper"
    pdf: bytes = page.pdf(prefer_css_page_size=True)
    page.emulate_media(media="screen")
    return pdf
