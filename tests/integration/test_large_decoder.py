"""A decoder of a billion parameters on a small machine: a private LoRA step, by its peak memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaConfig

from fmfl_secure.bench.large import measure_large, measure_step, write_llama
from fmfl_secure.models.computation import Computation


def test_a_private_step_runs_from_several_files(tmp_path: Path) -> None:
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=200,
        tie_word_embeddings=False,
    )
    written = write_llama(config, tmp_path, shard_bytes=20_000)
    assert len(list(tmp_path.glob("*.safetensors"))) == written["files"] > 1
    measured = measure_step(tmp_path, Computation(dtype="bfloat16", checkpointing=True))
    assert measured["trainable_parameters"] == 2 * 2 * 8 * (32 + 32)
    assert measured["peak_mib"] >= measured["peak_loaded_mib"] > 100


@pytest.mark.slow
def test_a_billion_parameters_take_a_private_step_in_under_12_gib() -> None:
    measured = measure_large()
    assert measured["parameters"] > 1e9
    assert measured["peak_mib"] < 12 * 1024
    # The weights once, a layer's in float32, and the libraries: far less than float32 weights.
    assert measured["peak_mib"] < measured["weights_mib"] + 2048, measured
