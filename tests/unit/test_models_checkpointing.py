"""Layers computed twice instead of kept: the same sums in less memory, the way that is exact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_cases import clipped_sum, randomise, task_on

from fmfl_secure.errors import ModelError
from fmfl_secure.models.checkpointing import checkpoint_layers
from fmfl_secure.models.computation import Computation
from privacy.errors import AdmissionError, TrainingError
from privacy.mechanism.admission import check_admission

Models = Callable[[str], Path]
TWICE = Computation(checkpointing=True)


def both(folder: Path, kind: str, adapter: str, **spec: Any) -> tuple[Any, Any, Any, Any]:
    """Task and model, without and with checkpointing, of the same values."""
    found: list[Any] = []
    for computation in (Computation(), TWICE):
        task = task_on(folder, kind, adapter, computation=computation, **spec)
        model = task.build_model(seed=1)
        randomise(model)
        found += [task, model]
    return found[0], found[1], found[2], found[3]


def count_layers(model: Any) -> list[int]:
    """Counts how often the adapted linear layers run."""
    runs = [0]
    for name, module in model.named_modules():
        if name.endswith("lora_B.default"):
            module.register_forward_hook(lambda *_: runs.__setitem__(0, runs[0] + 1))
    return runs


@pytest.mark.parametrize(
    ("model_type", "kind", "adapter", "spec"),
    [
        ("bert", "text-classification", "lora", {}),
        pytest.param("bert", "text-classification", "full", {}, marks=pytest.mark.slow),
        ("bert", "text-classification", "ffa-lora", {"last_layers": 1}),
        pytest.param(
            "bert",
            "text-classification",
            "lora",
            {"last_layers": 1, "cache_bytes": 0},
            marks=pytest.mark.slow,
        ),
        pytest.param("gpt2", "causal-lm", "prompt", {}, marks=pytest.mark.slow),
        ("llama", "causal-lm", "lora", {}),
        pytest.param("clip", "image-text", "bitfit", {"last_layers": 1}, marks=pytest.mark.slow),
    ],
)
def test_clipped_sums_are_those_without_it(
    tiny_models: Models, model_type: str, kind: str, adapter: str, spec: dict[str, Any]
) -> None:
    plain_task, plain, task, model = both(tiny_models(model_type), kind, adapter, **spec)
    expected = clipped_sum(plain_task, plain, together=3)
    total = clipped_sum(task, model, together=3)
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-7)
    assert expected.norm() > 0.05
    alone = clipped_sum(plain_task, plain, together=1)
    assert float((total - alone).norm()) < 1e-3 * 0.1 * 16


def test_layers_run_twice_in_training_and_once_otherwise(tiny_models: Models) -> None:
    _, _, task, model = both(tiny_models("bert"), "text-classification", "lora")
    runs, data = count_layers(model), task.synthetic()
    per_pass = 12  # six linear layers in each of two
    task.evaluate(model, data, batch_size=8)
    assert runs[0] == per_pass
    torch.autograd.backward(task.per_record_loss(model.train(), data.collate(np.arange(3))).sum())
    assert runs[0] == 3 * per_pass


def test_activations_of_adapted_layers_are_not_kept(tiny_models: Models) -> None:
    def kept_bytes(task: Any, model: Any) -> int:
        total = 0

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            task.per_record_loss(model.train(), task.synthetic().collate(np.arange(8)))
        return total

    plain_task, plain, task, model = both(tiny_models("llama"), "causal-lm", "lora")
    assert kept_bytes(task, model) < 0.5 * kept_bytes(plain_task, plain)


@pytest.mark.parametrize(
    ("model_type", "kind", "adapter"),
    [
        ("bert", "text-classification", "lora"),
        pytest.param("roberta", "text-classification", "ia3", marks=pytest.mark.slow),
        pytest.param("distilbert", "token-classification", "prompt", marks=pytest.mark.slow),
        pytest.param("modernbert", "token-classification", "lora", marks=pytest.mark.slow),
        pytest.param("gpt2", "causal-lm", "rolora", marks=pytest.mark.slow),
        pytest.param("llama", "causal-lm", "lora", marks=pytest.mark.slow),
        pytest.param("mistral", "causal-lm", "norms", marks=pytest.mark.slow),
        pytest.param("qwen2", "text-classification", "lora", marks=pytest.mark.slow),
        pytest.param("qwen3", "causal-lm", "ia3", marks=pytest.mark.slow),
        pytest.param("vit", "image-classification", "ffa-lora", marks=pytest.mark.slow),
        pytest.param("deit", "image-classification", "head", marks=pytest.mark.slow),
        pytest.param("clip", "image-text-classification", "norms", marks=pytest.mark.slow),
        pytest.param("siglip", "image-text", "lora", marks=pytest.mark.slow),
    ],
)
def test_the_gate_passes_with_weights_in_bfloat16_besides(
    tiny_models: Models, model_type: str, kind: str, adapter: str
) -> None:
    computation = Computation(dtype="bfloat16", checkpointing=True)
    task = task_on(tiny_models(model_type), kind, adapter, computation=computation)
    model, data = task.build_model(seed=1), task.synthetic()
    check_admission(
        model,
        loss=task.per_record_loss,
        collate=data.collate,
        records=data.records,
        physical_batch_size=4,
    )


def test_the_other_way_finds_no_gradients_and_is_refused(tiny_models: Models) -> None:
    _, _, task, model = both(tiny_models("bert"), "text-classification", "lora")
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            function = module._gradient_checkpointing_func.func
            module._gradient_checkpointing_func = partial(function, use_reentrant=False)
    with pytest.raises(TrainingError, match="no gradient for every record"):
        clipped_sum(task, model, together=8)
    data = task.synthetic()
    with pytest.raises(AdmissionError, match="non-reentrant checkpointing"):
        check_admission(
            model,
            loss=task.per_record_loss,
            collate=data.collate,
            records=data.records,
            physical_batch_size=4,
        )


def test_prefix_tuning_is_refused(tiny_models: Models) -> None:
    task = task_on(tiny_models("bert"), "text-classification", "prefix", computation=TWICE)
    with pytest.raises(ModelError, match=r"'prefix' does not go with training\.checkpointing"):
        task.build_model(seed=1)


def test_layers_that_transformers_cannot_run_twice_are_refused() -> None:
    with pytest.raises(ModelError, match="layers of kind Linear"):
        checkpoint_layers(torch.nn.Identity(), [torch.nn.Linear(2, 2)])


def test_a_model_that_writes_text_still_does(tiny_models: Models) -> None:
    plain_task, plain, task, model = both(tiny_models("llama"), "causal-lm", "lora")
    inputs = task.synthetic()
    expected = plain_task.predict(plain, plain_task.synthetic(), batch_size=4)
    assert task.predict(model, inputs, batch_size=4) == expected
