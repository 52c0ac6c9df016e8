"""docs/results.md says what the committed rows say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/results.md"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks/results_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_of_rows_is_what_the_rows_say(tables: ModuleType) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("<!-- table ") >= 6
    assert tables.regenerated(PAGE) == text, "python benchmarks/results_tables.py docs/results.md"


def test_a_changed_figure_and_a_missing_row_are_noticed(tables: ModuleType, tmp_path: Path) -> None:
    for file in (ROOT / "docs/results").rglob("*.json*"):
        copy = tmp_path / file.relative_to(ROOT / "docs")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    page, text = tmp_path / "results.md", PAGE.read_text(encoding="utf-8")
    page.write_text(text.replace(" ± ", " + ", 1), encoding="utf-8")
    assert tables.regenerated(page) == text
    rows = tmp_path / "results/earlier/sst2.jsonl"
    lines = rows.read_text(encoding="utf-8").splitlines(keepends=True)
    rows.write_text("".join(lines[:2] + lines[3:]), encoding="utf-8")
    assert tables.regenerated(page) != text
