"""What grows with the number of sites: as it is kept, and as docs/scale.md says."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
KEPT = json.loads((ROOT / "benchmarks/results/scale.json").read_text(encoding="utf-8"))
AGAIN = "if that is meant: python benchmarks/count_scale.py benchmarks/results/scale.json"
MOST = 1.25  # times what is kept; below the inverse, what is kept is out of date
FORMULA = 0.08  # of a figure: names differ in length, and who chose whom is chance


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks/count_scale.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return module


def beyond(found: dict[str, int], kept: dict[str, int]) -> list[str]:
    """What grew or shrank by more than a quarter, or is in one of the two only."""
    return [
        f"{name}: {found.get(name, 0)} and {kept.get(name, 0)}"
        for name in found | kept
        if not 1 / MOST <= found.get(name, 0) / max(kept.get(name, 0), 1e-9) <= MOST
    ]


@pytest.mark.parametrize("sites", [50, 200])
def test_a_site_is_sent_what_it_was(sites: int, scale: ModuleType) -> None:
    found, kept = scale.measure(sites), KEPT[str(sites)]["bytes"]
    assert found.keys() == kept.keys()
    assert [line for part in kept for line in beyond(found[part], kept[part])] == [], AGAIN


def test_and_does_what_it_did(scale: ModuleType) -> None:
    assert beyond(scale.operations(50), KEPT["50"]["operations"]) == [], AGAIN


@pytest.mark.parametrize("sites", KEPT)
def test_the_formulas_meet_the_counts(sites: str, scale: ModuleType) -> None:
    said, kept = scale.formulas(int(sites)), KEPT[sites]["bytes"]
    for part in kept:
        assert said[part] == pytest.approx(kept[part], rel=FORMULA)
    operations = scale.operation_formulas(int(sites))
    assert operations == pytest.approx(KEPT[sites]["operations"], rel=FORMULA)


def test_what_all_messages_have_for_each_site_no_longer_grows_with_the_square() -> None:
    """Of 20 times the sites a site is handed parts of as many bytes, where it was 4 times."""
    parts = {int(k): each["bytes"]["is sent"]["exchange parts"] for k, each in KEPT.items()}
    assert parts[1000] < 1.25 * parts[50]


def test_the_page_has_the_figures(scale: ModuleType) -> None:
    """Every row of the table of bytes, in KB, from the kept counts and the formulas."""
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    columns = [*(each["bytes"] for each in KEPT.values()), scale.formulas(10_000)]
    for part in ("is sent", "sends"):
        for name in columns[0][part]:
            row = re.search(rf"^\| {name} \|(.*)\|$", page, re.MULTILINE)
            assert row is not None, name
            figures = [float(figure.replace(",", "")) for figure in row[1].split("|")]
            kilobytes = [column[part][name] / 1000 for column in columns]
            assert figures == pytest.approx(kilobytes, rel=0.05, abs=0.06), name
