"""How pages are made: one template environment, one style sheet, one way to show a value.

Every page is a document that needs nothing else: no script, no request, and a content security
policy that permits none. Everything put into it is escaped.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from fmfl_secure.report import names, rounding

_DIGEST_SHOWN = 10  # hexadecimal digits; enough to tell two apart by eye, the full one is beside it


def environment(package: str = "fmfl_secure.report", **filters: Callable[..., str]) -> Environment:
    """The environment of a page.

    Args:
        package: Where its template is, in a folder `templates`; what pages share is found besides.
        filters: Of this page alone.
    """
    packages = dict.fromkeys((package, "fmfl_secure.report"))
    made = Environment(
        loader=ChoiceLoader([PackageLoader(each, "templates") for each in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(
        spent=rounding.spent,
        left=rounding.left,
        typed=rounding.typed,
        small=rounding.small,
        count=rounding.count,
        size=rounding.size,
        listing=names.listing,
        when=when,
        digest=digest,
        rounds=rounds,
        **filters,
    )
    return made


def when(text: str) -> str:
    """A UTC time to the minute; anything else as it stands."""
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        return text
    if moment.tzinfo is not None:
        moment = moment.astimezone(dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def digest(text: str) -> str:
    """The first digits of a digest, with its algorithm."""
    algorithm, colon, digits = text.rpartition(":")
    if len(digits) <= _DIGEST_SHOWN:
        return text
    return f"{algorithm}{colon}{digits[:_DIGEST_SHOWN]}…"


def rounds(numbers: Sequence[int]) -> str:
    """`1-3, 5`; rounds that occur again are named again: `1-3, 5; again 2`."""
    seen: set[int] = set()
    again = [number for number in numbers if number in seen or seen.add(number)]  # type: ignore[func-returns-value]
    runs: list[tuple[int, int]] = []
    for number in sorted(seen):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    text = ", ".join(str(a) if a == b else f"{a}\N{EN DASH}{b}" for a, b in runs) or "none"
    return f"{text}; again {', '.join(map(str, again))}" if again else text
