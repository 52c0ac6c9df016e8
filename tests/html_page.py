"""A page as tests read it: nesting checked on the way, and what every page of ours keeps."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """Checks the nesting and collects what tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def headings_are_in_order(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]

    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))


def ids_are_unique_and_references_exist(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    wanted = {
        one
        for _, attrs in page.tags
        for name in ("aria-labelledby", "aria-describedby")
        for one in (attrs.get(name) or "").split()
    }
    wanted |= {(attrs.get("href") or "#")[1:] for attrs in page.named("use")}

    assert len(ids) == len(set(ids))
    assert wanted <= set(ids)


def tables_have_captions_and_scopes(page: Page) -> None:
    assert len(page.named("caption")) == len(page.named("table")) > 0
    assert all(attrs.get("scope") in {"row", "col", "colgroup"} for attrs in page.named("th"))


def needs_nothing_from_outside(text: str, *, pictures: bool = False) -> None:
    """Nothing is loaded or run; with `pictures`, those that stand in the page itself may be."""
    if pictures:
        text = re.sub(r'<img src="data:image/png;base64,[A-Za-z0-9+/=]+"', "", text)
    assert set(re.findall(r"\w+://[^\s\"'<>)]+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<(script|link|img|iframe|object|embed|base)\b", text)
    assert not re.search(r"@import|\ssrc=|\son\w+=|javascript:", text)
    assert "url(" not in re.sub(r"url\(#", "", text)
