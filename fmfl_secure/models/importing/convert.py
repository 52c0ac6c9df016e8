"""From a source to a folder that every party can hold and pin by its digest."""

from __future__ import annotations

import shutil
from pathlib import Path

import transformers

from fmfl_secure._version import __version__
from fmfl_secure.errors import ModelError
from fmfl_secure.models.architectures import architecture_of
from fmfl_secure.models.base import BaseModel, find_base_model
from fmfl_secure.models.importing.gguf_file import is_gguf, read_gguf
from fmfl_secure.models.importing.packages import PACKAGED, read_packaged
from fmfl_secure.models.importing.pickled_folder import read_pickled
from fmfl_secure.models.importing.source import Origin, Parts


def import_model(source: str, output: Path) -> BaseModel:
    """Write a model as a Hugging Face folder of safetensors, with a note of where it came from.

    Args:
        source: Name of a packaged model, a GGUF file, or a folder with pickled weights.
        output: Folder to make.

    Returns:
        The model in it, digested.

    Raises:
        ModelError: The source cannot be used, or the folder is there already.
    """
    if output.exists():
        raise ModelError(f"{output} is there already", hint="Name a folder that is to be made.")
    parts, origin = _read(source)
    architecture_of(parts.model.config.model_type)
    parts.model.config.name_or_path = ""  # a place on this machine
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        parts.model.save_pretrained(unfinished)
        parts.save_assets(unfinished)
        (unfinished / "README.md").write_text(_readme(origin), encoding="utf-8")
        if origin.licence_file:
            shutil.copyfile(origin.licence_file, unfinished / "LICENSE")
        unfinished.rename(output)
    except OSError as error:
        raise ModelError(f"{output} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return find_base_model(str(output))


def _read(source: str) -> tuple[Parts, Origin]:
    if source in PACKAGED:
        return read_packaged(source)
    path = Path(source)
    if path.is_dir():
        return read_pickled(path)
    if path.is_file() and is_gguf(path):
        return read_gguf(path)
    raise ModelError(
        f"{source} is no model that can be imported",
        hint=f"Give {', '.join(PACKAGED)}, a .gguf file, or a folder with pickled weights.",
    )


def _readme(origin: Origin) -> str:
    """The note, with front matter that says the licence as model cards do."""
    head = [f"license: {origin.licence}"] if origin.licence else []
    if origin.published_as:
        head.append(f"base_model: {origin.published_as}")
    published = f"Published as `{origin.published_as}`. " if origin.published_as else ""
    licence = origin.licence or "not stated by the source; find out before you use it"
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
            f"- written by: fmfl-secure {__version__}, transformers {transformers.__version__}",
            "",
            "Other versions of these may write a tokenizer's file otherwise, and the folder then",
            "has another digest: import once, and give all parties the same folder.",
            "",
        ]
    )
