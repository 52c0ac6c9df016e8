"""Turns errors that libraries raise on an unusable file, or a full disk, into one typed error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors

from fmfl_secure.errors import (
    ModelError,
    RunError,
    Unavailable,
    is_out_of_memory,
    is_passing,
    os_failure,
    said,
)

_NUMBER = re.compile(r"\[Errno (\d+)\]|\(os error (\d+)\)")
_LONGEST = 400  # characters; transformers answers some files with its whole manual


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn what libraries raise where the system does not write into one error that names it.

    Args:
        what: What is written, for the message.
        path: The folder.

    Raises:
        Unavailable: There is no room.
        RunError: It cannot be written there.
    """
    try:
        yield
    # Of a folder that is copied, a list of texts; of safetensors, the system's in its own words.
    except (OSError, safetensors.SafetensorError) as error:
        number = getattr(error, "errno", None)
        if number is None and (found := _NUMBER.search(str(error))):
            number = int(found[1] or found[2])
        failed = OSError(number, os.strerror(number)) if number else OSError(str(error))
        raise os_failure(RunError, f"{what} cannot be written to {path}", failed) from error


@contextmanager
def reading(what: str, path: Path) -> Iterator[None]:
    """Turn whatever a library raises while it reads a file into a `ModelError` that names it.

    Args:
        what: What is read, for the message.
        path: The file, or the folder where the library chooses one itself.

    Raises:
        ModelError: The library could not read it.
        MemoryError, Unavailable: The surroundings failed it: the file may well be good.
    """
    try:
        yield
    except (ModelError, MemoryError):
        raise
    # tokenizers raises bare `Exception`, huggingface_hub errors below it, and torch, PEFT and
    # transformers six more kinds: a list of them was never complete.
    except Exception as error:
        text = " ".join(said(error).split()) or type(error).__name__
        if is_out_of_memory(error):
            raise MemoryError(f"not enough memory to load {what} in {path}") from error
        if is_passing(error):
            raise Unavailable(f"cannot load {what} in {path}: {text[:_LONGEST]}") from error
        raise ModelError(
            f"cannot load {what} in {path}: {text[:_LONGEST]}",
            hint="Fetch the files again, all of one version, or save them with save_pretrained.",
        ) from error
