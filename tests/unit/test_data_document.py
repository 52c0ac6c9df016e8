"""docs/data.md says what the tables of forms, pictures and refusals say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fmfl_secure.data import errors
from fmfl_secure.data.document import data_document
from fmfl_secure.data.errors import DataError
from fmfl_secure.data.formats import FORMATS
from fmfl_secure.data.formats.foreign import FOREIGN
from fmfl_secure.data.pictures import PICTURES

ROOT = Path(__file__).parents[2]


def test_the_page_is_the_one_that_the_tables_give() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert page == data_document(), "python -m fmfl_secure.data.document > docs/data.md"


@pytest.mark.parametrize("name", [*FORMATS.names, *PICTURES.names])
def test_every_entry_is_on_the_page_with_all_that_it_refuses(name: str) -> None:
    page = data_document()
    if name in FORMATS.names:
        kind = FORMATS.get(name)
        said = [*kind.suffixes, kind.known_by, kind.columns_from, *kind.refuses]
    else:
        form = PICTURES.get(name)
        said = [*form.suffixes, form.known_by, *(part for rule in form.rules for part in rule)]
    assert all(part in page for part in said)


def test_every_refusal_and_all_that_is_recognised_are_on_the_page() -> None:
    page = data_document()
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, DataError)]
    assert len(kinds) > 10
    assert all(f"`{kind.__name__}`" in page for kind in kinds if kind is not DataError)
    assert all(known.name in page for known in FOREIGN)
