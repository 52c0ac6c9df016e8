"""A finished adapter's files, each kind's own, with the head that the task adds beside them."""

from __future__ import annotations

import json
from pathlib import Path

from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.adapters import AdapterSpec, adapter_of
from fmfl_secure.models.adapters.files import HEAD_FILE, read_tensors, save_tensors, set_tensors
from fmfl_secure.models.adapters.peft_files import PEFT_CONFIG
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.heads import head_parameters
from fmfl_secure.models.provenance import hub_id
from fmfl_secure.settings.types import HEAD_PART

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
    if hub_id(base) and (folder / PEFT_CONFIG).is_file():
        _name_base(folder / PEFT_CONFIG, hub_id(base))
    head = head_parameters(model)
    if head and HEAD_PART not in spec.personal:
        save_tensors(dict(head), folder / HEAD_FILE)


def load_head(model: AdaptedModel, path: Path) -> None:
    """Set a model's head, if it has one, from a file such as the one beside the adapter.

    Raises:
        ModelError: It is not there, or does not fit.
    """
    head = head_parameters(model)
    if head:
        set_tensors(head, read_tensors(path), path)


def name_base_by_place(base: BaseModel, folder: Path) -> None:
    """Name a base model that is published nowhere by its folder on this machine, as PEFT does.

    For a copy that somebody takes away: files that travel between parties name no machine's paths.
    """
    if not hub_id(base) and (folder / PEFT_CONFIG).is_file():
        _name_base(folder / PEFT_CONFIG, str(base.path.resolve()))


def _name_base(path: Path, name: str) -> None:
    """Name a published base model so that PEFT finds it, where it has such a name."""
    config = json.loads(path.read_text(encoding="utf-8"))
    text = json.dumps(config | {"base_model_name_or_path": name}, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
