"""Docstrings of public names are sentences that say something, or are left to a base class.

A long module says besides who calls it: `callers` reads that off the imports, so that a name in a
docstring is a caller of today and not of last year.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
PACKAGES = ("aggregation", "fmfl_secure", "privacy")
LONG = 150  # lines


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


@pytest.mark.parametrize("package", PACKAGES)
def test_every_docstring_is_worth_reading(package: str) -> None:
    found = []
    for module, tree in modules().items():
        if module.split(".")[0] != package:
            continue
        of_module = f"{ast.get_docstring(tree)} It may be as short as the name of a form."
        for name, docstring in [("", of_module), *documented(tree)]:
            if (why := fault(docstring)) is not None:
                found.append(f"{module} {name}: {docstring[:60]!r} {why}")
    assert found == []


@pytest.mark.parametrize("poor", ["What it is, and how.", "See `Task`; of a text.", "The labels."])
def test_a_poor_one_is_found(poor: str) -> None:
    tree = ast.parse(f'class A:\n    def b(self):\n        """{poor}"""\n')
    ((name, docstring),) = documented(tree)
    assert name == "A.b"
    assert fault(docstring)
    assert fault("Returns the labels, in order.") is None


@cache
def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(each for package in PACKAGES for each in (ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text(encoding="utf-8"), path)
    return found


def statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from statements(child)


def callers(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Modules that import each, directly or as a name that a package hands on."""
    asked = {
        module: {
            (each.module, name.name)
            for each in statements(tree)
            if isinstance(each, ast.ImportFrom) and each.module
            for name in each.names
        }
        for module, tree in trees.items()
    }

    def origins(module: str, name: str) -> set[str]:
        if f"{module}.{name}" in trees:
            return {f"{module}.{name}"}
        handed = [each for each in asked.get(module, ()) if each[1] == name and each[0] != module]
        return {module}.union(*(origins(*each) for each in handed))

    found: dict[str, set[str]] = defaultdict(set)
    for module in trees:
        for each in set[str]().union(*(origins(*each) for each in asked[module])) - {module}:
            found[each].add(module)
    return found


def untold(module: str, trees: Mapping[str, ast.Module], by: Mapping[str, set[str]]) -> str | None:
    """Why a long module does not tell its reader who calls it; None where it does."""
    said = ast.get_docstring(trees[module]) or ""
    if len(re.findall(r"[.!?](?=\s|$)", said)) < 2:
        return "has a docstring of fewer than two sentences"
    if f"python -m {module}" in said:
        return None
    public = {
        caller: {node.name for node in trees[caller].body if isinstance(node, NAMED)}
        for caller in by[module]
    }
    for name in re.findall(r"`([\w.]+)`", said):
        if any(f".{c}".endswith(f".{name}") or name in names for c, names in public.items()):
            return None
    return f"names none of its callers: {', '.join(sorted(public)) or 'it has none'}"


def test_a_long_module_names_who_calls_it() -> None:
    trees = modules()
    by = callers(trees)
    found = {
        module: why
        for module, tree in trees.items()
        if max(node.end_lineno or 0 for node in tree.body) > LONG
        if (why := untold(module, trees, by)) is not None
    }
    assert found == {}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("One sentence, which names `b`.", "fewer than two sentences"),
        (
            "Two sentences. They name `c`, which calls nothing here.",
            "names none of its callers: a, b",
        ),
        ("Two sentences. They name `b`.", None),
        ("Two sentences. They name `run`.", None),
    ],
    ids=["short", "another", "module", "function"],
)
def test_who_calls_a_module_is_read_off_its_imports(said: str, why: str | None) -> None:
    sources = {
        "a": "",
        "a.x": f'"""{said}"""',
        "b": "from a import y\ndef run(): ...",
        "c": "",
    }
    trees = {name: ast.parse(source) for name, source in sources.items()}
    trees["a"] = ast.parse("from a.x import y")
    found = untold("a.x", trees, callers(trees))
    assert found == why if why is None else why in str(found)


def strangers(trees: Mapping[str, ast.Module]) -> set[str]:
    """Names of modules in docstrings, from their package on, that are none, or lack what is named.

    A name whose first two parts are no module is a setting's, such as `privacy.delta`.
    """

    def lacks(module: str, rest: list[str]) -> bool:
        found = {getattr(each, "name", getattr(each, "id", "")) for each in ast.walk(trees[module])}
        return not found.issuperset(rest)

    found = set()
    for module, tree in trees.items():
        docstrings = " ".join(
            said for _, said in [("", ast.get_docstring(tree) or ""), *documented(tree)]
        )
        for name in re.findall(r"`((?:aggregation|fmfl_secure|privacy)(?:\.\w+)+)`", docstrings):
            parts = name.split(".")
            known = next(n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in trees)
            is_module = known > 1 or parts[0] == "fmfl_secure"
            if is_module and parts[known:] and lacks(".".join(parts[:known]), parts[known:]):
                found.add(f"{module}: {name}")
    return found


def test_docstrings_name_modules_that_there_are() -> None:
    assert strangers(modules()) == set()


def test_one_that_is_gone_is_found() -> None:
    trees = {
        "privacy": ast.parse(""),
        "privacy.plan": ast.parse('"""Not `privacy.plans` and not `privacy.plan.gone`."""'),
        "fmfl_secure": ast.parse('"""Of `fmfl_secure.gone`; `privacy.delta` is a setting."""'),
    }
    assert strangers(trees) == {"privacy.plan: privacy.plan.gone", "fmfl_secure: fmfl_secure.gone"}


def unasked(tree: ast.AST) -> list[str]:
    """Arguments that a docstring describes and that are none, of functions and of classes."""
    found = []
    for node in [each for each in statements(tree) if isinstance(each, NAMED)]:
        told = re.search(
            r"^Args:\n((?: {4}.*\n?|\n)*)", ast.get_docstring(node) or "", re.MULTILINE
        )
        of_class = node.body if isinstance(node, ast.ClassDef) else []
        for each in [n for n in of_class if getattr(n, "name", "") == "__init__"] or [node]:
            if not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                continue  # the fields of a dataclass are its attributes
            taken = {n.arg for n in ast.walk(each.args) if isinstance(n, ast.arg)}
            names = re.findall(r"^ {4}(\w[\w, ]*):", told[1] if told else "", re.MULTILINE)
            said = {name.strip() for line in names for name in re.split(",| and ", line)}
            found += [f"{node.name}: {name}" for name in sorted(said - taken)]
    return found


def test_docstrings_describe_arguments_that_there_are() -> None:
    found = {module: told for module, tree in modules().items() if (told := unasked(tree))}
    assert found == {}


def test_an_argument_that_is_gone_is_found() -> None:
    text = '"""Sums.\n\n    Args:\n        a, b: Numbers.\n        line: What is gone.\n    """'
    assert unasked(ast.parse(f"def f(a, b):\n    {text}\n")) == ["f: line"]
    assert unasked(ast.parse(f"class C:\n    {text}\n    def __init__(self, a): ...\n")) == [
        "C: b",
        "C: line",
    ]
