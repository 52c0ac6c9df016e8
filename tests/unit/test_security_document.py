"""SECURITY.md names a test behind each guarantee; the names must be real."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_test_that_security_md_names_exists() -> None:
    named = NAMED.findall((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 30
    for path, function in named:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not function or function in found, f"{path}::{function}"


def test_every_guarantee_names_a_test() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    section = text.split("## Guarantees")[1].split("## What is not protected")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    guarantees = [row for row in rows if not row.startswith(("| guarantee", "| ---"))]
    assert len(guarantees) > 15
    for row in guarantees:
        assert NAMED.search(row), row
