"""The documents hold together: pages are in the nav, and what they link to and name exists."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FILES = [ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")]
FILES += [*PAGES, *sorted((ROOT / "examples").glob("*/README.md"))]
# Pages that tools/docs/hooks.py makes of files at the repository's root.
BORROWED = {"security.md", "changelog.md", "contributing.md"}

LINK = re.compile(r"!?\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
PLACES = "tests|fmfl_secure|privacy|aggregation|docs|benchmarks|examples|deploy|tools"
NAMED = re.compile(rf"`((?:{PLACES})/[\w./*-]*)(?:::(\w+)(?:\[[^\]]*\])?)?`")
DOTTED = re.compile(r"`((?:fmfl_secure|privacy|aggregation)(?:\.\w+)+)(?:\([^`]*\))?`")
COMMAND = re.compile(r"fmfl-secure ([a-z][a-z-]*(?: [a-z]+)?)")


def identify(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Ids of headings on which the two renderers, GitHub's and Python-Markdown's, agree."""
    found: set[str] = set()
    for text in HEADING.findall(prose(path)):
        kept = (
            re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)).strip().lower()
        )
        github, site = re.sub(r"\s", "-", kept), re.sub(r"[-\s]+", "-", kept)
        if github == site and github not in found and kept.isascii():
            found.add(github)
    return found


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def nav_pages(entry: object) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    inner = entry.values() if isinstance(entry, dict) else entry
    return [page for one in inner for page in nav_pages(one)]  # type: ignore[attr-defined]


def test_every_page_is_in_the_nav_once_and_nothing_else() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = nav_pages(settings["nav"])
    assert len(listed) == len(set(listed))
    assert set(listed) == {page.relative_to(DOCS).as_posix() for page in PAGES} | BORROWED


def test_pages_of_the_site_ask_nobody_for_fonts() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert settings["theme"]["font"] is False
    for page in PAGES:
        assert "```mermaid" not in page.read_text(encoding="utf-8"), page


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_every_relative_link_and_anchor_resolves(path: Path) -> None:
    for target in LINK.findall(CODE.sub("", prose(path))):
        if "://" in target or target.startswith("mailto:"):
            continue
        place, _, anchor = target.partition("#")
        file = (path.parent / place).resolve() if place else path
        assert file.exists(), target
        assert file == ROOT or ROOT in file.parents, target
        if anchor:
            assert anchor in anchors(file), target


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_every_file_and_test_that_is_named_exists(path: Path) -> None:
    text = prose(path)
    for place, function in NAMED.findall(text):
        found = sorted(ROOT.glob(place)) if "*" in place else [ROOT / place]
        assert found, place
        assert all(one.exists() for one in found), place
        if function:
            assert function in functions(found[0]), f"{place}::{function}"
    for dotted in DOTTED.findall(text):
        assert exists(dotted), dotted


@functools.cache
def functions(file: Path) -> set[str]:
    """Names of the functions that a file defines."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module, or something that the longest module in it defines."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        stem = ROOT.joinpath(*parts[:end])
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                text = file.read_text(encoding="utf-8")
                return all(re.search(rf"\b{one}\b", text) for one in parts[end:])
    return False


@pytest.mark.parametrize("path", FILES, ids=identify)
def test_every_command_that_is_named_exists(path: Path) -> None:
    from test_cli import COMMANDS

    names, groups = {" ".join(one) for one in COMMANDS}, {one[0] for one in COMMANDS if one[1:]}
    for said in COMMAND.findall(path.read_text(encoding="utf-8")):
        first = said.split()[0]
        assert said in names or first in names or said in groups or first == "report", said
        # `report RUN` is `report show RUN`.


def test_the_diagrams_are_drawn_from_their_source() -> None:
    diagrams = load(ROOT / "tools/docs/diagrams.py")
    for name, draw in diagrams.DRAWINGS.items():
        committed = (DOCS / "images" / name).read_text(encoding="utf-8")
        assert committed == draw(), "python tools/docs/diagrams.py"


def test_the_diagram_of_a_round_and_the_protocol_name_the_same_messages() -> None:
    diagrams = load(ROOT / "tools/docs/diagrams.py")
    drawn = " ".join(text for _, _, text in diagrams.ROUND)
    table = (DOCS / "protocol.md").read_text(encoding="utf-8")
    kinds = set(re.findall(r"^\| \d \| `([\w-]+)`", table, re.MULTILINE))
    # Custodians are left out of the drawing; a sealed secret travels as a part of the upload.
    shown = kinds - {"custodian-ready", "approval", "sigma", "opening-list"}
    assert {"plan", "cohort", "upload", "release"} <= shown
    for kind in shown:
        assert kind in drawn, kind


def test_versions_of_peers_stand_in_one_place() -> None:
    """The comparison names versions and dates in its first table alone, and cites every source."""
    text = (DOCS / "compare.md").read_text(encoding="utf-8")
    before, _, rest = text.partition("## What was looked at\n")
    looked_at, _, rest = rest.partition("\n## ")
    body, _, sources = rest.partition("\n## Sources\n")
    rows = re.findall(
        r"^\| ([\w -]+?) \|.*?\| ([^|]+) \| ([^|]+) \|[^|]*\|$", looked_at, re.MULTILINE
    )
    peers = [name for name, *_ in rows if name.strip("- ")]
    assert len(peers) >= 8
    for name in peers:
        assert not re.search(rf"{re.escape(name)} v?\d", before + body), name
    listed = {int(number) for number in re.findall(r"^(\d+)\. .+<https://", sources, re.MULTILINE)}
    cited = {int(number) for number in re.findall(r"\[(\d+)\]", looked_at + body)}
    assert cited == listed
