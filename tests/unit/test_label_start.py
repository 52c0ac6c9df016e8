"""A head that starts from what its labels are called."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from support import settings
from task_cases import TASKS, task_on

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import adapter_bytes
from fmfl_secure.models.label_start import SCALE, start_head
from fmfl_secure.settings.federation import FederationConfig, convert_config, encode_config
from fmfl_secure.settings.tasks import (
    MultiLabelClassificationSection,
    TextClassificationSection,
)
from fmfl_secure.tasks import Task
from fmfl_secure.tasks.base import one_unit_each

TEXTS = ("alpha beta gamma", "nu xi pi")


def named(**changes: object) -> TextClassificationSection:
    section = TASKS["text-classification"]
    return msgspec.structs.replace(section, **{"label_texts": TEXTS, **changes})


def logits(task: Task, model: torch.nn.Module, texts: tuple[str, ...]) -> torch.Tensor:
    targets = np.zeros(len(texts), dtype=np.int64)
    data = task._prepare(texts, targets, one_unit_each(len(texts)))  # type: ignore[attr-defined]
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(data.collate(np.arange(len(texts))))
    return found


@pytest.mark.parametrize("model_type", ["bert", "gpt2"])
@pytest.mark.parametrize("adapter", ["lora", "head"])
def test_a_text_is_taken_for_the_label_that_it_means(tiny_models, model_type, adapter) -> None:
    folder = tiny_models(model_type)
    task = task_on(folder, named(), adapter)
    found = logits(task, task.build_model(seed=1), TEXTS)
    assert found.argmax(dim=1).tolist() == [0, 1]
    plain = task_on(folder, named(label_texts=()), adapter)
    assert not logits(plain, plain.build_model(seed=1), TEXTS).any()


def test_the_labels_order_decides_and_everybody_starts_alike(tiny_models) -> None:
    folder = tiny_models("bert")
    start = [adapter_bytes(task_on(folder, named()).build_model(seed=1)) for _ in range(2)]
    assert start[0] == start[1]
    other = task_on(folder, named(label_texts=TEXTS[::-1])).build_model(seed=1)
    own = task_on(folder, named()).build_model(seed=1)
    assert torch.equal(other.head.weight, own.head.weight.flip(0))
    assert not own.head.bias.any()


def test_the_last_bits_of_another_processor_are_rounded_away() -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(5, 384, generator=generator)
    heads = [torch.nn.Linear(384, 5) for _ in range(2)]
    start_head(heads[0], embeddings)
    start_head(heads[1], embeddings * (1 + 2e-7 * torch.randn(5, 384, generator=generator)))
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert 0.5 * SCALE < heads[0].weight.norm(dim=1).mean() <= SCALE
    assert heads[0].weight.sum(dim=0).abs().max() < 5 / 64


def test_the_adapter_has_a_gradient_from_the_first_step_on(tiny_models) -> None:
    """With a head of zeros there is none, and noise alone would move the adapter."""
    moved = []
    for section in (named(label_texts=()), named()):
        task = task_on(tiny_models("bert"), section, "lora")
        model, data = task.build_model(seed=1), task.synthetic()
        task.per_record_loss(model, data.collate(np.arange(data.records))).sum().backward()
        norms = [p.grad.norm() for n, p in model.named_parameters() if "lora_B" in n]
        moved.append(float(torch.stack(norms).sum()))
    assert moved[0] == 0.0
    assert moved[1] > 1e-3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label_texts": ("alpha",)}, "has 1 texts, expected one for each of the 2 labels"),
        ({"label_texts": ("alpha", "alpha")}, "label_texts has a value twice"),
        ({"head": "architecture"}, "label_texts needs task.head = 'unit-norm'"),
    ],
)
def test_texts_that_are_not_the_labels_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        msgspec.convert(msgspec.to_builtins(named()) | changes, TextClassificationSection)


def test_several_labels_a_record_have_no_start() -> None:
    data = msgspec.to_builtins(named()) | {"kind": "multi-label-classification"}
    with pytest.raises(ValueError, match="for one label a record"):
        msgspec.convert(data, MultiLabelClassificationSection)


def test_a_text_that_does_not_fit_is_refused_and_not_cut(tiny_models: object) -> None:
    task = task_on(tiny_models("bert"), named(label_texts=("alpha " * 40, "nu")))  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"1 of task\.label_texts are longer"):
        task.build_model(seed=1)


def test_settings_without_texts_keep_their_digest(tiny_model: Path) -> None:
    config = convert_config(tomllib.loads(settings(tiny_model)), FederationConfig, source="test")
    assert b"label_texts" not in encode_config(config)
    texts = msgspec.structs.replace(config.task, label_texts=TEXTS)
    assert b"label_texts" in encode_config(msgspec.structs.replace(config, task=texts))
