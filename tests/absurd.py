"""Figures that nobody can mean, put in the place of each figure of a document."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

NESTED: Any = []
for _ in range(400):
    NESTED = [NESTED]

ABSURD = (
    math.nan, math.inf, -math.inf, -1, -1.5, 0, 0.5, 1e-320, 1e12, 1e17, 1e308, 2**31, 2**53 + 1,
    2**63, 2**64, -(2**63), 10**400, True, "1", None, [], {}, NESTED,
)  # fmt: skip


def absurd(form: Any, *, every: int = 1) -> Iterator[tuple[str, Any, Any]]:
    """A document with one of its figures replaced, for each figure and each absurd value.

    Args:
        form: JSON's values.
        every: Only each so manieth, to be quick.

    Yields:
        Where, by what, and the document.
    """
    form = lists(form)
    places = list(figures(form))
    number = 0
    for path in places:
        for value in ABSURD:
            number += 1
            if number % every == 0:
                yield "".join(f"[{step!r}]" for step in path), value, _with(form, path, value)


def figures(form: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all numbers, yes-or-nos left out."""
    if isinstance(form, dict):
        for name, value in form.items():
            yield from figures(value, (*path, name))
    elif isinstance(form, list | tuple):
        for place, value in enumerate(form):
            yield from figures(value, (*path, place))
    elif isinstance(form, int | float) and not isinstance(form, bool):
        yield path


def lists(form: Any) -> Any:
    """The same with lists for tuples."""
    if isinstance(form, dict):
        return {name: lists(value) for name, value in form.items()}
    return [lists(value) for value in form] if isinstance(form, list | tuple) else form


def _with(form: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(form)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed
