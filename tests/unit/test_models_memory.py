"""What loading a base model takes: weights are mapped from their files, not copied."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from tiny_models import write_tiny

from fmfl_secure.models import find_base_model

# In a process of its own, since a peak never falls again. The naive way comes last.
MEASURE = """
import json, pathlib, sys
import safetensors.torch, torch, transformers
from transformers.models.bert import modeling_bert  # its code, before the first figure
from fmfl_secure.models import find_base_model

def peak() -> int:
    # VmHWM belongs to this process image; getrusage would inherit the peak of the tests.
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

folder, figures, start = sys.argv[1], {}, peak()
encoder = find_base_model(folder).load_encoder(sys.argv[2])
figures["mapped"] = peak() - start
sum(float(p.sum()) for p in encoder.parameters())
figures["used"] = peak() - start
del encoder
start = peak()
naive = transformers.BertModel(transformers.AutoConfig.from_pretrained(folder))
with open(folder + "/model.safetensors", "rb") as file:
    naive.load_state_dict(safetensors.torch.load(file.read()), strict=False)
figures["naive"] = peak() - start
print(json.dumps(figures))
"""


def write_bert(folder: Path, dtype: Any) -> int:
    """A BERT of about 29 M parameters; returns the size of its weights in bytes."""
    config = transformers.BertConfig(
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_attention_heads=8,
        vocab_size=5000,
    )
    with torch.device("meta"):
        model = transformers.BertModel(config)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    model.to(dtype).save_pretrained(folder, safe_serialization=True)
    return (folder / "model.safetensors").stat().st_size


def mapped(address: int, file: Path) -> bool:
    """Whether an address of this process is one that a file is mapped to."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, _, end = line.split()[0].partition("-")
        if line.endswith(str(file)) and int(start, 16) <= address < int(end, 16):
            return True
    return False


def test_weights_of_the_wanted_type_lie_in_the_file(tiny_models: Callable[[str], Path]) -> None:
    base = find_base_model(str(tiny_models("llama")))
    file = base.path / "model.safetensors"
    model = base.load_language_model()
    assert all(mapped(p.data_ptr(), file) for p in model.parameters())
    # Those of another type are copied, and nothing of the file remains.
    half = base.load_language_model("bfloat16")
    assert not any(mapped(p.data_ptr(), file) for p in half.parameters())


def test_bfloat16_weights_lie_in_the_file(tmp_path: Path) -> None:
    write_tiny(tmp_path, "llama")
    file = tmp_path / "model.safetensors"
    tensors = {n: t.to(torch.bfloat16) for n, t in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    model = find_base_model(str(tmp_path)).load_language_model("bfloat16")
    matrices = [p for p in model.parameters() if p.dim() == 2]
    assert len(matrices) == 16
    assert all(mapped(p.data_ptr(), file) for p in matrices)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_in_memory_once_and_only_when_they_are_used(tmp_path: Path, dtype: str) -> None:
    size = write_bert(tmp_path, getattr(torch, dtype))
    command = [sys.executable, "-c", MEASURE, str(tmp_path), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = {n: v / size for n, v in json.loads(done.stdout.splitlines()[-1]).items()}
    # A few MB of buffers and of the libraries' own, beside 110 MB of weights.
    assert figures["mapped"] < 0.3, figures
    assert figures["used"] < 1.3, figures
    # Beyond what was mapped before: the model, and the file in memory.
    assert figures["used"] + figures["naive"] > 2.0, figures
    (tmp_path / "model.safetensors").unlink()  # need not wait for pytest to clean up
