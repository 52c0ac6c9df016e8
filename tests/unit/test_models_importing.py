"""Models out of GGUF, ONNX and weights-only pickles: the same values, and nothing is run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from tiny_models import write_byte_tokenizer, write_tiny

from fmfl_secure.errors import ModelError
from fmfl_secure.models import find_base_model
from fmfl_secure.models.importing import PACKAGED, import_model
from fmfl_secure.models.importing.onnx_file import read_onnx
from fmfl_secure.models.provenance import licence

gguf = pytest.importorskip("gguf")
onnx = pytest.importorskip("onnx")

# What llama.cpp calls the tensors of a qwen2; no other architecture leaves them as they are.
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path: Path, folder: Path, *, architecture: str = "qwen2") -> None:
    """A tiny qwen2 as llama.cpp would have it, matrices in blocks of 8 bits."""
    config = json.loads((folder / "config.json").read_text())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.get)
    words += ["ab"]  # a file without any merge is not read as such a tokenizer
    words += [f"<unused{n}>" for n in range(config["vocab_size"] - len(words))]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_license("mit")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10_000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(len(vocabulary) - 1)
    for name, tensor in safetensors.torch.load_file(folder / "model.safetensors").items():
        values = tensor.numpy()
        kind = gguf.GGMLQuantizationType.Q8_0 if values.ndim == 2 else None
        if kind:
            values = gguf.quants.quantize(values, kind)
        writer.add_tensor(as_llama_cpp(name), values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def as_llama_cpp(name: str) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, number, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{number}.{NAMES[module]}.{kind}"


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("qwen2") / "tiny", "qwen2")


def test_a_gguf_file_becomes_a_folder_with_the_values_of_its_blocks(
    qwen2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gguf(tmp_path / "tiny.gguf", qwen2)
    found = import_model(str(tmp_path / "tiny.gguf"), tmp_path / "model")
    assert capsys.readouterr().err == "", "no bar of a library's"
    assert found.model_type == "qwen2"
    assert "quantization_config" not in found.config
    imported = safetensors.torch.load_file(tmp_path / "model" / "model.safetensors")
    before = safetensors.torch.load_file(qwen2 / "model.safetensors")
    assert set(imported) == set(before)
    for name, tensor in before.items():
        values = tensor.numpy()
        if values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            values = gguf.quants.dequantize(gguf.quants.quantize(values, kind), kind)
        assert np.array_equal(imported[name].numpy(), values), name
    assert licence(tmp_path / "model") == "mit"
    assert "tiny.gguf" in (tmp_path / "model" / "README.md").read_text()
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()
    assert find_base_model(str(tmp_path / "model")).load_tokenizer()("a b")["input_ids"]


def test_another_import_of_the_same_file_has_the_same_digest(qwen2, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", qwen2)
    one, two = (import_model(str(tmp_path / "tiny.gguf"), tmp_path / name) for name in "ab")
    assert one.digest == two.digest


def test_what_is_no_model_is_refused_by_name(qwen2, tmp_path: Path) -> None:
    (tmp_path / "short.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 64)
    (tmp_path / "text.gguf").write_text("hello")
    write_gguf(tmp_path / "falcon.gguf", qwen2, architecture="falcon")
    for name in ("short.gguf", "text.gguf", "falcon.gguf", "absent.gguf"):
        with pytest.raises(ModelError, match=name.split(".", maxsplit=1)[0]):
            import_model(str(tmp_path / name), tmp_path / "model")
        assert sorted(path.name for path in tmp_path.glob("*model*")) == []


def test_a_folder_that_is_there_is_left_alone(qwen2, tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", qwen2)
    (tmp_path / "model").mkdir()
    with pytest.raises(ModelError, match="is there already"):
        import_model(str(tmp_path / "tiny.gguf"), tmp_path / "model")
    assert list((tmp_path / "model").iterdir()) == []


def pickled(folder: Path, model_type: str = "bert") -> Path:
    write_tiny(folder, model_type)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def test_pickled_tensors_become_safetensors(tmp_path: Path) -> None:
    folder = pickled(tmp_path / "old")
    before = torch.load(folder / "pytorch_model.bin", weights_only=True)
    import_model(str(folder), tmp_path / "new")
    after = safetensors.torch.load_file(tmp_path / "new" / "model.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    tokenizer = find_base_model(str(tmp_path / "new")).load_tokenizer()
    assert tokenizer("good").input_ids == find_base_model_tokens(folder)


def find_base_model_tokens(folder: Path) -> list[int]:
    from transformers import AutoTokenizer

    return list(AutoTokenizer.from_pretrained(folder)("good").input_ids)


class Runs:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self.path, "run")


def test_a_pickle_that_would_run_code_is_refused_and_does_not(tmp_path: Path) -> None:
    folder = pickled(tmp_path / "old")
    for write in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        write({"a": Runs(tmp_path / "ran")}, folder / "pytorch_model.bin")
        with pytest.raises(ModelError):
            import_model(str(folder), tmp_path / "new")
        assert not (tmp_path / "ran").exists()
        assert not (tmp_path / "new").exists()


def test_a_pickle_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    folder = pickled(tmp_path / "old")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    del weights["encoder.layer.0.output.dense.weight"]
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="lacks 1 tensors"):
        import_model(str(folder), tmp_path / "new")


def test_matrices_of_an_onnx_file_get_their_names_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrix, bias, other = (rng.normal(size=s).astype("f4") for s in ((3, 2), (2,), (2, 4)))
    make, tensor = onnx.helper, onnx.numpy_helper.from_array
    graph = make.make_graph(
        [
            make.make_node("MatMul", ["x", "onnx::MatMul_7"], ["product"]),
            make.make_node("Add", ["block.fc.bias", "product"], ["y"]),
            make.make_node("MatMul", ["y", "onnx::MatMul_8"], ["z"]),
        ],
        "graph",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])],
        [make.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 4])],
        [
            tensor(matrix, "onnx::MatMul_7"),
            tensor(bias, "block.fc.bias"),
            tensor(other, "onnx::MatMul_8"),
        ],
    )
    onnx.save(make.make_model(graph), tmp_path / "model.onnx")
    found = read_onnx(tmp_path / "model.onnx")
    assert set(found) == {"block.fc.weight", "block.fc.bias", "onnx::MatMul_8"}
    assert np.array_equal(found["block.fc.weight"].numpy(), matrix.T)
    (tmp_path / "model.onnx").write_bytes(b"\x08\xff")
    with pytest.raises(ModelError, match=r"model\.onnx"):
        read_onnx(tmp_path / "model.onnx")


def test_other_weights_than_the_published_ones_are_refused(tmp_path, monkeypatch) -> None:
    from types import SimpleNamespace

    from fmfl_secure.models.importing import packages

    file = tmp_path / PACKAGED["smollm2"].file
    file.parent.mkdir()
    write_byte_tokenizer(tmp_path)
    file.write_bytes(b"GGUF")
    installed = SimpleNamespace(version="0.1.2", locate_file=lambda name: tmp_path / name)
    monkeypatch.setattr(packages.importlib.metadata, "distribution", lambda _: installed)
    with pytest.raises(ModelError, match="published weights"):
        import_model("smollm2", tmp_path / "model")


def _pickled_dinov2(folder: Path) -> Path:
    """A tiny DINOv2 with its processor, as an old export has it."""
    write_tiny(folder, "dinov2")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def test_a_picture_size_is_what_the_model_then_reads_and_another_digest(tmp_path: Path) -> None:
    source = _pickled_dinov2(tmp_path / "source")
    patch = json.loads((source / "config.json").read_text())["patch_size"]
    plain = import_model(str(source), tmp_path / "plain")
    small = import_model(str(source), tmp_path / "small", picture_size=2 * patch)
    assert small.digest != plain.digest
    picture = Image.new("RGB", (90, 31), "white")
    found = small.load_image_processor()(images=[picture], return_tensors="pt")
    assert found["pixel_values"].shape == (1, 3, 2 * patch, 2 * patch)
    states = small.load_encoder()(**found).last_hidden_state
    assert states.shape[1] == 1 + 4, "the class token, and the patches that there are"
    assert f"{2 * patch} x {2 * patch} pixels" in (tmp_path / "small/README.md").read_text()
    with pytest.raises(ModelError, match=f"not whole patches of {patch}"):
        import_model(str(source), tmp_path / "odd", picture_size=2 * patch + 1)
    assert not (tmp_path / "odd").exists()


def test_a_model_that_reads_no_pictures_of_another_size_is_refused(qwen2, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'qwen2' has no pictures of another size"):
        import_model(str(qwen2), tmp_path / "x", weights="q8_0", picture_size=56)
