"""Turns errors that libraries raise on an unusable file into one typed error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fmfl_secure.errors import ModelError, Unavailable, is_out_of_memory, is_passing, said

_LONGEST = 400  # characters; transformers answers some files with its whole manual


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
