"""A task of every kind on any tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmfl_secure.models import AdapterSpec, Layout, find_base_model
from fmfl_secure.models.computation import EXACT, Computation
from fmfl_secure.settings.tasks import (
    CausalLMSection,
    ImageClassificationSection,
    ImageTextClassificationSection,
    ImageTextSection,
    MultiLabelClassificationSection,
    PreferenceSection,
    TextClassificationSection,
    TokenClassificationSection,
)
from fmfl_secure.tasks import Task, make_task
from privacy.mechanism.training import ClippedSum

TASKS: dict[str, Any] = {
    "text-classification": TextClassificationSection(
        text_columns=("text",), label_column="label", labels=("no", "yes")
    ),
    "multi-label-classification": MultiLabelClassificationSection(
        text_columns=("text",), labels=("no", "yes", "maybe")
    ),
    "token-classification": TokenClassificationSection(entities=("NAME", "DATE")),
    "causal-lm": CausalLMSection(max_new_tokens=5),
    "preference": PreferenceSection(max_new_tokens=5),
    "image-classification": ImageClassificationSection(labels=("dark", "bright")),
    "image-text": ImageTextSection(anchors=("alpha beta", "gamma", "nu xi pi")),
    "image-text-classification": ImageTextClassificationSection(labels=("no", "yes")),
}


def task_on(
    folder: Path,
    settings: str | Any,
    adapter: str = "lora",
    *,
    max_length: int = 24,
    cache_bytes: int = 1 << 24,
    computation: Computation = EXACT,
    **spec: Any,
) -> Task:
    """A task on the model in a folder."""
    chosen = {"rank": 2, "alpha": 8.0, "last_layers": 0, "target_modules": (), "virtual_tokens": 3}
    return make_task(
        TASKS[settings] if isinstance(settings, str) else settings,
        base=find_base_model(str(folder)),
        adapter=AdapterSpec(kind=adapter, **{**chosen, **spec}),
        max_length=max_length,
        cache_bytes=cache_bytes,
        computation=computation,
    )


def randomise(model: Any, seed: int = 0, scale: float = 0.1) -> None:
    """Stands for training: many adapters start as no change, and then nothing depends on them."""
    layout = Layout.of(model)
    moved = np.random.default_rng(seed).normal(0, scale, layout.size)
    layout.unflatten_into(model, layout.flatten(model) + moved)


def clipped_sum(task: Any, model: Any, *, together: int, bound: float = 0.1) -> torch.Tensor:
    """Of all synthetic records, twice: the second time frozen layers are replayed from memory."""
    data = task.synthetic()
    path = ClippedSum(
        model,
        loss=task.per_record_loss,
        collate=data.collate,
        optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0),
        max_grad_norm=bound,
        noise_stddev=1.0,
        expected_batch_size=1.0,
        physical_batch_size=together,
    )
    with path:
        for _ in range(2):
            path.accumulate([np.array([record]) for record in range(data.records)])
        return path.take_sum()
