"""How a finished adapter's files follow from its tensors, found out by saving it twice.

A server writes these files without PEFT (`vectors.adapter_files`). What is in them stays PEFT's
affair, or that of whoever added a kind of adapter: a model is saved whose tensors each hold a
number of their own, and those numbers are looked for in the files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import safetensors
import torch
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import (
    adapter_bytes,
    adapter_tensors,
    perturb_adapter,
    set_adapter_tensors,
)
from fmfl_secure.tasks import Task
from fmfl_secure.vectors.adapter import Adapter
from fmfl_secure.vectors.adapter_files import AdapterFiles, TensorFile, TensorSource

_TENSORS: Final = ".safetensors"


def adapter_files(task: Task, model: nn.Module) -> AdapterFiles:
    """Collects the files that the task writes of a finished adapter, but for its values.

    Args:
        task: The task.
        model: A model of it; as before when this returns.

    Raises:
        ModelError: A file holds other values than the adapter's, so that nobody could write it
            without the model.
    """
    kept = {name: tensor.clone() for name, tensor in adapter_tensors(model).items()}
    names = sorted(kept)
    try:
        with torch.no_grad():
            for number, name in enumerate(names, start=1):
                adapter_tensors(model)[name].fill_(number)
        files = _found(task, model, names)
        set_adapter_tensors(model, kept)
        perturb_adapter(model)  # else a tensor that was turned round would look like any other
        if files.render(Adapter.read(adapter_bytes(model))) != _saved(task, model):
            raise _mixed()
    finally:
        set_adapter_tensors(model, kept)
    return files


def _saved(task: Task, model: nn.Module) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        task.save_adapter(model, Path(name))
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


def _found(task: Task, model: nn.Module, names: Sequence[str]) -> AdapterFiles:
    texts, tensors = {}, {}
    with tempfile.TemporaryDirectory() as name:
        task.save_adapter(model, Path(name))
        for path in sorted(Path(name).iterdir()):
            if path.suffix == _TENSORS:
                tensors[path.name] = _sources(path, names)
            else:
                texts[path.name] = path.read_text(encoding="utf-8")
    return AdapterFiles(texts, tensors)


def _sources(path: Path, names: Sequence[str]) -> TensorFile:
    """Whose number each tensor of a file holds."""
    found: dict[str, TensorSource] = {}
    with safetensors.safe_open(path, framework="numpy") as opened:
        metadata: Mapping[str, str] = opened.metadata() or {}
        for name in opened.keys():  # noqa: SIM118 - no mapping
            values = np.unique(opened.get_tensor(name))
            if len(values) != 1 or values[0] not in range(1, len(names) + 1):
                raise _mixed()
            source = names[int(values[0]) - 1]
            found[name] = TensorSource(source, tuple(opened.get_slice(name).get_shape()))
    return TensorFile(found, dict(metadata))


def _mixed() -> ModelError:
    return ModelError(
        "this kind of adapter writes files of other values than its tensors",
        hint="A server writes them without the model: save each tensor as it is, in any shape.",
    )
