"""LoRA-XS: factors that are the same for all, an update that is linear in what is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
from fmfl_secure.models.adapters.beside import dense_weight
from fmfl_secure.models.adapters.lora_xs import CoredLinear
from fmfl_secure.models.layout import Layout
from fmfl_secure.report.export import export_run
from fmfl_secure.training.finished_run import predict_run
from fmfl_secure.transports.local.engine import LocalEngine

RANK = 4


def cored(weight: torch.Tensor, seed: int = 1, *, transposed: bool = False) -> CoredLinear:
    outputs, inputs = weight.shape
    linear: nn.Module = nn.Linear(inputs, outputs)
    if transposed:
        linear = Conv1D(outputs, inputs)
    with torch.no_grad():
        dict(linear.named_parameters())["weight"].copy_(weight.T if transposed else weight)
    found = CoredLinear(linear, RANK, 2.0)
    torch.manual_seed(seed)
    found.factorise()
    return found


def spectrum(inputs: int, outputs: int, values: list[float]) -> torch.Tensor:
    """A matrix of these first singular values, and of small ones."""
    generator = torch.Generator().manual_seed(5)
    left = torch.linalg.qr(torch.randn(outputs, outputs, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(inputs, inputs, generator=generator)).Q
    small = min(inputs, outputs)
    sizes = torch.tensor(values + [0.1] * (small - len(values)))
    return left[:, :small] @ torch.diag(sizes) @ right[:, :small].T


@pytest.mark.parametrize(("inputs", "outputs"), [(12, 20), (20, 12)], ids=["tall", "wide"])
@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
def test_factors_span_the_first_singular_vectors(inputs, outputs, transposed) -> None:
    weight = spectrum(inputs, outputs, [4.0, 3.0, 2.5, 2.0])
    layer = cored(weight, transposed=transposed)
    a, b = layer.lora_A.weight, layer.lora_B.weight
    assert torch.allclose(a @ a.T, torch.eye(RANK), atol=2e-2)
    right = torch.linalg.svd(weight).Vh[:RANK]
    assert torch.allclose(a.T @ a, right.T @ right, atol=2e-2)
    assert torch.allclose(b, weight @ a.T, atol=5e-2)  # U Sigma, turned like A
    assert not layer.core.weight.any()


@pytest.mark.parametrize("values", [[4.0, 3.0, 2.5, 2.0], [3.0, 3.0, 3.0, 3.0]], ids=str)
def test_another_routine_s_signs_and_turns_give_the_same_factors_to_the_bit(
    monkeypatch: pytest.MonkeyPatch, values: list[float]
) -> None:
    """What two machines may differ in: the signs of vectors, and all of them at equal values."""
    weight = spectrum(16, 24, values)
    first = cored(weight)
    original = torch.linalg.eigh

    class Other:
        def __init__(self, matrix: torch.Tensor) -> None:
            vectors = original(matrix + 1e-15 * matrix.trace()).eigenvectors.clone()
            turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0, -1.0], dtype=matrix.dtype))
            if len(set(values)) == 1:
                generator = torch.Generator().manual_seed(9)
                turn = torch.linalg.qr(
                    torch.randn(RANK, RANK, generator=generator, dtype=matrix.dtype)
                ).Q
            vectors[:, -RANK:] = vectors[:, -RANK:] @ turn
            self.eigenvectors = vectors

    monkeypatch.setattr(torch.linalg, "eigh", Other)
    other = cored(weight)
    for part in ("lora_A", "lora_B"):
        assert getattr(first, part).weight.equal(getattr(other, part).weight)
    assert not cored(weight, seed=2).lora_A.weight.equal(first.lora_A.weight)


def test_a_weight_in_blocks_is_read_by_what_its_layer_does(monkeypatch) -> None:
    weight = spectrum(12, 20, [4.0, 3.0, 2.5, 2.0])
    plain = cored(weight)

    class Blocks(nn.Linear):
        """As `block_weights` keeps one: its parameter holds bytes, not values."""

        def forward(self, activations: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(activations, weight, self.bias)

    blocks = Blocks(12, 20)
    blocks.weight = nn.Parameter(torch.zeros(20, 3, dtype=torch.uint8), requires_grad=False)
    assert torch.allclose(dense_weight(blocks), dense_weight(plain.linear), atol=1e-5)


def test_the_mean_of_cores_is_the_mean_of_updates() -> None:
    layer = cored(spectrum(12, 20, [4.0, 3.0, 2.5, 2.0]))
    cores = [torch.randn(RANK, RANK) for _ in range(3)]
    updates = []
    for core in [*cores, sum(cores) / 3]:
        with torch.no_grad():
            layer.core.weight.copy_(core)
        updates.append(layer.product() @ layer.lora_A.weight)
    assert torch.allclose(sum(updates[:3]) / 3, updates[3], atol=1e-5)


@pytest.mark.parametrize("transposed", [False, True], ids=["linear", "conv1d"])
def test_a_merged_layer_answers_as_before(transposed: bool) -> None:
    layer = cored(spectrum(12, 20, [4.0, 3.0, 2.5, 2.0]), transposed=transposed)
    with torch.no_grad():
        layer.core.weight.normal_()
        inputs = torch.randn(5, 12)
        expected = layer(inputs)
        assert not torch.allclose(expected, layer.linear(inputs), atol=1e-2)
        assert torch.allclose(layer.merged()(inputs), expected, atol=1e-4)


def test_only_cores_are_uploaded(tiny_models) -> None:
    task = task_on(tiny_models("bert"), "text-classification", "lora-xs", rank=RANK)
    model = task.build_model(seed=1)
    slots = task.begin_round(model, 1).slots
    assert {slot.name.rsplit(".", 2)[-2] for slot in slots} == {"core", "head"}
    assert all(slot.shape == (RANK, RANK) for slot in slots if "core" in slot.name)
    fixed = [name for name in load_adapter_bytes(adapter_bytes(model)) if "lora_" in name]
    assert fixed, "factors go with the adapter, whose digest a site holds to its own"
    before = load_adapter_bytes(adapter_bytes(model))
    randomise(model)
    after = load_adapter_bytes(adapter_bytes(model))
    assert all(before[name].equal(after[name]) for name in fixed)
    assert Layout.of(model).size == sum(slot.size for slot in slots)


def test_a_rank_above_a_layer_s_is_refused(tiny_models) -> None:
    task = task_on(tiny_models("bert"), "text-classification", "lora-xs", rank=500)
    with pytest.raises(ModelError, match=r"adapter\.rank is 500"):
        task.build_model(seed=1)


def test_three_sites_train_it_and_plain_peft_opens_what_is_exported(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("privacy.training.check_admission", lambda *_, **__: None)
    federation = make_federation(
        tmp_path,
        tiny_model,
        adapter='kind = "lora-xs"\nrank = 2\ntarget_modules = ["value"]\nrank_stabilised = true',
        plain=True,
        rounds=1,
    )
    record = LocalEngine(federation, tmp_path / "run", resume=False, observer=Quiet()).run()
    assert record.status == "finished"
    assert "fmfl-secure export" in (tmp_path / "run/adapter/README.md").read_text()
    out = export_run(tmp_path / "run", tmp_path / "out")
    bare = AutoModel.from_pretrained(tiny_model).eval()
    opened = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(tiny_model), out).eval()
    merged_folder = export_run(tmp_path / "run", tmp_path / "merged", merged=True)
    merged = AutoModel.from_pretrained(merged_folder).eval()
    ids = torch.tensor([[2, 5, 6, 7]])
    with torch.no_grad():
        states = [model(input_ids=ids).last_hidden_state for model in (bare, opened, merged)]
    assert torch.allclose(states[1], states[2], atol=1e-5)
    assert not torch.allclose(states[0], states[1], atol=1e-6)
    answers = predict_run(tmp_path / "run", tmp_path / "data/holdout.csv")
    assert len(answers) == 30
    assert np.isfinite([answer["score"] for answer in answers if "score" in answer]).all()
