"""On a CUDA device: the same gradients by record as on the processor, and every step of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from task_cases import clipped_sum, randomise, task_on

from fmfl_secure.models import Layout
from fmfl_secure.models.computation import Computation
from fmfl_secure.models.importing import import_model
from privacy import PrivacyPlan
from privacy.mechanism.admission import check_admission
from privacy.mechanism.training import PrivateTrainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

Models = Callable[[str], Path]
DEVICE = torch.device("cuda")
BOUND = 0.05
CASES: list[tuple[str, str, str, dict[str, Any], dict[str, Any]]] = [
    ("bert", "text-classification", "lora", {}, {}),
    ("bert", "text-classification", "ffa-lora", {"last_layers": 1}, {}),
    ("bert", "token-classification", "ia3", {"last_layers": 1}, {"checkpointing": True}),
    ("gpt2", "causal-lm", "prompt", {}, {}),
    ("llama", "causal-lm", "lora", {}, {}),
    ("llama", "causal-lm", "lora", {}, {"dtype": "bfloat16", "checkpointing": True}),
    ("llama", "causal-lm", "lora", {}, {"dtype": "blocks"}),
    ("llama", "preference", "lora", {"last_layers": 1}, {}),
    ("vit", "image-classification", "lora", {}, {}),
    ("clip", "image-text", "lora", {"last_layers": 1}, {}),
]
cases = pytest.mark.parametrize(("model_type", "kind", "adapter", "spec", "computation"), CASES)


@pytest.fixture(autouse=True)
def _exact_convolutions() -> Iterator[None]:
    """Convolutions of images round their inputs to ten bits on such a device otherwise."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def build(
    folder: Path,
    kind: str,
    adapter: str,
    spec: dict[str, Any],
    computation: dict[str, Any],
    device: torch.device,
) -> tuple[Any, Any]:
    if computation.get("dtype") == "blocks":
        blocks = folder.with_name(f"{folder.name}-blocks")
        if not blocks.exists():
            import_model(str(folder), blocks, weights="q4_0")
        folder = blocks
    chosen = Computation(**computation, device=device)
    task = task_on(folder, kind, adapter, computation=chosen, **spec)
    model = task.build_model(seed=1)
    randomise(model)
    return task, model


@cases
def test_clipped_sums_are_those_of_the_processor(
    tiny_models: Models,
    model_type: str,
    kind: str,
    adapter: str,
    spec: dict[str, Any],
    computation: dict[str, Any],
) -> None:
    folder = tiny_models(model_type)
    task, model = build(folder, kind, adapter, spec, computation, DEVICE)
    total = clipped_sum(task, model, together=3, bound=BOUND)
    assert total.device.type == DEVICE.type
    alone = clipped_sum(task, model, together=1, bound=BOUND)
    here = build(folder, kind, adapter, spec, computation, torch.device("cpu"))
    expected = clipped_sum(*here, together=3, bound=BOUND)
    # 16 contributions of norm BOUND at most; the gate allows 1e-3 of it each.
    assert float((total.cpu() - expected).norm()) < 1e-3 * BOUND * 16
    assert float((total - alone).norm()) < 1e-3 * BOUND * 16
    assert float(expected.norm()) > 0.1 * BOUND


@cases
def test_gate_round_and_answers(
    tiny_models: Models,
    tmp_path: Path,
    model_type: str,
    kind: str,
    adapter: str,
    spec: dict[str, Any],
    computation: dict[str, Any],
) -> None:
    task, model = build(tiny_models(model_type), kind, adapter, spec, computation, DEVICE)
    data = task.synthetic()
    check_admission(
        model,
        loss=task.per_record_loss,
        collate=data.collate,
        records=data.records,
        physical_batch_size=4,
    )
    plan = PrivacyPlan(
        unit="record",
        population=8,
        sample_rate=0.5,
        max_grad_norm=1.0,
        noise_multiplier=1.0,
        steps_per_round=3,
        rounds=1,
        repeats=0,
        delta=1e-5,
    )
    before = Layout.of(model).flatten(model)
    PrivateTrainer(
        model,
        plan=plan,
        loss=task.per_record_loss,
        collate=data.collate,
        units=data.units,
        optimizer=torch.optim.Adam([p for p in model.parameters() if p.requires_grad]),
        physical_batch_size=4,
        record_cost=data.record_cost,
    ).train_round()
    assert {p.device.type for p in model.parameters()} == {DEVICE.type}
    after = Layout.of(model).flatten(model)
    assert np.isfinite(after).all()
    assert not np.array_equal(before, after)
    metrics = task.evaluate(model, data, batch_size=4)
    task.save_adapter(model, tmp_path / "adapter")
    opened = task.open_adapter(tmp_path / "adapter")
    assert task.evaluate(opened, data, batch_size=4) == pytest.approx(metrics, rel=1e-3, abs=1e-4)
    assert len(task.predict(opened, data, batch_size=4)) == data.records
