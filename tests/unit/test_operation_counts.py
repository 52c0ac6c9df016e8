"""A round does no more than it did: operations and bytes, the same on every machine."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
KEPT = json.loads((ROOT / "benchmarks/results/operations.json").read_text(encoding="utf-8"))
MOST = 1.25  # times what is kept; below the inverse, what is kept is out of date


@pytest.fixture(scope="module")
def counting() -> ModuleType:
    path = ROOT / "benchmarks/count_operations.py"
    spec = importlib.util.spec_from_file_location("counting", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.count(*next(iter(module.ROUNDS.values())))  # this process's own test, out of the way
    return module


def beyond(found: dict[str, dict[str, int]], kept: dict[str, dict[str, int]]) -> list[str]:
    """What grew or shrank by more than a quarter, or is in one of the two only."""
    return [
        f"{role}, {name}: {found.get(role, {}).get(name, 0)} and {kept.get(role, {}).get(name, 0)}"
        for role in found | kept
        for name in found.get(role, {}) | kept.get(role, {})
        if not 1 / MOST
        <= (found.get(role, {}).get(name, 0) + 1e-9) / (kept.get(role, {}).get(name, 0) + 1e-9)
        <= MOST
    ]


@pytest.mark.parametrize("name", sorted(KEPT))
def test_a_round_does_what_it_did(name: str, counting: ModuleType) -> None:
    found = counting.count(*counting.ROUNDS[name])
    again = "python benchmarks/count_operations.py benchmarks/results/operations.json"
    assert not beyond(found, KEPT[name]), f"if that is meant: {again}"


def test_every_round_is_kept(counting: ModuleType) -> None:
    assert set(counting.ROUNDS) == set(KEPT)


@pytest.mark.parametrize(
    ("change", "noticed"), [(1.3, True), (0.7, True), (1.2, False), (0.0, True)]
)
def test_a_change_of_more_than_a_quarter_is_noticed(change: float, noticed: bool) -> None:
    kept = KEPT["100,000 values, 8 sites"]
    found = {role: dict(each) for role, each in kept.items()}
    found["site"]["bytes of streams"] = round(found["site"]["bytes of streams"] * change)
    assert bool(beyond(found, kept)) == noticed
