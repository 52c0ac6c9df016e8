"""Base models of architectures that no table lists: the gate decides, where a site lets it."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from support import settings
from task_cases import randomise, task_on
from tiny_models import POSITIONS, write_byte_tokenizer, write_word_tokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fmfl_secure.errors import ModelError
from fmfl_secure.models import find_base_model
from fmfl_secure.models.architectures import ARCHITECTURES
from fmfl_secure.models.unlisted import architecture_for, require_causal
from fmfl_secure.planning.plans import run_proposal
from fmfl_secure.settings.federation import FederationConfig, convert_config
from fmfl_secure.settings.site import SiteConfig
from privacy import PolicyRefusal, check_policy
from privacy.mechanism.admission import check_admission

SIZES = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": POSITIONS, "pad_token_id": None, "bos_token_id": None,
    "eos_token_id": 256,
}  # fmt: skip
DECODERS: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "gpt_neox": SIZES,
    "cohere": SIZES,
    "starcoder2": {**SIZES, "num_key_value_heads": 1},
}


def write(folder: Path, model_type: str, *, causal: bool, **sizes: Any) -> Path:
    folder.mkdir()
    words = write_byte_tokenizer(folder) if causal else write_word_tokenizer(folder)
    config = transformers.AutoConfig.for_model(model_type, vocab_size=words, **sizes)
    kind = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = kind.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5.0)
    model.save_pretrained(folder)
    return folder


def gate(task: Any, model: torch.nn.Module) -> None:
    data = task.synthetic()
    check_admission(
        model,
        loss=task.per_record_loss,
        collate=data.collate,
        records=data.records,
        physical_batch_size=5,
    )


def works(task: Any, folder: Path) -> None:
    """Passes the gate, and its files give the same losses again."""
    model = task.build_model(seed=1)
    gate(task, model)
    randomise(model)
    task.save_adapter(model, folder)
    data, everyone = task.synthetic(), np.arange(8)
    with torch.no_grad():
        expected = task.per_record_loss(model.eval(), data.collate(everyone))
        again = task.per_record_loss(task.open_adapter(folder), data.collate(everyone))
    assert torch.allclose(expected, again, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("model_type", sorted(DECODERS))
def test_a_decoder_that_no_table_lists_passes_the_gate(tmp_path: Path, model_type: str) -> None:
    assert model_type not in ARCHITECTURES
    base = write(tmp_path / "base", model_type, causal=True, **DECODERS[model_type])
    works(task_on(base, "causal-lm", "lora", last_layers=1), tmp_path / "adapter")


def test_an_encoder_that_no_table_lists_passes_the_gate(tmp_path: Path) -> None:
    sizes = {key: SIZES[key] for key in list(SIZES)[:5]}
    base = write(tmp_path / "base", "roformer", causal=False, embedding_size=32, **sizes)
    works(task_on(base, "text-classification", "ffa-lora"), tmp_path / "adapter")
    with pytest.raises(ModelError, match="sees the words that follow"):
        require_causal(find_base_model(str(base)).load_encoder())
    with pytest.raises(ModelError, match="keys and values is in no table"):
        task_on(base, "text-classification", "ia3").build_model(seed=1)


def test_a_site_takes_one_only_where_its_policy_says_so(tmp_path: Path) -> None:
    base = write(tmp_path / "base", "bloom", causal=True, **DECODERS["bloom"])
    found = find_base_model(str(base))
    assert found.unlisted == "bloom"
    federation = convert_config(tomllib.loads(settings(base)), FederationConfig, source="test")
    site = {"data": {"path": "x.csv"}, "budget": {"population": "p"}}
    for policy in ({}, {"architectures": "listed"}, {"architectures": "gated"}):
        read = convert_config({**site, "policy": policy}, SiteConfig, source="site.toml")
        proposal = run_proposal(federation, read, found.digest, 48, unlisted=found.unlisted)
        if policy.get("architectures") == "gated":
            check_policy(read.policy, proposal, now=datetime.now(UTC))
            continue
        with pytest.raises(PolicyRefusal, match="'bloom' is not among") as refusal:
            check_policy(read.policy, proposal, now=datetime.now(UTC))
        assert refusal.value.code == "policy.architecture"


def mixtures() -> list[str]:
    """Every architecture of transformers that calls itself one; their vision towers have none."""
    return [name for name in sorted(CONFIG_MAPPING) if "moe" in name and "vision" not in name]


KNOWN = ["mixtral", "olmoe", "deepseek_v3", "gpt_oss", "jamba", "dbrx", "jetmoe", "qwen3_moe"]


@pytest.mark.parametrize(
    "names", [KNOWN, pytest.param(mixtures(), marks=pytest.mark.slow)], ids=["known", "all"]
)
def test_mixtures_of_experts_are_refused_whatever_a_policy_says(
    tmp_path: Path, names: list[str]
) -> None:
    """No policy is asked: where the architecture would be worked out, they are refused."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert len(names) > 7
    passed = []
    for model_type in names:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        try:
            architecture_for(find_base_model(str(tmp_path)))
        except ModelError:
            continue
        passed.append(model_type)
    assert passed == []


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [("t5", "not for both"), ("pegasus", "not for both"), ("blip", "several towers"),
     ("whisper", "not for both")],
)  # fmt: skip
def test_what_is_no_single_stack_is_refused(tmp_path: Path, model_type: str, reason: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ModelError, match=reason):
        architecture_for(find_base_model(str(tmp_path)))
