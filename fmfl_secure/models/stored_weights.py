"""Whether a base model is all that its weight files hold, and holds it as the numbers it is.

transformers passes over tensors that a configuration leaves no place for, and casts integers to
floats. Heads and poolers are passed over rightly. A layer that is passed over is another model
under the same name; integers in place of weights are quantised values without their scale.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors

from fmfl_secure.errors import ModelError
from fmfl_secure.models.library_errors import reading

if TYPE_CHECKING:
    from torch import nn

_NUMBERED = re.compile(r"\.(\d+)\.")
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def require_whole(folder: Path, model: nn.Module, passed_over: Iterable[str]) -> None:
    """Require that no layer in the files was passed over, and that weights are numbers.

    Args:
        folder: The base model's.
        model: As transformers built it.
        passed_over: Names of tensors in the files that it has no place for.

    Raises:
        ModelError: A list of layers is longer in the files, or a weight is no floating point.
    """
    blocks = {
        (name[: found.start()], found[1])
        for name in model.state_dict()
        for found in _NUMBERED.finditer(name)
    }
    lists = {name for name, _ in blocks}
    beyond = sorted(name for name in passed_over if _is_layer_beyond(name, lists, blocks))
    if beyond:
        raise ModelError(
            f"the weights in {folder} hold layers that config.json leaves out: {beyond[0]} and "
            f"{len(beyond) - 1} tensors more would be passed over",
            hint="Fetch the files again, all of one version; to use fewer layers, save the model "
            "without the others.",
        )
    for file in sorted(folder.glob("*.safetensors")):
        with reading("the base model's weights", file), safetensors.safe_open(file, "pt") as opened:
            kinds = {
                name: opened.get_slice(name).get_dtype()
                for name in opened.keys()  # noqa: SIM118, it is no dict
                if name.endswith(".weight")
            }
        wrong = sorted(name for name, kind in kinds.items() if kind not in _FLOATS)
        if wrong:
            raise ModelError(
                f"{file} holds {wrong[0]} as {kinds[wrong[0]]}, which is no floating point: "
                "quantised values without their scale",
                hint="Use the unquantised model, or a .gguf file with fmfl-secure model import.",
            )


def _is_layer_beyond(name: str, lists: set[str], blocks: set[tuple[str, str]]) -> bool:
    """Whether a tensor is of a list of layers that the model has, and of a place it has not.

    Files may put a prefix before the model's own names, such as `bert.`.
    """
    for found in _NUMBERED.finditer(name):
        before = name[: found.start()]
        own = next((each for each in lists if before == each or before.endswith(f".{each}")), None)
        if own is not None and (own, found[1]) not in blocks:
            return True
    return False
