"""Where models are computed: found once, and batches follow. On a real device: test_cuda.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import TASKS, task_on

from fmfl_secure.errors import ModelError
from fmfl_secure.models.computation import Computation, find_device

Models = Callable[[str], Path]
MODELS = {
    "text-classification": "bert",
    "multi-label-classification": "bert",
    "token-classification": "bert",
    "causal-lm": "llama",
    "preference": "llama",
    "image-classification": "vit",
    "image-text": "clip",
    "image-text-classification": "clip",
}


@pytest.mark.parametrize(
    ("wanted", "there", "found"),
    [
        ("auto", False, "cpu"),
        ("auto", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_auto_takes_a_device_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, wanted: str, there: bool, found: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert find_device(wanted) == torch.device(found)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"training\.device is 'cuda'") as refusal:
        find_device("cuda")
    assert "auto" in refusal.value.hint


@pytest.mark.parametrize("kind", TASKS)
def test_batches_go_where_the_model_is(tiny_models: Models, kind: str) -> None:
    # `meta` stands for a device: it exists everywhere, and holds no values.
    computation = Computation(device=torch.device("meta"))
    task = task_on(tiny_models(MODELS[kind]), kind, "lora", computation=computation)
    model = task.build_model(seed=1)
    assert {p.device.type for p in [*model.parameters(), *model.buffers()]} == {"meta"}
    batch = task.synthetic().collate(np.array([2, 0]))
    tensors = [v for v in vars(batch).values() if isinstance(v, torch.Tensor)]
    assert len(tensors) >= 2
    assert {t.device.type for t in tensors} == {"meta"}
    assert batch.records == [2, 0]
