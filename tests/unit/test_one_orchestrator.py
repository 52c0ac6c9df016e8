"""One orchestrator: the order of a round's steps stands in `runtime`, and nowhere else."""

from __future__ import annotations

import ast
from pathlib import Path

import fmfl_secure

ROOT = Path(fmfl_secure.__file__).parent
# Rooms that measure the roles or show attacks on them, outside any run.
SHOWN = ("bench", "demonstration")
DRIVERS = {
    "runtime/attempt_driver.py",
    "runtime/custodian_requests.py",
    "runtime/round_driver.py",
    "runtime/run_driver.py",
}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(SHOWN):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def test_only_the_drivers_say_what_a_party_does_next() -> None:
    found = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "assign"
    }
    assert found == DRIVERS


def test_the_sum_is_made_in_one_place() -> None:
    """Whoever has an `Aggregator` could carry a round of its own."""
    found = {
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Aggregator"
    }
    assert found == {"runtime/attempt_state.py"}


def test_no_module_imports_the_roles_of_two_parties() -> None:
    roles = {"Aggregator", "Coordinator", "Custodian", "Decryptor", "SiteAttempt"}
    several = {}
    for name, tree in modules():
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "aggregation"
            for alias in node.names
        }
        if len(imported & roles) > 1:
            several[name] = imported & roles
    assert several == {"runtime/attempt_state.py": {"Aggregator", "Coordinator"}}
