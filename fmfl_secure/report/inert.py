"""Finds in a page whatever would run, load or leave for somewhere else when it is opened.

A page of ours does none of it. One that another version made cannot be made again to compare it,
and is its coordinator's word; so `report.bundle` hands on none that does more than be read.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

_ACTIVE: Final = frozenset(
    {
        "script", "iframe", "frame", "object", "embed", "applet", "base", "form", "link", "audio",
        "video", "source", "foreignobject", "animate", "set", "portal", "template", "input",
        "button", "image", "img",
    }
)  # fmt: skip
_PLACES: Final = frozenset({"href", "xlink:href", "src", "srcset", "action", "formaction", "data"})
_POLICY: Final = "content-security-policy"
_FETCHES: Final = re.compile(r"@import|url\(\s*['\"]?(?!#)|expression\(", re.IGNORECASE)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        given = {name: value or "" for name, value in attrs}
        if tag in _ACTIVE:
            self.found.append(f"<{tag}>")
        if tag == "meta" and given.get("http-equiv", _POLICY).lower() != _POLICY:
            self.found.append(f"<meta http-equiv={given['http-equiv']}>")
        for name, value in given.items():
            leads_away = name in _PLACES and not value.startswith("#")
            if name.startswith("on") or leads_away or (name == "style" and _FETCHES.search(value)):
                self.found.append(f"{name} of <{tag}>")

    def handle_endtag(self, tag: str) -> None:
        self._in_style = self._in_style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self._in_style and _FETCHES.search(data):
            self.found.append("<style> that loads something")


def active_parts(page: str) -> list[str]:
    """Names all parts of a page that do more than be read; empty of one of ours.

    Args:
        page: HTML, from anybody.
    """
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return reader.found
