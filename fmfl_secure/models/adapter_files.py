"""A finished adapter's files, each kind's own, with the head that the task adds beside them."""

from __future__ import annotations

from pathlib import Path

from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.adapters import AdapterSpec, adapter_of
from fmfl_secure.models.adapters.files import HEAD_FILE, read_tensors, save_tensors, set_tensors
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.heads import head_parameters

__all__ = ["HEAD_FILE", "load_head", "save_files"]


def save_files(model: AdaptedModel, spec: AdapterSpec, base: BaseModel, folder: Path) -> None:
    """Write the adapter and the head.

    Args:
        model: With the adapter's present values.
        spec: The adapter.
        base: The base model it is for.
        folder: Where; must exist.
    """
    adapter_of(spec).save(model.encoder, base, folder)
    head = head_parameters(model)
    if head and not spec.personal_head:
        save_tensors(dict(head), folder / HEAD_FILE)


def load_head(model: AdaptedModel, path: Path) -> None:
    """Set a model's head, if it has one, from a file such as the one beside the adapter.

    Raises:
        ModelError: It is not there, or does not fit.
    """
    head = head_parameters(model)
    if head:
        set_tensors(head, read_tensors(path), path)
