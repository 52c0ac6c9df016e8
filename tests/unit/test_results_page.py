"""The pages of results say what the committed rows say, and rows are of committed settings."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from fmfl_secure.comparison import read_rows
from fmfl_secure.settings.federation import load_federation

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "benchmarks/published"
PAGE = ROOT / "docs/results.md"
# Its least number of tables.
PAGES = {
    PAGE: 6,
    ROOT / "docs/results-models.md": 2,
    ROOT / "docs/robustness.md": 4,
    ROOT / "docs/attacks.md": 1,
}


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks/results_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_table_of_rows_is_what_the_rows_say(tables: ModuleType, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- table ") >= PAGES[page]
    assert tables.regenerated(page) == text, f"python benchmarks/results_tables.py {page}"


@pytest.mark.parametrize("name", sorted(path.stem for path in SETTINGS.glob("*.toml")))
def test_rows_on_published_weights_are_of_the_settings_that_lie_beside(name: str) -> None:
    config = load_federation(SETTINGS / f"{name}.toml")
    file = ROOT / f"docs/results/{config.federation.name.replace('-', '_')}.jsonl"
    found = read_rows(file)
    assert found.header.settings_digest == config.digest
    assert len({row.key for row in found.rows}) == len(found.rows) > 1


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
