"""Who has no model loads no machine-learning library, not even by a detour."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

HEAVY = ("torch", "transformers", "peft", "opacus", "scipy", "matplotlib")


def without_models() -> list[str]:
    """The modules that the import contract names."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    (contract,) = (
        c
        for c in tomllib.loads(text)["tool"]["importlinter"]["contracts"]
        if c["name"] == "parties that have no model load no machine-learning library"
    )
    assert set(contract["forbidden_modules"]) == set(HEAVY)
    return list(contract["source_modules"])


def loaded_by(modules: list[str]) -> list[str]:
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout.split()


def test_a_fresh_process_of_those_parties_loads_none_of_it() -> None:
    found = without_models()
    if importlib.util.find_spec("flwr") is None:  # the Flower tests' environment has it
        found.remove("fmfl_secure.transports.flower.server_app")
    assert loaded_by(found) == []


def test_who_has_a_model_does() -> None:
    assert "torch" in loaded_by(["fmfl_secure.models.layout"]), "this test would notice"
