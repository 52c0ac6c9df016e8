"""docs/models.md says what the tables say, and the tests it names exist."""

from __future__ import annotations

import re
from pathlib import Path

from fmfl_secure.tasks.document import models_document

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_one_that_the_tables_give() -> None:
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert page == models_document(), "python -m fmfl_secure.tasks.document > docs/models.md"


def test_the_tests_that_the_page_names_exist() -> None:
    page = models_document()
    matrix = ROOT / "tests" / "integration" / "test_models_matrix.py"
    named = set(re.findall(r"test_[a-z]+(?=[\[`])", page))
    assert {"test_works", "test_refused"} <= named
    source = matrix.read_text(encoding="utf-8")
    assert all(f"def {name}(" in source for name in named)
