"""Heads that transformers would draw at random, so that an exported model refuses them.

A head that reads features at unit norm is none that an architecture's own class has. Opened as
`AutoModelForSequenceClassification`, by `pipeline` for one, an exported model would get a random
head and answer with confidence. So an empty tensor stands where that head's weights would: the
class then refuses the file, and `AutoModel`, which has no such head, ignores it.
"""

from __future__ import annotations

from typing import Any

import torch

from fmfl_secure.settings.own_classes import OWN_CLASSES


def invented_heads(model: Any, task: str) -> dict[str, torch.Tensor]:
    """Empty tensors by the names of weights that transformers would invent.

    Args:
        model: The bare model of transformers that is exported.
        task: Name of the task.
    """
    import transformers

    if task not in OWN_CLASSES:
        return {}
    try:
        with torch.device("meta"):
            own = getattr(transformers, OWN_CLASSES[task]).from_config(model.config)
    except ValueError:
        return {}  # the architecture has no such class, so nothing can be invented
    bare = own.base_model_prefix + "."
    kept = model.state_dict().keys()
    return {
        name: torch.zeros(0)
        for name in own.state_dict()
        if not name.startswith(bare) and name not in kept
    }
