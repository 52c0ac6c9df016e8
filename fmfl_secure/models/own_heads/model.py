"""A bare model and a head as the model of the architecture's own class."""

from __future__ import annotations

import copy
from typing import Any

import torch

from fmfl_secure.errors import ModelError
from fmfl_secure.models.own_heads.base import LinearHead, OwnHead, Tensors


def own_class_model(
    bare: Any, own: OwnHead, head: LinearHead, *, auto_class: str, changes: dict[str, Any]
) -> tuple[Any, Tensors]:
    """The model without values, and its values by name.

    Args:
        bare: The bare model of transformers, with the adapter merged.
        own: How its class holds the head.
        head: The trained head.
        auto_class: Name in transformers of what opens it.
        changes: What its configuration says other than the bare model's.

    Raises:
        ModelError: This version of transformers builds the class otherwise.
    """
    import transformers

    config = copy.deepcopy(bare.config)
    config.update(changes)
    with torch.device("meta"):
        model = getattr(transformers, auto_class).from_config(config)
    kept = {name: tensor.float() for name, tensor in bare.state_dict().items()}
    more, outside = own.tensors(kept, head)
    prefix = model.base_model_prefix
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    values = {f"{prefix}.{name}": tensor for name, tensor in {**kept, **more}.items()}
    # A class leaves out what it has no use for, such as a pooler.
    values = {name: tensor for name, tensor in values.items() if name in wanted} | outside
    different = sorted(
        name
        for name in wanted.keys() | values.keys()
        if name not in values or name not in wanted or values[name].shape != wanted[name]
    )
    if different:
        raise ModelError(
            f"{type(model).__name__} of this version of transformers is built otherwise than "
            f"expected: {different[0]}",
            hint="Export without --merged, or with the version of transformers in constraints.txt.",
        )
    return model, values
