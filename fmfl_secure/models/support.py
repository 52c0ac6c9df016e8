"""Which architecture, adapter and task go together, and why the others do not: one table."""

from __future__ import annotations

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapters import PROMPT_KINDS
from fmfl_secure.models.architectures import Architecture, Modality, architecture_of

# What each task reads.
TASK_MODALITIES: dict[str, tuple[Modality, ...]] = {
    "text-classification": ("text",),
    "token-classification": ("text",),
    "causal-lm": ("text",),
    "image-classification": ("image",),
    "image-text": ("image", "text"),
    "image-text-classification": ("image", "text"),
}


def refusal(model_type: str, adapter: str, task: str) -> tuple[str, str] | None:
    """Why a combination is refused, and what to use instead; None where it works.

    Args:
        model_type: The architecture's name in transformers.
        adapter: Kind of adapter.
        task: Kind of task.

    Raises:
        ModelError: The architecture is not supported at all.
    """
    architecture = architecture_of(model_type)
    return _task_refusal(architecture, task) or _adapter_refusal(architecture, adapter, task)


def require_supported(model_type: str, adapter: str, task: str) -> Architecture:
    """The architecture, if the combination works.

    Raises:
        ModelError: It does not; says why, and what to use instead.
    """
    found = refusal(model_type, adapter, task)
    if found is not None:
        reason, instead = found
        raise ModelError(
            f"{task} with {adapter!r} on {model_type!r} is not supported: {reason}",
            hint=f"Use {instead}.",
        )
    return architecture_of(model_type)


def _task_refusal(architecture: Architecture, task: str) -> tuple[str, str] | None:
    towers = architecture.towers
    wanted = TASK_MODALITIES[task]
    if "image" in wanted and "image" not in towers:
        return "it reads no images", "vit, deit, clip or siglip"
    if "text" in wanted and "text" not in towers:
        return "it reads no text", "an encoder such as bert, or clip"
    if wanted == ("image", "text"):
        return None
    if "text" in wanted and len(towers) > 1:
        return (
            "it gives a text one vector, made to be compared with images",
            "an encoder such as bert or roberta",
        )
    if task == "causal-lm" and not architecture.causal:
        return "it sees the words that follow", "gpt2, llama, mistral or qwen2"
    return None


def _adapter_refusal(architecture: Architecture, adapter: str, task: str) -> tuple[str, str] | None:
    if adapter in PROMPT_KINDS and (
        len(architecture.towers) > 1 or "text" not in architecture.towers
    ):
        return "virtual tokens are put in front of the text of a text model", "lora or ia3"
    if adapter == "prefix" and not architecture.prefixes:
        return "its attention takes no keys from elsewhere", "prompt"
    if adapter == "bitfit" and not architecture.biases:
        return "it has no biases to train", "ia3 or lora"
    if adapter in {"norms", "full"} and not architecture.norms:
        return "its normalisation layers have no per-record gradients", "lora or ia3"
    if adapter == "head" and task == "causal-lm":
        return "a language model has no head of its own to train", "ffa-lora or norms"
    return None
