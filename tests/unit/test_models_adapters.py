"""Adapters: what is trained, where it starts, and its files."""

from __future__ import annotations

import json
import pickle
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from fmfl_secure.errors import ModelError
from fmfl_secure.models import AdapterSpec, Layout, find_base_model
from fmfl_secure.models.adapters import (
    adapter_bytes,
    adapter_tensors,
    frozen_depth,
    load_adapter_bytes,
    set_adapter_tensors,
)
from fmfl_secure.models.classifiers import TextClassifier
from fmfl_secure.settings.tasks import TextClassificationSection
from fmfl_secure.tasks import TextClassification
from fmfl_secure.vectors.adapter import adapter_digest

KINDS = ("ffa-lora", "lora", "head")


def make_task(folder: Path, kind: str = "ffa-lora", **more: Any) -> TextClassification:
    spec = {"rank": 2, "alpha": 8.0, "last_layers": 0, "target_modules": ("query", "value")}
    labels = more.pop("labels", ("no", "yes"))
    return TextClassification(
        base=find_base_model(str(folder)),
        adapter=AdapterSpec(kind=kind, **{k: more.pop(k, v) for k, v in spec.items()}),
        settings=TextClassificationSection(
            text_columns=("text",), label_column="label", labels=labels
        ),
        **{"max_length": 16, "cache_bytes": 1 << 20, **more},
    )


def trained(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def randomise(model: TextClassifier, seed: int = 0) -> None:
    """Stands for training: without it B and head are zero, and nothing depends on anything."""
    layout = Layout.of(model)
    layout.unflatten_into(model, np.random.default_rng(seed).normal(0, 0.3, layout.size))


def test_ffa_lora_trains_b_and_the_head_only(tiny_model: Path) -> None:
    names = trained(make_task(tiny_model, "ffa-lora").build_model(seed=1))
    assert sum("lora_B" in name for name in names) == 4  # query and value in two layers
    assert {name for name in names if "lora_B" not in name} == {"head.weight", "head.bias"}


def test_lora_trains_a_and_b_and_the_head(tiny_model: Path) -> None:
    names = trained(make_task(tiny_model, "lora").build_model(seed=1))
    assert sum("lora_A" in name for name in names) == 4
    assert sum("lora_B" in name for name in names) == 4
    assert {name for name in names if "lora_" not in name} == {"head.weight", "head.bias"}


def test_head_trains_nothing_of_the_encoder(tiny_model: Path) -> None:
    model = make_task(tiny_model, "head").build_model(seed=1)
    assert trained(model) == {"head.weight", "head.bias"}
    assert not any("lora" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_adapter_changes_nothing(tiny_model: Path, kind: str) -> None:
    model = make_task(tiny_model, kind).build_model(seed=1)
    for name, tensor in adapter_tensors(model).items():
        if "lora_A" not in name:
            assert not tensor.any(), name
    plain = find_base_model(str(tiny_model)).load_encoder()
    ids, mask = torch.tensor([[2, 5, 9, 3]]), torch.ones(1, 4, dtype=torch.int64)
    expected = plain(input_ids=ids, attention_mask=mask).last_hidden_state
    actual = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.allclose(actual, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["ffa-lora", "lora"])
def test_a_follows_from_the_public_seed_alone(tiny_model: Path, kind: str) -> None:
    task = make_task(tiny_model, kind)
    before = torch.initial_seed()
    one = adapter_bytes(task.build_model(seed=1))
    assert torch.initial_seed() == before, "the global generator was left at a public seed"
    torch.rand(3)
    assert adapter_bytes(task.build_model(seed=1)) == one
    other = adapter_bytes(task.build_model(seed=2))
    assert other != one
    others = load_adapter_bytes(other)
    for name, tensor in load_adapter_bytes(one).items():
        assert torch.equal(tensor, others[name]) == ("lora_A" not in name), name


def test_last_layers_and_target_modules_say_where(tiny_model: Path) -> None:
    task = make_task(tiny_model, last_layers=1, target_modules=("key",))
    names = {n for n in trained(task.build_model(seed=1)) if "lora" in n}
    assert len(names) == 1
    assert "layer.1.attention.self.key.lora_B" in names.pop()


@pytest.mark.parametrize(
    ("kind", "last_layers", "depth"),
    [("ffa-lora", 0, 0), ("ffa-lora", 1, 1), ("lora", 2, 0), ("lora", 9, 0), ("head", 1, 2)],
)
def test_the_frozen_depth(tiny_model: Path, kind: str, last_layers: int, depth: int) -> None:
    task = make_task(tiny_model, kind, last_layers=last_layers)
    tower = task.architecture.towers["text"]
    assert frozen_depth(task.base.load_encoder(), tower, task.adapter) == depth


def test_without_target_modules_the_architectures_are_taken(tiny_model: Path) -> None:
    names = trained(make_task(tiny_model, last_layers=1, target_modules=()).build_model(seed=1))
    # query, key, value, and the three dense layers of one BERT layer
    assert sum("lora_B" in name for name in names) == 6


def test_unknown_target_modules_are_refused(tiny_model: Path) -> None:
    for names in (("q_lin", "v_lin"), ("LayerNorm",)):
        with pytest.raises(ModelError, match=f"no linear layer of BertModel is named {names[0]}"):
            make_task(tiny_model, target_modules=names).build_model(seed=1)


def test_an_unsupported_architecture_is_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "swin"}))
    for kind in KINDS:
        with pytest.raises(ModelError, match="'swin' is not supported here: it folds"):
            make_task(folder, kind).build_model(seed=1)


