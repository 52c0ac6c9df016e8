"""What a base model's folder tells of where it was published, and of its licence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fmfl_secure.models import find_base_model
from fmfl_secure.models.provenance import hub_id, licence


def test_a_folder_of_the_hub_s_cache_names_its_model(tiny_model: Path, tmp_path: Path) -> None:
    place = tmp_path / "models--some-lab--bert-tiny/snapshots/0123abc"
    shutil.copytree(tiny_model, place)
    assert hub_id(find_base_model(str(place))) == "some-lab/bert-tiny"
    assert hub_id(find_base_model(str(tiny_model))) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n", "apache-2.0"),
        ('---\nlicense: "mit"\n---\n', "mit"),
        ("# A model\nlicense: mit\n", ""),
        ("---\nlicense: [a, b]\n---\n", ""),
        ("", ""),
    ],
)
def test_a_licence_is_read_from_the_front_matter(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert licence(tmp_path) == expected
    assert licence(tmp_path / "nowhere") == ""
