"""The interface between importers and the rest: a model in parts, and where it came from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from fmfl_secure.errors import ModelError
from fmfl_secure.models.base_files import behaviour_files


@dataclass(frozen=True, slots=True)
class Parts:
    """A model taken from a source, ready to be written as a Hugging Face folder.

    Attributes:
        model: As transformers builds it, with all weights that the source has.
        save_assets: Writes tokenizer or image processor into a folder.
        gguf: The GGUF file that it is from, whose blocks can be kept; None where it is from none.
    """

    model: PreTrainedModel
    save_assets: Callable[[Path], object]
    gguf: Path | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model came from, for the folder's README.

    Attributes:
        title: What the model is called.
        file: Name of the file that was read.
        sha256: Its SHA-256 in hexadecimal.
        form: Its format, in words.
        licence: Identifier of the licence; empty where the source does not say.
        licence_file: The licence's text, if it comes with the source.
        published_as: `owner/name` of the original on a hub, if known.
    """

    title: str
    file: str
    sha256: str
    form: str
    licence: str = ""
    licence_file: Path | None = None
    published_as: str = ""


def copied_assets(folder: Path) -> Callable[[Path], object]:
    """Returns a function that copies a folder's files but for weights and configuration."""

    def save(output: Path) -> None:
        for path in behaviour_files(folder):
            if path.name == "config.json" or ".safetensors" in path.name or ".bin." in path.name:
                continue
            target = output / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    return save


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal.

    Raises:
        ModelError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
