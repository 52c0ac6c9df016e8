"""Frozen weights in bfloat16: half the memory, and the arithmetic of float32."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_cases import randomise, task_on

from fmfl_secure.errors import ModelError
from fmfl_secure.models import find_base_model
from fmfl_secure.models.adapters import adapter_tensors, set_adapter_tensors
from fmfl_secure.models.computation import Computation
from privacy.mechanism.admission import check_admission

Models = Callable[[str], Path]
HALF = Computation(dtype="bfloat16")


def by_autograd(task: Any, model: Any, records: list[int], own: int) -> torch.Tensor:
    """The gradient of one record, computed in a batch with others."""
    batch = task.synthetic().collate(np.array(records, dtype=np.int64))
    loss = task.per_record_loss(model.train(), batch)[records.index(own)]
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)]).double()


def round_weights(model: Any) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" not in name and not parameter.requires_grad:
                parameter.copy_(parameter.to(torch.bfloat16))


def test_matrices_are_bfloat16_and_all_else_is_float32(tiny_models: Models) -> None:
    exact = find_base_model(str(tiny_models("gpt2"))).load_language_model()
    half = find_base_model(str(tiny_models("gpt2"))).load_language_model("bfloat16")
    assert half.lm_head.weight is half.transformer.wte.weight, "tied as they were"
    expected = dict(exact.named_parameters())
    assert not any(p.requires_grad for p in half.parameters())
    for name, parameter in half.named_parameters():
        matrix = name.endswith(".weight") and ".ln_" not in name
        assert parameter.dtype is (torch.bfloat16 if matrix else torch.float32), name
        assert torch.equal(parameter.float(), expected[name].to(torch.bfloat16).float()), name
    assert {b.dtype for b in half.buffers()} <= {torch.float32, torch.int64, torch.bool}


@pytest.mark.parametrize(
    ("model_type", "kind", "adapter"),
    [
        ("bert", "text-classification", "lora"),
        ("gpt2", "causal-lm", "lora"),
        pytest.param("llama", "causal-lm", "ia3", marks=pytest.mark.slow),
        pytest.param("clip", "image-text", "lora", marks=pytest.mark.slow),
    ],
)
def test_all_arithmetic_is_that_of_float32_on_the_rounded_weights(
    tiny_models: Models, model_type: str, kind: str, adapter: str
) -> None:
    folder = tiny_models(model_type)
    task = task_on(folder, kind, adapter, computation=HALF)
    plain = task_on(folder, kind, adapter)
    half, rounded = task.build_model(seed=1), plain.build_model(seed=1)
    assert {p.dtype for p in half.parameters() if p.requires_grad} == {torch.float32}
    round_weights(rounded)
    randomise(half)
    set_adapter_tensors(rounded, adapter_tensors(half))
    if model_type == "clip":  # anchors are of the base model, which is rounded or not
        rounded.anchors.copy_(half.anchors)
    for left, right in zip(
        by_autograd(task, half, [1, 5, 0], 5),
        by_autograd(plain, rounded, [1, 5, 0], 5),
        strict=True,
    ):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "kind", "adapter"),
    [
        ("bert", "text-classification", "lora"),
        pytest.param("gpt2", "causal-lm", "norms", marks=pytest.mark.slow),
        pytest.param("roberta", "text-classification", "ia3", marks=pytest.mark.slow),
        pytest.param("distilbert", "token-classification", "prompt", marks=pytest.mark.slow),
        pytest.param("modernbert", "token-classification", "lora", marks=pytest.mark.slow),
        pytest.param("llama", "causal-lm", "prompt", marks=pytest.mark.slow),
        pytest.param("mistral", "causal-lm", "norms", marks=pytest.mark.slow),
        pytest.param("qwen2", "text-classification", "rolora", marks=pytest.mark.slow),
        pytest.param("qwen3", "causal-lm", "ia3", marks=pytest.mark.slow),
        pytest.param("vit", "image-classification", "ffa-lora", marks=pytest.mark.slow),
        pytest.param("deit", "image-classification", "head", marks=pytest.mark.slow),
        pytest.param("clip", "image-text-classification", "norms", marks=pytest.mark.slow),
        pytest.param("siglip", "image-text", "lora", marks=pytest.mark.slow),
    ],
)
def test_the_gate_passes_with_its_ordinary_tolerance(
    tiny_models: Models, model_type: str, kind: str, adapter: str
) -> None:
    task = task_on(tiny_models(model_type), kind, adapter, computation=HALF)
    model, data = task.build_model(seed=1), task.synthetic()
    check_admission(
        model,
        loss=task.per_record_loss,
        collate=data.collate,
        records=data.records,
        physical_batch_size=4,
    )


def test_activations_in_bfloat16_would_tie_records_together(tiny_models: Models) -> None:
    """Why they are float32: how far a record's gradient moves with the company it is in."""

    def moved(model: Any) -> float:
        alone = [by_autograd(task, model, [n], n) for n in range(8)]
        among = [by_autograd(task, model, list(range(8)), n) for n in range(8)]
        return max(float((a - b).norm() / a.norm()) for a, b in zip(alone, among, strict=True))

    task = task_on(tiny_models("bert"), "text-classification", "lora", computation=HALF)
    model = task.build_model(seed=1)
    randomise(model)
    assert moved(model) < 1e-5
    plain = task_on(tiny_models("bert"), "text-classification", "lora").build_model(seed=1)
    randomise(plain)
    assert moved(plain) < 1e-5
    plain.encoder.bfloat16()
    plain.head.bfloat16()
    assert moved(plain) > 1e-3


def test_no_float32_copy_of_a_matrix_waits_for_the_backward_pass(tiny_models: Models) -> None:
    task = task_on(tiny_models("llama"), "causal-lm", "lora", computation=HALF)
    model = task.build_model(seed=1)
    matrices = {tuple(p.shape) for p in model.parameters() if p.dtype is torch.bfloat16}
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        task.per_record_loss(model.train(), task.synthetic().collate(np.arange(2)))
    assert {t.dtype for t in kept if tuple(t.shape) in matrices} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("adapter", "reason"),
    [("full", "trains the weights themselves"), ("bitfit", "in one layer"), ("prefix", "rounds")],
)
def test_what_would_not_be_float32_is_refused(
    tiny_models: Models, adapter: str, reason: str
) -> None:
    task = task_on(tiny_models("bert"), "text-classification", adapter, computation=HALF)
    with pytest.raises(ModelError, match=reason) as refusal:
        task.build_model(seed=1)
    assert "float32" in refusal.value.hint


def test_files_of_an_adapter_open_again(tiny_models: Models, tmp_path: Path) -> None:
    task = task_on(tiny_models("llama"), "causal-lm", "lora", computation=HALF)
    model = task.build_model(seed=1)
    randomise(model)
    task.save_adapter(model, tmp_path / "adapter")
    batch = task.synthetic().collate(np.arange(4))
    with torch.no_grad():
        expected = task.per_record_loss(model.eval(), batch)
        opened = task.open_adapter(tmp_path / "adapter")
        assert torch.allclose(task.per_record_loss(opened, batch), expected, atol=1e-6)
    assert len(task.predict(opened, task.synthetic(), batch_size=4)) == 8


def test_changing_mapped_weights_leaves_the_file_as_it_is(tiny_models: Models) -> None:
    folder = tiny_models("bert")
    before = hashlib.sha256((folder / "model.safetensors").read_bytes()).digest()
    encoder = find_base_model(str(folder)).load_encoder()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(1.0)
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).digest() == before
