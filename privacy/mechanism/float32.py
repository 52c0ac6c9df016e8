"""Arithmetic of float32 in float32, whatever the process around asked PyTorch for.

PyTorch computes products and convolutions in fewer bits where it may: convolutions on CUDA devices
by default, and everything after `torch.set_float32_matmul_precision("medium")`, on processors too.
How much is lost then depends on the shape of a batch, and so on who else is in it: one unit would
move the gradients of others (`docs/models.md` has the figures for bfloat16).

`mechanism.training.ClippedSum` is inside wherever gradients are taken, and
`fmfl_secure.training.constant_work` where outputs of frozen layers are kept for it.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    try:
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision
