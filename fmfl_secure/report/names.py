"""Names and numbers of things in a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fmfl_secure.report import rounding


def count(number: int, singular: str, plural: str = "") -> str:
    """Writes a number with its noun: `1 site`, `4 sites`."""
    return f"{rounding.count(number)} {singular if number == 1 else plural or singular + 's'}"


def listing(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    found = list(names)
    if len(found) <= 1:
        return "".join(found)
    return f"{', '.join(found[:-1])} and {found[-1]}"


def who(names: Sequence[str], of: int) -> str:
    """Sites by name, or `all 4 sites`, or their number where names would fill a line."""
    if len(names) == of and of > 1:
        return f"all {of} sites"
    if len(names) <= 3:
        return listing(names)
    return f"{len(names)} sites, {names[0]} among them"


def capital(text: str) -> str:
    """The start of a sentence."""
    # Site names are shown as they are; only our own words start a sentence in capitals.
    return text[:1].upper() + text[1:] if text.startswith("all ") else text
