"""DoRA, VeRA, LoKr, bottleneck adapters and P-tuning: what they compute, and whole runs of them."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
from support import Quiet, make_federation
from task_cases import randomise, task_on
from torch import nn
from transformers import AutoModel
from transformers.pytorch_utils import Conv1D

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import adapter_bytes, load_adapter_bytes
from fmfl_secure.models.adapters.beside import Beside, around_of
from fmfl_secure.models.adapters.dora import DoraLinear
from fmfl_secure.models.adapters.lokr import KroneckerLinear
from fmfl_secure.models.adapters.vera import Projections, VeraLinear
from fmfl_secure.report.export import export_run
from fmfl_secure.training.finished_run import predict_run
from fmfl_secure.transports.local.engine import LocalEngine

PAGE = Path(__file__).parents[2] / "docs/models.md"


def vera(transposed: bool) -> VeraLinear:
    return VeraLinear(Conv1D(20, 12) if transposed else nn.Linear(12, 20), Projections(16, 3, 24))


def dora() -> DoraLinear:
    return DoraLinear(nn.Linear(12, 20), 3, 1.5)


def kronecker(rank: int) -> KroneckerLinear:
    return KroneckerLinear(nn.Linear(12, 20), rank, 1.5)


@pytest.mark.parametrize(
    "layer",
    [lambda: vera(False), lambda: vera(True), dora, lambda: kronecker(1), lambda: kronecker(8)],
    ids=["vera", "vera-conv1d", "dora", "lokr", "lokr-whole"],
)
def test_what_is_added_is_the_update_of_the_weight(layer) -> None:
    torch.manual_seed(3)
    beside: Beside = layer()
    inputs = torch.randn(2, 5, 12)
    assert torch.allclose(beside(inputs), beside.linear(inputs), atol=1e-6), (
        "it starts as no change"
    )
    with torch.no_grad():
        for parameter in beside.parameters():
            if parameter.requires_grad:
                parameter.normal_()
        added = beside.added(inputs)
        expected = beside(inputs)
        assert torch.allclose(added, inputs @ beside.update().T, atol=1e-4)
        assert added.abs().max() > 0.1
        assert torch.allclose(beside.merged()(inputs), expected, atol=1e-4)


def test_a_low_rank_factor_is_used_where_it_is_fewer_values() -> None:
    assert {n.split(".")[0] for n, _ in kronecker(1).named_parameters()} == {
        "linear", "lokr_w1", "lokr_w2_a", "lokr_w2_b",
    }  # fmt: skip
    assert "lokr_w2.weight" in dict(kronecker(8).named_parameters())


def test_vera_uploads_vectors_and_its_matrices_go_with_the_adapter(tiny_models) -> None:
    """All layers share one pair, drawn from the run's seed, which no round changes."""
    task = task_on(tiny_models("bert"), "text-classification", "vera", rank=4)
    model = task.build_model(seed=1)
    slots = task.begin_round(model, 1).slots
    assert {slot.name.rsplit(".", 2)[-2] for slot in slots} == {"lambda_d", "lambda_b", "head"}
    before = load_adapter_bytes(adapter_bytes(model))
    fixed = [name for name in before if "lora_" in name]
    assert len(fixed) == 2
    assert len({id(v.shared) for v in around_of(model, VeraLinear).values()}) == 1
    randomise(model)
    after = load_adapter_bytes(adapter_bytes(model))
    assert all(before[name].equal(after[name]) for name in fixed)
    other = load_adapter_bytes(adapter_bytes(task.build_model(seed=2)))
    assert not any(before[name].equal(other[name]) for name in fixed)


def test_transposed_weights_are_refused_by_lokr(tiny_models) -> None:
    with pytest.raises(ModelError, match="transposed"):
        task_on(tiny_models("gpt2"), "causal-lm", "lokr").build_model(seed=1)


def by_the_page(bare: nn.Module, folder: Path) -> nn.Module:
    """What the lines on the page make of a plain model."""
    text = PAGE.read_text(encoding="utf-8")
    start = text.index("    from safetensors.torch import load_file")
    lines = text[start : text.index("opens it (", start)].splitlines()
    code = "\n".join(line[4:] for line in lines).replace(
        "adapter/bottleneck", f"{folder}/bottleneck"
    )
    exec(code, {"model": bare})  # what a reader would do
    return bare


@pytest.mark.parametrize(
    "kind",
    [
        "bottleneck",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("dora", "vera", "lokr", "p-tuning")),
    ],
)
def test_three_sites_train_it_and_others_open_what_is_exported(
    kind: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under encryption and ledgers, as every run."""
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    federation = make_federation(
        tmp_path, tiny_model, adapter=f'kind = "{kind}"\nrank = 2', plain=True, rounds=2
    )
    record = LocalEngine(federation, tmp_path / "run", resume=False, observer=Quiet()).run()
    assert record.status == "finished"
    out = export_run(tmp_path / "run", tmp_path / "out")
    bare = AutoModel.from_pretrained(tiny_model).eval()
    theirs = AutoModel.from_pretrained(tiny_model).eval()
    opened = (
        by_the_page(theirs, out)
        if kind == "bottleneck"
        else peft.PeftModel.from_pretrained(theirs, out).eval()
    )
    ids = torch.tensor([[2, 5, 6, 7]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        before, after = (m(**inputs).last_hidden_state[:, -4:] for m in (bare, opened))
    assert not torch.allclose(before, after, atol=1e-6)
    if kind in {"dora", "vera", "lokr"}:
        merged = AutoModel.from_pretrained(
            export_run(tmp_path / "run", tmp_path / "m", merged=True)
        )
        with torch.no_grad():
            assert torch.allclose(merged.eval()(**inputs).last_hidden_state, after, atol=1e-5)
    assert len(predict_run(tmp_path / "run", tmp_path / "data/holdout.csv")) == 30
