"""Architecture x adapter x task: what the table says works passes the gate, trains and reopens.

`docs/models.md` names these tests. A few combinations run by default, all of them under `slow`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from task_cases import TASKS, randomise, task_on
from tiny_models import MODEL_TYPES

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import ADAPTERS, adapter_bytes
from fmfl_secure.models.architectures import ARCHITECTURES
from fmfl_secure.models.support import refusal
from fmfl_secure.planning.adapter_template import adapter_files
from fmfl_secure.tasks import TASKS as KINDS_OF_TASK
from fmfl_secure.vectors.adapter import Adapter
from privacy.mechanism.admission import check_admission


def refusal_of(case: tuple[str, str, str]) -> tuple[str, str] | None:
    model_type, adapter, kind = case
    return refusal(ARCHITECTURES[model_type], adapter, KINDS_OF_TASK.get(kind).needs)


EVERYTHING = [(m, a, t) for t in TASKS for m in MODEL_TYPES for a in ADAPTERS.names]
WORKS = [case for case in EVERYTHING if refusal_of(case) is None]
REFUSED = [case for case in EVERYTHING if refusal_of(case) is not None]
# By default: every architecture, adapter and task once at least.
DEFAULT = {
    ("distilbert", "prompt", "token-classification"),
    ("modernbert", "lora", "token-classification"),
    ("electra", "lora-xs", "text-classification"),
    ("bert", "vera", "text-classification"),
    ("mistral", "dora", "causal-lm"),
    ("llama", "lokr", "causal-lm"),
    ("vit", "bottleneck", "image-classification"),
    ("roberta", "p-tuning", "text-classification"),
    ("bert", "ffa-lora", "multi-label-classification"),
    ("xlm-roberta", "ffa-lora", "token-classification"),
    ("camembert", "bitfit", "text-classification"),
    ("mpnet", "full", "text-classification"),
    ("deberta-v2", "full", "text-classification"),
    ("gpt2", "rolora", "causal-lm"),
    ("smollm3", "ffa-lora", "causal-lm"),
    ("granite", "lora", "causal-lm"),
    ("olmo2", "full", "causal-lm"),
    ("ministral", "lora", "causal-lm"),
    ("ministral3", "ffa-lora", "causal-lm"),
    ("gemma2", "norms", "causal-lm"),
    ("gemma3_text", "full", "causal-lm"),
    ("phi3", "lora", "causal-lm"),
    ("dinov2", "lora", "image-classification"),
    ("dinov2_with_registers", "full", "image-classification"),
    ("dinov3_vit", "ffa-lora", "image-classification"),
    ("llama", "prefix", "causal-lm"),
    ("gpt2", "prompt", "preference"),
    ("qwen2", "bitfit", "text-classification"),
    ("qwen3", "ia3", "causal-lm"),
    ("deit", "head", "image-classification"),
    ("siglip", "head", "image-text"),
    ("clip", "bitfit", "image-text-classification"),
}


def test_the_tables_name_the_same_things() -> None:
    assert set(MODEL_TYPES) == set(ARCHITECTURES)
    assert set(TASKS) == set(KINDS_OF_TASK.names)
    assert set(WORKS) >= DEFAULT
    for place, names in enumerate((MODEL_TYPES, ADAPTERS.names, TASKS)):
        assert {case[place] for case in DEFAULT} == set(names)


@pytest.mark.parametrize(
    ("model_type", "adapter", "kind"),
    [
        pytest.param(*case, id="-".join(case), marks=() if case in DEFAULT else pytest.mark.slow)
        for case in WORKS
    ],
)
def test_works(tiny_models, tmp_path: Path, model_type: str, adapter: str, kind: str) -> None:
    """The gate passes with random adapters, values survive their files, and answers with them."""
    task = task_on(tiny_models(model_type), kind, adapter)
    model = task.build_model(seed=1)
    start = adapter_bytes(model)
    data = task.synthetic()
    files = adapter_files(task, model)
    for round_number in task.distinct_rounds:
        task.begin_round(model, round_number)
        check_admission(
            model,
            loss=task.per_record_loss,
            collate=data.collate,
            records=data.records,
            physical_batch_size=5,
        )
        randomise(model, seed=round_number)
    task.save_adapter(model, tmp_path / "adapter")
    saved = {path.name: path.read_bytes() for path in (tmp_path / "adapter").iterdir()}
    assert files.render(Adapter.read(adapter_bytes(model))) == saved, "as a server writes them"
    opened = task.open_adapter(tmp_path / "adapter")
    # Classification heads give a prediction; everything gives a loss.
    everyone = np.arange(data.records)
    with torch.no_grad():
        expected = task.per_record_loss(model.eval(), data.collate(everyone))
        fresh = task.synthetic()
        actual = task.per_record_loss(opened, fresh.collate(everyone))
        untrained = task.build_model(seed=1).eval()
        before = task.per_record_loss(untrained, fresh.collate(everyone))
    assert torch.allclose(actual, expected, atol=1e-4, rtol=1e-4)
    assert (expected - before).abs().max() > 1e-4, "an adapter that does nothing proves nothing"
    answers = task.predict(opened, fresh, batch_size=3)
    assert len(answers) == data.records
    metrics = task.evaluate(opened, fresh, batch_size=3)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["loss"] == pytest.approx(float(expected.mean()), rel=1e-3)
    assert adapter_bytes(untrained) == start, "a seed gives one start"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_refused(tiny_models, model_type: str) -> None:
    """What the table refuses is refused by name before anything is loaded."""
    cases = [case for case in REFUSED if case[0] == model_type]
    assert cases
    for _, adapter, kind in cases:
        with pytest.raises(ModelError, match=f"{kind} with '{adapter}' on '{model_type}'") as error:
            task_on(tiny_models(model_type), kind, adapter).build_model(seed=1)
        assert error.value.hint.startswith("Use ")
