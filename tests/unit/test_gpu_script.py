"""The script for a CUDA device ends cleanly where there is none, and measures on a processor."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.py"


def small(**_: Any) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        vocab_size=200, tie_word_embeddings=False,
    )  # fmt: skip


def test_without_a_device_it_says_so(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert capsys.readouterr().out == "there is no CUDA device here: nothing was measured\n"


@pytest.mark.slow
def test_its_steps_and_its_gate_run(tmp_path: Path) -> None:
    """On the processor alone, which is all that this machine may have."""
    script = runpy.run_path(str(SCRIPT))
    script["_steps"].__globals__["_config"] = small
    rows = list(script["_steps"](tmp_path, [torch.device("cpu")]))
    assert [row["weights"] for row in rows] == ["float32", "bfloat16", "blocks"]
    assert all(row["step_s"] > 0 and row["gate_s"] > 0 for row in rows)


@pytest.mark.slow
def test_its_federation_runs(tmp_path: Path) -> None:
    script = runpy.run_path(str(SCRIPT))
    found = script["_federation"](tmp_path / "cpu", torch.device("cpu"))
    assert found["cohorts"] == [3] * 4
    assert "fmfl_secure" in sys.modules
