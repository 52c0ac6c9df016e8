"""SECURITY.md names a test behind each guarantee; `test_docs` sees that they are real."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_guarantee_names_a_test() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert len(NAMED.findall(text)) > 30
    section = text.split("## Guarantees")[1].split("## What is not protected")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    guarantees = [row for row in rows if not row.startswith(("| guarantee", "| ---"))]
    assert len(guarantees) > 15
    for row in guarantees:
        assert NAMED.search(row), row