def test_texts_longer_than_the_models_positions_are_refused_at_the_start(tiny_model: Path) -> None:
    make_task(tiny_model, max_length=64).build_model(seed=1)
    with pytest.raises(ModelError, match="max_length is 65, the base model has 64 positions"):
        make_task(tiny_model, max_length=65).build_model(seed=1)


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_bytes_are_deterministic_and_read_back(tiny_model: Path, kind: str) -> None:
    task = make_task(tiny_model, kind)
    model = task.build_model(seed=1)
    randomise(model)
    data = adapter_bytes(model)
    assert data == adapter_bytes(model)
    other = task.build_model(seed=2)
    set_adapter_tensors(other, load_adapter_bytes(data))
    assert adapter_bytes(other) == data
    assert adapter_digest(adapter_bytes(other)) == adapter_digest(data)
    assert adapter_digest(data).startswith("sha256:")
    with torch.no_grad():
        other.head.bias[0] += 2**-20
    assert adapter_digest(adapter_bytes(other)) != adapter_digest(data)


@pytest.mark.parametrize("data", [b"", b"\x00", b"x" * 100, b"\xff" * 64, b"\x80\x04N."])
def test_bytes_that_are_no_adapter_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="not an adapter in safetensors form"):
        load_adapter_bytes(data)


def test_a_missing_a_surplus_and_a_misshapen_tensor_are_refused_by_name(tiny_model: Path) -> None:
    model = make_task(tiny_model).build_model(seed=1)
    before = adapter_bytes(model)
    own = {name: t + 1 for name, t in load_adapter_bytes(before).items()}
    missing = {k: v for k, v in own.items() if k != "head.bias"}
    misshapen = {**own, "head.weight": own["head.weight"].T.contiguous()}
    for wrong, name in (
        (missing, "head.bias"),
        ({**own, "extra": torch.zeros(1)}, "extra"),
        (misshapen, "head.weight"),
        ({}, "encoder"),
    ):
        with pytest.raises(ModelError, match=f"adapter tensor {name}"):
            set_adapter_tensors(model, wrong)
        assert adapter_bytes(model) == before, "nothing may be set where something does not fit"


def block_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        pytest.fail("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_opens_with_the_same_logits_and_asks_nobody(
    tiny_model: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    block_network(monkeypatch)
    task = make_task(tiny_model, kind, last_layers=1)
    model = task.build_model(seed=1)
    randomise(model)
    task.save_adapter(model, tmp_path / "adapter")
    files = {p.name for p in (tmp_path / "adapter").iterdir()}
    assert {"head.safetensors", "task.json"} <= files
    assert ("adapter_model.safetensors" in files) == (kind != "head")
    for name in files:
        assert str(tiny_model.parent).encode() not in (tmp_path / "adapter" / name).read_bytes()
    data = task.synthetic()
    everyone = np.arange(data.records)
    batch = data.collate(everyone)
    opened = task.open_adapter(tmp_path / "adapter")
    with torch.no_grad():
        expected = model.eval()(batch)
        assert torch.allclose(opened(task.synthetic().collate(everyone)), expected, atol=1e-6)
    assert expected.std() > 1e-3, "an adapter that does nothing proves nothing"


@pytest.fixture
def saved(tiny_model: Path, tmp_path: Path) -> tuple[TextClassification, Path]:
    task = make_task(tiny_model)
    model = task.build_model(seed=1)
    randomise(model)
    task.save_adapter(model, tmp_path / "adapter")
    return task, tmp_path / "adapter"


@pytest.mark.parametrize(
    "name", ["adapter_config.json", "adapter_model.safetensors", "head.safetensors", "task.json"]
)
def test_an_adapter_without_one_of_its_files_is_refused(saved, name: str) -> None:
    task, folder = saved
    (folder / name).unlink()
    with pytest.raises(ModelError, match=r"adapter"):
        task.open_adapter(folder)


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_a_pickled_adapter_is_refused_and_not_opened(saved) -> None:
    task, folder = saved
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=r"holds no adapter_model\.safetensors"):
        task.open_adapter(folder)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "head.safetensors"])
def test_an_adapter_that_lacks_a_tensor_is_refused(saved, file: str) -> None:
    task, folder = saved
    tensors = safetensors.torch.load_file(folder / file)
    tensors.pop(min(tensors))
    safetensors.torch.save_file(tensors, folder / file)
    with pytest.raises(ModelError):
        task.open_adapter(folder)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "head.safetensors", "task.json"])
def test_a_damaged_adapter_file_is_a_typed_error(saved, file: str) -> None:
    task, folder = saved
    (folder / file).write_bytes(b"junk")
    with pytest.raises(ModelError):
        task.open_adapter(folder)


@pytest.mark.parametrize("content", ["[]", "null", "{}", '"x"'])
def test_a_description_of_another_form_is_refused(saved, content: str) -> None:
    task, folder = saved
    (folder / "task.json").write_text(content)
    with pytest.raises(ModelError, match=r"made with another|is no object"):
        task.open_adapter(folder)


def test_an_adapter_for_another_base_or_other_labels_is_refused(
    saved, tiny_model: Path, tmp_path: Path
) -> None:
    _, folder = saved
    with pytest.raises(ModelError, match="another labels"):
        make_task(tiny_model, labels=("yes", "no")).open_adapter(folder)
    other = Path(shutil.copytree(tiny_model, tmp_path / "base"))
    (other / "vocab.txt").write_text("more")
    with pytest.raises(ModelError, match="another base_model_digest"):
        make_task(other).open_adapter(folder)


def test_an_adapter_of_another_width_is_refused(saved, tiny_model: Path) -> None:
    task, folder = saved
    head = {"weight": torch.zeros(3, 16), "bias": torch.zeros(3)}
    safetensors.torch.save_file(head, folder / "head.safetensors")
    with pytest.raises(ModelError, match="does not fit"):
        task.open_adapter(folder)
