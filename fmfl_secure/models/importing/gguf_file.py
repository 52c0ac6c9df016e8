"""GGUF files of llama.cpp: weights dequantised by transformers, tokenizer and template."""

from __future__ import annotations

import importlib.util
import io
from contextlib import redirect_stderr
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from fmfl_secure.errors import ModelError
from fmfl_secure.extras import how_to_install
from fmfl_secure.models.architectures import architecture_of
from fmfl_secure.models.importing.source import Origin, Parts, sha256_of
from fmfl_secure.models.library_errors import reading

_MAGIC = b"GGUF"


def is_gguf(path: Path) -> bool:
    """Whether a file says of itself that it is GGUF."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_gguf(path: Path) -> tuple[Parts, Origin]:
    """Read a model out of a GGUF file; every block becomes the float32 values that it stands for.

    Raises:
        ModelError: The `gguf` package is missing, the file is none, or its architecture is not
            supported here.
    """
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            "GGUF files are read with the package gguf, which is not installed",
            hint=how_to_install("gguf"),
        )
    place = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    transformers_logging.disable_progress_bar()
    with reading("the model", path):
        config = AutoConfig.from_pretrained(path.parent, **place)
    architecture_of(config.model_type)
    # The library draws a bar of its own, which no switch of it turns off.
    with reading("the model", path), redirect_stderr(io.StringIO()):
        model, report = AutoModelForCausalLM.from_pretrained(
            path.parent,
            **place,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **place)
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(f"{path} lacks {len(missing)} tensors, {missing[0]} among them")
    about = _described(path)
    return Parts(model, tokenizer.save_pretrained, gguf=path), Origin(
        title=about.get("general.name", path.stem),
        file=path.name,
        sha256=sha256_of(path),
        form="GGUF, dequantised to float32",
        licence=about.get("general.license", ""),
    )


def _described(path: Path) -> dict[str, str]:
    """The words that a GGUF file says about itself."""
    # Of an extra, and looked for above.
    from gguf import GGUFReader, GGUFValueType

    with reading("the model", path):
        fields = GGUFReader(str(path)).fields
        return {
            name: str(field.contents())
            for name, field in fields.items()
            if name.startswith("general.") and field.types == [GGUFValueType.STRING]
        }
