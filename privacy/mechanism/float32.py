"""Arithmetic of float32 in float32, whatever the process around asked PyTorch for.

PyTorch computes products and convolutions in fewer bits where it may: convolutions on CUDA devices
by default, and everything after `torch.set_float32_matmul_precision("medium")`, on processors too.
How much is lost then depends on the shape of a batch, and so on who else is in it: one unit would
move the gradients of others (`docs/models.md` has the figures for bfloat16).

`mechanism.training.ClippedSum` is inside wherever gradients are taken, and
`fmfl_secure.training.constant_work` where outputs of frozen layers are kept for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def whole_float32() -> Iterator[None]:
    """Products, convolutions and recurrences inside keep all bits of float32."""
    backends: Any = torch.backends
    convolving, processor = backends.cudnn, backends.mkldnn
    kinds = (
        backends.cuda.matmul,
        convolving.conv,
        convolving.rnn,
        processor.matmul,
        processor.conv,
        processor.rnn,
    )
    before = [kind.fp32_precision for kind in kinds]
    # On CUDA devices a product is refused where PyTorch's older switches say otherwise.
    products = _known(torch.get_float32_matmul_precision)
    convolutions = _known(lambda: convolving.allow_tf32)
    try:
        if products is not None:
            torch.set_float32_matmul_precision("highest")
        if convolutions is not None:
            convolving.allow_tf32 = False
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            convolving.allow_tf32 = convolutions
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def _known(switch: Callable[[], Any]) -> Any:
    """What an older switch says; None where the process has set it and the newer ones apart."""
    try:
        return switch()
    except RuntimeError:
        return None
