"""Every kind of task pads to declared work, and no record's loss or gradient changes by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import TASKS, randomise, task_on

from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.training.constant_work import padded_collate
from privacy import DUMMY

Models = Callable[[str], Path]
CASES = [
    ("bert", "text-classification"),
    ("bert", "multi-label-classification"),
    ("roberta", "text-classification"),
    ("modernbert", "token-classification"),
    ("gpt2", "causal-lm"),
    ("llama", "causal-lm"),
    ("gpt2", "preference"),
    ("vit", "image-classification"),
    ("clip", "image-text"),
    ("siglip", "image-text-classification"),
]
LENGTH = 24  # `task_on`


def test_every_kind_of_task_is_here() -> None:
    assert {kind for _, kind in CASES} == set(TASKS)


def gradients(model, loss: torch.Tensor) -> torch.Tensor:
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return torch.cat([g.reshape(-1) for g in found if g is not None])


@pytest.mark.parametrize("kept", [False, True], ids=["all", "frozen-layers-kept"])
@pytest.mark.parametrize(("model_type", "kind"), CASES, ids=[f"{m}-{k}" for m, k in CASES])
def test_a_padded_row_has_the_loss_and_gradient_of_its_record(
    tiny_models: Models, model_type: str, kind: str, kept: bool
) -> None:
    cache_bytes = kept * (1 << 24)
    more = {"last_layers": 1} if kept else {}
    task = task_on(tiny_models(model_type), kind, cache_bytes=cache_bytes, **more)
    model = task.build_model(seed=1)
    randomise(model)
    data = task.synthetic()
    padded = padded_collate(data, task.synthetic(), RecordCache(cache_bytes))
    if kept:  # as a site does before its first step
        everything = np.array([*range(data.records), DUMMY], dtype=np.int64)
        with torch.no_grad():
            task.per_record_loss(model, padded(everything, LENGTH))
    shapes, work = set(), set()
    hooks = [
        module.register_forward_hook(lambda *a: work_of.append(tuple(a[2].shape)))
        for module in model.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    for chosen in ([0, 3, 5], [1], [], [7, 6, 2, 4]):
        records = np.array([*chosen, *[DUMMY] * (5 - len(chosen))], dtype=np.int64)
        batch = padded(records, LENGTH)
        work_of: list[tuple[int, ...]] = []
        losses = task.per_record_loss(model, batch)
        work.add(tuple(work_of))
        assert losses.shape == (5,)
        shapes.add(
            tuple(tuple(v.shape) for v in vars(batch).values() if isinstance(v, torch.Tensor))
        )
        if not chosen:
            continue
        alone = task.per_record_loss(model, data.collate(records[: len(chosen)]))
        torch.testing.assert_close(losses[: len(chosen)], alone, rtol=1e-4, atol=1e-5)
        for left, right in zip(losses, alone, strict=False):
            found, expected = gradients(model, left), gradients(model, right)
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
            assert float(expected.abs().max()) > 0
    for hook in hooks:
        hook.remove()
    assert len(shapes) == 1
    assert len(work) == 1, "linear layers computed other shapes for other records"
