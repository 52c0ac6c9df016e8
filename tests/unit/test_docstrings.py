"""Docstrings of public names are sentences that say something, or are left to a base class."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def documented(node: ast.AST, name: str = "") -> Iterator[tuple[str, str]]:
    """Every public class and function below a node, with its docstring if it has one."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, NAMED) or child.name.startswith("_"):
            continue
        if found := ast.get_docstring(child):
            yield f"{name}{child.name}", found
        yield from documented(child, f"{name}{child.name}.")


def fault(docstring: str) -> str | None:
    if docstring.startswith("What "):
        return "begins with What: a sentence with a verb says more"
    if docstring.startswith("See "):
        return "sends its reader elsewhere: typing_extensions.override does, and is checked"
    if len(docstring.split()) <= 4:
        return "has four words or fewer: leave it out where the name says it all"
    return None


@pytest.mark.parametrize("package", ["aggregation", "fmfl_secure", "privacy"])
def test_every_docstring_is_worth_reading(package: str) -> None:
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        of_module = f"{ast.get_docstring(tree)} It may be as short as the name of a form."
        for name, docstring in [("", of_module), *documented(tree)]:
            if (why := fault(docstring)) is not None:
                found.append(f"{path.relative_to(ROOT)} {name}: {docstring[:60]!r} {why}")
    assert found == []


@pytest.mark.parametrize("poor", ["What it is, and how.", "See `Task`; of a text.", "The labels."])
def test_a_poor_one_is_found(poor: str) -> None:
    tree = ast.parse(f'class A:\n    def b(self):\n        """{poor}"""\n')
    ((name, docstring),) = documented(tree)
    assert name == "A.b"
    assert fault(docstring)
    assert fault("Returns the labels, in order.") is None
