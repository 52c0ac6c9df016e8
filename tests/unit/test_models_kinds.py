"""Every kind of adapter: what it trains and when, how it scales, what others make of its files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from task_cases import randomise, task_on
from tiny_models import MODEL_TYPES
from transformers import AutoModel, AutoModelForCausalLM

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import adapter_bytes, adapter_of, load_adapter_bytes
from fmfl_secure.models.architectures import ARCHITECTURES
from fmfl_secure.models.merge import merged_model
from fmfl_secure.models.support import refusal
from fmfl_secure.tasks import TASKS


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def task_for(model_type: str) -> str:
    return next(
        kind
        for kind in ("causal-lm", "text-classification", "image-classification")
        if refusal(ARCHITECTURES[model_type], "lora", TASKS.get(kind).needs) is None
    )


def test_rolora_trains_and_sends_b_and_a_in_turns(tiny_models) -> None:
    task = task_on(tiny_models("bert"), "text-classification", "rolora")
    model = task.build_model(seed=1)
    whole = set(load_adapter_bytes(adapter_bytes(model)))
    head = {"head.weight", "head.bias"}
    for round_number in (1, 2, 3, 4):
        layout = task.begin_round(model, round_number)
        names = trained(model)
        assert {slot.name for slot in layout.slots} == names
        assert head < names
        half = "lora_B" if round_number % 2 else "lora_A"
        assert all(half in name for name in names - head)
        assert set(load_adapter_bytes(adapter_bytes(model))) == whole, "both halves are the adapter"
    assert task.distinct_rounds == (1, 2)
    assert task.begin_round(model, 1).digest == task.begin_round(model, 3).digest
    assert task.begin_round(model, 1).digest != task.begin_round(model, 2).digest


def test_rank_stabilised_scaling_divides_by_the_root_of_the_rank(tiny_models) -> None:
    scales = {}
    for stabilised in (False, True):
        task = task_on(
            tiny_models("bert"), "text-classification", rank=4, rank_stabilised=stabilised
        )
        model = task.build_model(seed=1)
        found = {m.scaling["default"] for m in model.modules() if hasattr(m, "lora_A")}
        (scales[stabilised],) = found
    assert scales[False] == pytest.approx(8.0 / 4)
    assert scales[True] == pytest.approx(8.0 / math.sqrt(4))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_selective_kinds_train_what_their_name_says(tiny_models, model_type: str) -> None:
    kind = task_for(model_type)
    for adapter in ("bitfit", "norms", "full"):
        if refusal(ARCHITECTURES[model_type], adapter, TASKS.get(kind).needs) is not None:
            continue
        model = task_on(tiny_models(model_type), kind, adapter).build_model(seed=1)
        names = {n for n in trained(model) if not n.startswith("head.")}
        modules = dict(model.named_modules())
        for name in names:
            owner = type(modules[name.rpartition(".")[0]]).__name__
            assert adapter != "bitfit" or name.endswith(".bias")
            assert adapter != "norms" or owner.endswith("Norm")
            assert "position" not in name
            assert "text_model" not in name, "the tower that the task does not use stays as it is"
        last = task_on(tiny_models(model_type), kind, adapter, last_layers=1).build_model(seed=1)
        fewer = {n for n in trained(last) if not n.startswith("head.")}
        assert fewer < names
        assert all(".1." in name for name in fewer), "the last of two layers"


def test_full_leaves_word_embeddings_that_are_the_output_layer(tiny_models) -> None:
    tied = task_on(tiny_models("gpt2"), "causal-lm", "full").build_model(seed=1)
    assert not any("wte" in name or "lm_head" in name for name in trained(tied))
    encoder = task_on(tiny_models("gpt2"), "text-classification", "full").build_model(seed=1)
    assert any("wte" in name for name in trained(encoder))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_replaying_frozen_layers_changes_nothing(tiny_models, model_type: str) -> None:
    kind = "image-text-classification" if model_type in {"clip", "siglip"} else task_for(model_type)
    with_cache = task_on(tiny_models(model_type), kind, last_layers=1)
    without = task_on(tiny_models(model_type), kind, last_layers=1, cache_bytes=0)
    cached, plain = with_cache.build_model(seed=1), without.build_model(seed=1)
    randomise(cached)
    randomise(plain)
    data, same = with_cache.synthetic(), without.synthetic()
    for chosen in ([0, 1, 4], [5, 0, 7], [7, 0, 2], [1, 2]):  # the last holds known records only
        records = np.array(chosen)
        losses = with_cache.per_record_loss(cached, data.collate(records))
        expected = without.per_record_loss(plain, same.collate(records))
        assert torch.allclose(losses, expected, atol=1e-4)
        for model, loss in ((cached, losses), (plain, expected)):
            model.zero_grad()
            loss.sum().backward()
        gradients = {n: p.grad for n, p in plain.named_parameters() if p.requires_grad}
        for name, parameter in cached.named_parameters():
            if parameter.requires_grad:
                assert torch.allclose(parameter.grad, gradients[name], atol=1e-4), name
    keys = {modality for modality, _ in data.collate(np.array([0])).cache._kept}
    assert keys >= set(with_cache.architecture.towers) & {"text", "image"}


@pytest.mark.parametrize(
    ("model_type", "adapter"),
    [
        ("gpt2", "lora"), ("llama", "rolora"), ("gpt2", "ia3"), ("llama", "ia3"),
        ("qwen2", "prompt"), ("gpt2", "prefix"), ("bert", "ia3"), ("roberta", "prompt"),
        ("gpt2", "vera"), ("roberta", "vera"), ("llama", "lokr"), ("bert", "lokr"),
        ("gpt2", "dora"), ("bert", "dora"),
        ("qwen2", "p-tuning"), ("bert", "p-tuning"),
    ],
)  # fmt: skip
def test_peft_opens_the_files_and_computes_the_same(
    tiny_models, tmp_path: Path, model_type: str, adapter: str
) -> None:
    kind = task_for(model_type)
    task = task_on(tiny_models(model_type), kind, adapter)
    model = task.build_model(seed=1).eval()
    randomise(model, scale=0.3)
    task.save_adapter(model, tmp_path / "adapter")
    adapter_of(task.adapter).add_for_peft(
        model.encoder, task.adapter, task.base, tmp_path / "adapter"
    )
    auto = AutoModelForCausalLM if kind == "causal-lm" else AutoModel
    fresh = auto.from_pretrained(tiny_models(model_type), dtype=torch.float32).eval()
    ids = torch.tensor([[5, 9, 11, 7, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    name = "logits" if kind == "causal-lm" else "last_hidden_state"
    with torch.no_grad():
        before = fresh(**inputs)[name]
        expected = model.encoder(**inputs)[name]
        theirs = peft.PeftModel.from_pretrained(fresh, tmp_path / "adapter").eval()
        actual = theirs(**inputs)[name][:, -ids.shape[1] :]
    assert torch.allclose(actual, expected, atol=1e-5)
    assert (expected - before).abs().max() > 1e-2, "an adapter that does nothing proves nothing"


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "bert", "clip"])
@pytest.mark.parametrize("adapter", ["lora", "ia3", "full", "vera", "dora"])
def test_merged_weights_compute_what_the_adapter_does(
    tiny_models, tmp_path: Path, model_type: str, adapter: str
) -> None:
    kind = task_for(model_type)
    task = task_on(tiny_models(model_type), kind, adapter, cache_bytes=0)
    model = task.build_model(seed=1).eval()
    randomise(model)
    data = task.synthetic()
    everyone = np.arange(data.records)
    with torch.no_grad():
        expected = task.per_record_loss(model, data.collate(everyone))
        plain = {n for n, _ in task.base.load_encoder().named_parameters()}
        model.encoder = merged_model(model.encoder, task.adapter)
        actual = task.per_record_loss(model, data.collate(everyone))
    assert torch.allclose(actual, expected, atol=1e-4)
    names = {n.removeprefix("transformer.") for n, _ in model.encoder.named_parameters()}
    names = {n.removeprefix("model.") for n in names} - {"lm_head.weight"}
    assert names == plain, "as the model library names them"


@pytest.mark.parametrize("adapter", ["prompt", "prefix", "p-tuning", "bottleneck"])
def test_a_prompt_cannot_be_merged(tiny_models, adapter: str) -> None:
    task = task_on(tiny_models("gpt2"), "causal-lm", adapter)
    with pytest.raises(ModelError, match="cannot be merged"):
        merged_model(task.build_model(seed=1).encoder, task.adapter)


def test_virtual_tokens_count_against_the_positions(tiny_models) -> None:
    task_on(tiny_models("gpt2"), "causal-lm", "prompt", max_length=61).build_model(seed=1)
    with pytest.raises(ModelError, match=r"62 and 3 virtual tokens are added.* 64 positions"):
        task_on(tiny_models("gpt2"), "causal-lm", "prompt", max_length=62).build_model(seed=1)
