"""From a source to a folder that every party can hold and pin by its digest."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import transformers

from fmfl_secure._version import __version__
from fmfl_secure.errors import ModelError, os_failure
from fmfl_secure.models.architectures import architecture_of
from fmfl_secure.models.base import BaseModel, find_base_model
from fmfl_secure.models.block_weights import write_blocks
from fmfl_secure.models.importing.blocks import kept_blocks, made_blocks, require_some
from fmfl_secure.models.importing.gguf_file import is_gguf, read_gguf
from fmfl_secure.models.importing.packages import PACKAGED, read_packaged
from fmfl_secure.models.importing.pickled_folder import read_pickled
from fmfl_secure.models.importing.picture_size import set_picture_size
from fmfl_secure.models.importing.plain_folder import read_folder
from fmfl_secure.models.importing.source import Origin, Parts

_FORMS: Final = {
    "blocks": "; matrices stay in its blocks here",
    "q8_0": "; matrices rounded to blocks of 8 bits (q8_0) here",
    "q4_0": "; matrices rounded to blocks of 4 bits (q4_0) here",
    "q4_1": "; matrices rounded to blocks of 4 bits (q4_1) here",
}
Weights = Literal["float32", "blocks", "q8_0", "q4_0", "q4_1"]


def import_model(
    source: str, output: Path, *, weights: Weights = "float32", picture_size: int | None = None
) -> BaseModel:
    """Write a model as a Hugging Face folder of safetensors, with a note of where it came from.

    Args:
        source: Name of a packaged model, a GGUF file, a folder with pickled weights, or, to make
            blocks of, with safetensors.
        output: Folder to make.
        weights: How matrices are kept: as float32; in the blocks that a GGUF file has; or in
            blocks of 8 or about 4 bits that are made here.
        picture_size: Pixels along a side that images are scaled and cropped to; None leaves it.

    Returns:
        The model in it, digested.

    Raises:
        ModelError: The source cannot be used, or the folder is there already.
    """
    if output.exists():
        raise ModelError(f"{output} is there already", hint="Name a folder that is to be made.")
    parts, origin = _read(source, weights)
    architecture_of(parts.model.config.model_type)
    parts.model.config.name_or_path = ""  # a place on this machine
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        if weights == "float32":
            parts.model.save_pretrained(unfinished)
        else:
            unfinished.mkdir()
            parts.model.config.save_pretrained(unfinished)
            _write_blocks(parts, unfinished, weights, source)
        parts.save_assets(unfinished)
        if picture_size is not None:
            set_picture_size(unfinished, parts.model.config, picture_size)
        origin = replace(origin, form=f"{origin.form}{_FORMS.get(weights, '')}")
        (unfinished / "README.md").write_text(_readme(origin, picture_size), encoding="utf-8")
        if origin.licence_file:
            shutil.copyfile(origin.licence_file, unfinished / "LICENSE")
        unfinished.rename(output)
    except OSError as error:
        raise os_failure(ModelError, f"{output} cannot be written", error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return find_base_model(str(output))


def _write_blocks(
    parts: Parts, folder: Path, weights: Literal["blocks", "q8_0", "q4_0", "q4_1"], source: str
) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            "blocks are made with the package gguf, which is not installed",
            hint="pip install 'fmfl-secure[gguf]'",
        )
    if weights != "blocks":
        found = made_blocks(parts.model, weights)
    elif parts.gguf is not None:
        found = kept_blocks(parts.model, parts.gguf)
    else:
        raise ModelError(
            f"{source} has no blocks of its own: they are GGUF's",
            hint="Make them: --weights q8_0, q4_0 or q4_1.",
        )
    tensors = list(found)
    require_some({kind for _, _, kind in tensors}, source)
    write_blocks(tensors, folder)


def _read(source: str, weights: Weights) -> tuple[Parts, Origin]:
    if source in PACKAGED:
        return read_packaged(source)
    path = Path(source)
    if path.is_dir() and weights != "float32" and any(path.glob("*.safetensors")):
        return read_folder(path)
    if path.is_dir():
        return read_pickled(path)
    if path.is_file() and is_gguf(path):
        return read_gguf(path)
    raise ModelError(
        f"{source} is no model that can be imported",
        hint=f"Give {', '.join(PACKAGED)}, a .gguf file, or a folder with pickled weights.",
    )


def _readme(origin: Origin, picture_size: int | None) -> str:
    """The note, with front matter that says the licence as model cards do."""
    head = [f"license: {origin.licence}"] if origin.licence else []
    if origin.published_as:
        head.append(f"base_model: {origin.published_as}")
    published = f"Published as `{origin.published_as}`. " if origin.published_as else ""
    licence = origin.licence or "not stated by the source; find out before you use it"
    size = [f"- pictures: scaled and cropped to {picture_size} x {picture_size} pixels here"]
    return "\n".join(
        [
            "---",
            *head,
            "---",
            "",
            f"# {origin.title}",
            "",
            f"{published}Licence: {licence}.",
            "",
            f"- read from: `{origin.file}`, {origin.form}",
            f"- its SHA-256: `{origin.sha256}`",
            *(size if picture_size is not None else []),
            f"- written by: fmfl-secure {__version__}, transformers {transformers.__version__}",
            "",
            "Other versions of these may write a tokenizer's file otherwise, and the folder then",
            "has another digest: import once, and give all parties the same folder.",
            "",
        ]
    )
