"""Which files of a base model's folder decide what it does, and what is no base model at all.

A digest of a list of names is blind to a file that a later version of transformers reads. So all
files count but those that nothing here ever opens: documents, pictures, hidden files, code, and
weights in forms other than safetensors. Two folders that load differently differ in a file that
counts; a file that counts without need costs a digest, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fmfl_secure.errors import ModelError

# Never opened: told by the last suffix, in lower case; a name without one is a licence or a note.
_IGNORED_SUFFIXES = frozenset(
    {
        "", ".md", ".rst", ".html", ".pdf", ".csv", ".log", ".lock", ".db", ".ini",
        ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp",
        ".py", ".ipynb", ".sh",
        ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".onnx", ".tflite", ".ot",
        ".pb", ".gguf", ".zip", ".gz",
    }
)  # fmt: skip
_DOCUMENTS = ("readme", "licen", "notice")  # whatever the suffix

# What version 0.1.0 digested besides weights. Its pins, plans, policies and adapters hold.
_FILES_OF_0_1_0 = (
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

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def behaviour_files(folder: Path) -> list[Path]:
    """The files that decide what the model in a folder does, in order of their names."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and _counts(path, folder))


def behaviour_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each of those files by its path below the folder, in hexadecimal.

    Raises:
        ModelError: One of them cannot be read, or is what Git LFS left in its place.
    """
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in behaviour_files(folder)}


def digest_of(digests: dict[str, str]) -> str:
    """`sha256:` over names and SHA-256s."""
    listing = json.dumps(digests, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(listing.encode()).hexdigest()


def digest_of_0_1_0(digests: dict[str, str]) -> str:
    """The digest that version 0.1.0 gave the same folder."""
    return digest_of(
        {
            name: value
            for name, value in digests.items()
            if name in _FILES_OF_0_1_0 or ("/" not in name and name.endswith(".safetensors"))
        }
    )


def refuse_other_folders(folder: Path) -> None:
    """Say what a folder without a usable base model is, where that can be told.

    Raises:
        ModelError: It is an adapter, is not there, or has no `config.json`.
    """
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} holds an adapter (adapter_config.json), not a base model",
            hint="Set model.base to the folder of the model that the adapter is for.",
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} is not a Hugging Face model folder: it has no config.json",
            hint="Set model.base to a local folder, or to 'minilm' for the built-in model.",
        )


def _counts(path: Path, folder: Path) -> bool:
    below = path.relative_to(folder)
    hidden = any(part.startswith(".") for part in below.parts)
    document = path.name.lower().startswith(_DOCUMENTS)
    return not hidden and not document and path.suffix.lower() not in _IGNORED_SUFFIXES


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise ModelError(
                    f"{path} is a Git LFS pointer, not the file itself",
                    hint="Run git lfs pull in the folder, or download the model again.",
                )
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
