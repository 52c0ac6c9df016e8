"""Which architecture, adapter and task go together, and why the others do not: one table."""

from __future__ import annotations

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import ADAPTERS
from fmfl_secure.models.architectures import Architecture, TaskNeeds
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.unlisted import architecture_for


def refusal(architecture: Architecture, adapter: str, task: TaskNeeds) -> tuple[str, str] | None:
    """Why a combination is refused, and what to use instead; None where it works.

    Args:
        architecture: How the base model is built.
        adapter: Kind of adapter.
        task: What the kind of task asks.

    Raises:
        UnknownKind: There is no such kind of adapter.
    """
    return _task_refusal(architecture, task) or ADAPTERS.get(adapter).refusal(architecture, task)


def require_supported(base: BaseModel, adapter: str, task: TaskNeeds) -> Architecture:
    """The architecture, if the combination works.

    Raises:
        ModelError: It does not; says why, and what to use instead.
    """
    architecture = architecture_for(base)
    found = refusal(architecture, adapter, task)
    if found is not None:
        reason, instead = found
        raise ModelError(
            f"{task.name} with {adapter!r} on {base.model_type!r} is not supported: {reason}",
            hint=f"Use {instead}.",
        )
    return architecture


def _task_refusal(architecture: Architecture, task: TaskNeeds) -> tuple[str, str] | None:
    towers = architecture.towers
    wanted = task.modalities
    if "image" in wanted and "image" not in towers:
        return "it reads no images", "vit, deit, clip or siglip"
    if "text" in wanted and "text" not in towers:
        return "it reads no text", "an encoder such as bert, or clip"
    if task.together:
        return None
    if "text" in wanted and len(towers) > 1:
        return (
            "it gives a text one vector, made to be compared with images",
            "an encoder such as bert or roberta",
        )
    if task.causal and not architecture.causal:
        return "it sees the words that follow", "gpt2, llama, mistral or qwen2"
    return None
