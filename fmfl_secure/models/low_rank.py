"""The LoRA family: B A added to linear layers (arXiv 2106.09685), through PEFT.

`lora` trains and sends A and B. `ffa-lora` freezes A at a public random value and trains B: half
the upload, and the average of the B's is exactly the average of the products (Sun et al. 2024,
arXiv 2403.12313), which averaging A and B apart is not. `rolora` trains B in odd rounds and A in
even ones, so that every round averages exactly and both are learned (arXiv 2502.01755).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import peft
from torch import nn
from transformers.pytorch_utils import Conv1D

from fmfl_secure.errors import ModelError

LINEAR = (nn.Linear, Conv1D)  # GPT-2's linear layers are Conv1D, of transposed weights


def attach(
    encoder: nn.Module,
    *,
    base_name: str,
    layers: Sequence[nn.Module],
    wanted: Sequence[str],
    kind: str,
    rank: int,
    alpha: float,
    rank_stabilised: bool,
) -> nn.Module:
    """Put LoRA on the linear layers of these last names inside these layers.

    Raises:
        ModelError: There is none.
    """
    chosen = {
        id(module)
        for layer in layers
        for name, module in layer.named_modules()
        if isinstance(module, LINEAR) and name.rsplit(".", 1)[-1] in wanted
    }
    targets = [name for name, module in encoder.named_modules() if id(module) in chosen]
    if not targets:
        raise ModelError(
            f"no linear layer of {type(encoder).__name__} is named {', '.join(wanted)}",
            hint="Set adapter.target_modules to names of linear layers of this model.",
        )
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=targets,
        use_rslora=rank_stabilised,
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in encoder.modules()),
        task_type=peft_task(encoder),
    )
    with peft_warnings_silenced():
        adapted: nn.Module = peft.get_peft_model(encoder, config)
    config.base_model_name_or_path = base_name  # PEFT writes this machine's path otherwise
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.requires_grad = is_trained(kind, name, round_number=1)
    return adapted


def is_trained(kind: str, name: str, *, round_number: int) -> bool:
    """Whether a round of this kind trains, and sends, the A or B of this name."""
    if kind == "lora":
        return True
    trains_b = kind == "ffa-lora" or round_number % 2 == 1
    return ("lora_B" in name) == trains_b


def peft_task(encoder: nn.Module) -> str:
    """What PEFT calls a bare encoder, or one with the head that models language."""
    return "CAUSAL_LM" if hasattr(encoder, "lm_head") else "FEATURE_EXTRACTION"


@contextlib.contextmanager
def peft_warnings_silenced() -> Iterator[None]:
    """Without what PEFT says of itself and of settings that nobody here chose."""
    # PEFT 0.21 reads an attribute that Transformers 5.23 deprecates; nothing a user could mend.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", message="The PEFT config's `base_model_name_or_path`")
        yield
