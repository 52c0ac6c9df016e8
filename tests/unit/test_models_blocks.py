"""Frozen weights in blocks of 8 and 4 bits: GGUF's own values, and per-record gradients exact."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import clipped_sum, randomise, task_on
from test_models_importing import write_gguf
from tiny_models import write_tiny

from fmfl_secure.errors import ModelError
from fmfl_secure.models import find_base_model
from fmfl_secure.models.block_weights import KINDS, BlockKind, block_kinds, dequantised
from fmfl_secure.models.computation import Computation
from fmfl_secure.models.importing import import_model
from fmfl_secure.report.merged import write_merged
from fmfl_secure.training.finished_run import FinishedRun
from privacy.mechanism.admission import check_admission

gguf = pytest.importorskip("gguf")
BLOCKS = Computation(dtype="blocks")


@pytest.fixture(scope="module", params=KINDS)
def base(request, tiny_models, tmp_path_factory) -> Path:
    """A tiny llama with all of its matrices in blocks."""
    folder = tmp_path_factory.mktemp(request.param) / "base"
    import_model(str(tiny_models("llama")), folder, weights=request.param)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_stand_for_the_values_that_gguf_says(kind: BlockKind) -> None:
    values = np.random.default_rng(1).normal(0, 0.1, (7, 96)).astype(np.float32)
    values[0] = 0.0
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind.upper()])
    expected = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType[kind.upper()])
    found = dequantised(torch.from_numpy(packed), kind)
    assert np.array_equal(found.numpy(), expected)
    rows = torch.tensor([[3, 0], [6, 6]])
    assert torch.equal(dequantised(torch.from_numpy(packed)[rows], kind), found[rows])


def test_a_step_on_blocks_is_that_on_their_values(base: Path) -> None:
    kept, whole = (
        task_on(base, "causal-lm", "lora", computation=c) for c in (BLOCKS, Computation())
    )
    models = [task.build_model(seed=1) for task in (kept, whole)]
    assert block_kinds(base)
    sizes = [
        sum(p.numel() * p.element_size() for p in m.parameters() if not p.requires_grad)
        for m in models
    ]
    assert sizes[0] < 0.45 * sizes[1]
    for model in models:
        randomise(model)
    data = kept.synthetic()
    losses = [
        task.per_record_loss(model, task.synthetic().collate(np.arange(8)))
        for task, model in zip((kept, whole), models, strict=True)
    ]
    assert torch.allclose(*losses, atol=1e-5)
    one, two = (
        clipped_sum(task, model, together=3)
        for task, model in zip((kept, whole), models, strict=True)
    )
    assert torch.allclose(one, two, atol=1e-6)
    # What a record adds does not depend on those beside it: far within the gate's tolerance.
    alone = clipped_sum(kept, models[0], together=1)
    assert float((alone - one).norm()) < 1e-5 * 0.1 * 2 * data.records


@pytest.mark.parametrize(
    "adapter",
    [
        "ffa-lora",
        "lora",
        "lora-xs",
        "dora",
        "vera",
        "lokr",
        "ia3",
        "bottleneck",
        "prompt",
        "p-tuning",
        "norms",
    ],
)
def test_every_adapter_on_blocks_passes_the_gate(tiny_models, adapter: str, tmp_path: Path) -> None:
    import_model(str(tiny_models("llama")), tmp_path / "base", weights="q4_0")
    task = task_on(tmp_path / "base", "causal-lm", adapter, computation=BLOCKS)
    model = task.build_model(seed=1)
    data = task.synthetic()
    check_admission(
        model,
        loss=task.per_record_loss,
        collate=data.collate,
        records=data.records,
        physical_batch_size=3,
    )
    randomise(model)
    task.save_adapter(model, tmp_path / "adapter")
    everyone = np.arange(8)
    with torch.no_grad():
        expected = task.per_record_loss(model.eval(), data.collate(everyone))
        again = task.per_record_loss(
            task.open_adapter(tmp_path / "adapter"), data.collate(everyone)
        )
    assert torch.allclose(expected, again, atol=1e-5)


def test_weights_themselves_are_not_trained_in_blocks(base: Path) -> None:
    for adapter in ("full", "bitfit"):
        with pytest.raises(ModelError, match=r"blocks|biases"):
            task_on(base, "causal-lm", adapter, computation=BLOCKS).build_model(seed=1)


def test_a_gguf_files_own_blocks_are_kept_bit_by_bit(tmp_path: Path) -> None:
    source = write_tiny(tmp_path / "tiny", "qwen2")
    write_gguf(tmp_path / "model.gguf", source)
    plain = import_model(str(tmp_path / "model.gguf"), tmp_path / "plain")
    kept = import_model(str(tmp_path / "model.gguf"), tmp_path / "kept", weights="blocks")
    assert plain.digest != kept.digest
    assert set(block_kinds(kept.path).values()) == {"q8_0"}
    one, two = plain.load_language_model(), kept.load_language_model("float32")
    expected, found = one.state_dict(), two.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    with pytest.raises(ModelError, match="has no blocks of its own"):
        import_model(str(source), tmp_path / "none", weights="blocks")


def test_what_was_trained_on_blocks_is_merged_into_their_values(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    task = task_on(base, "causal-lm", "lora", computation=BLOCKS)
    model = task.build_model(seed=1)
    randomise(model)
    (tmp_path / "run").mkdir()
    task.save_adapter(model, tmp_path / "run/adapter")
    run = FinishedRun(tmp_path / "run", None, task)  # type: ignore[arg-type]
    write_merged(run, task, tmp_path / "out", None)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    batch = task.synthetic().collate(np.arange(1))
    with torch.no_grad():
        given = opened(input_ids=batch.input_ids).logits
        trained = model.eval().encoder(input_ids=batch.input_ids).logits
    assert torch.allclose(given, trained, atol=1e-4)


def test_what_does_not_go_with_blocks_is_refused(base: Path, tiny_models, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="would round once more"):
        find_base_model(str(base)).load_language_model("bfloat16")
    with pytest.raises(ModelError, match="holds none"):
        find_base_model(str(tiny_models("llama"))).load_language_model("blocks")
    shutil.copytree(base, tmp_path / "copy")
    config = json.loads((base / "config.json").read_text())
    for change, said in (({"num_hidden_layers": 3}, "lack"), ({"intermediate_size": 32}, "shape")):
        (tmp_path / "copy/config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=said):
            find_base_model(str(tmp_path / "copy")).load_language_model("blocks")
    task = task_on(base, "causal-lm", computation=BLOCKS)
    assert dataclasses.replace(task, computation=Computation()).build_model(seed=1)
