"""Ways to write where an entity begins and ends, and what each is as BIO, which is what is learned.

Which one a file has, the settings say: `I-X` after another type means one thing in BIO and another
in IOB1, and no file says which it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from fmfl_secure.settings.types import TagScheme

OUTSIDE = "O"


def to_bio(tags: Sequence[str], scheme: TagScheme) -> list[str] | None:
    """The tags of one text as BIO; None where they contradict the scheme.

    Args:
        tags: As the file has them.
        scheme: How it writes them.
    """
    return _READ[scheme](tags)


def scheme_of(tag: str) -> str:
    """Of which other scheme a tag is by its first letter; empty for none."""
    return "bioes" if tag.partition("-")[0] in {"S", "E", "U", "L"} and "-" in tag else ""


def begins_inside(tags: Sequence[str]) -> bool:
    """Whether an entity begins with `I-`, as IOB1 writes and BIO should not."""
    return tags != _iob1(tags)


def _bio(tags: Sequence[str]) -> list[str]:
    return list(tags)


def _iob1(tags: Sequence[str]) -> list[str]:
    """`I-X` begins an entity but after an X; `B-X` is one that begins right after another X."""
    found, before = [], OUTSIDE
    for tag in tags:
        place, _, kind = tag.partition("-")
        begins = place == "I" and before.partition("-")[2] != kind
        found.append(f"B-{kind}" if begins else tag)
        before = tag
    return found


def _bioes(tags: Sequence[str]) -> list[str] | None:
    """`S-X` is an entity of one word, and `E-X` the last word of a longer one; U and L in BILOU."""
    found, open_kind = [], ""
    for tag in tags:
        place, _, kind = tag.partition("-")
        if (place in {"I", "E", "L"}) != bool(open_kind) or (open_kind and kind != open_kind):
            return None
        found.append(_AS_BIO.get(place, place) + (f"-{kind}" if kind else ""))
        open_kind = kind if place in {"B", "I"} else ""
    return None if open_kind else found


_AS_BIO: Final = MappingProxyType({"S": "B", "U": "B", "E": "I", "L": "I"})
_READ: Final[Mapping[TagScheme, Callable[[Sequence[str]], list[str] | None]]] = MappingProxyType(
    {"bio": _bio, "bioes": _bioes, "iob1": _iob1}
)
RULES: Final[Mapping[TagScheme, str]] = MappingProxyType(
    {
        "bio": "`B-X` begins an entity, `I-X` goes on: as they are",
        "bioes": "`S-X` reads as `B-X`, `E-X` as `I-X`; of BILOU, `U-X` as `B-X`, `L-X` as `I-X`. "
        "An entity that is left open, or goes on without a beginning, is a bad row",
        "iob1": "`I-X` that does not follow an X reads as `B-X`",
    }
)
