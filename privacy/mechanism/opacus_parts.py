"""The parts of Opacus that the private step uses, and the root logger as it was before.

Opacus gives the root logger a handler when it is imported, in whoever's process: every warning of
every package would then be printed in its form. `record_gradients` and `training` import from here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers = [*root.handlers]
    try:
        yield
    finally:
        for added in {*root.handlers} - {*handlers}:
            root.removeHandler(added)


with _logging_as_it_was():
    from opacus.grad_sample import GradSampleHooks
    from opacus.grad_sample.functorch import prepare_layer
    from opacus.optimizers import DPOptimizer

__all__ = ["DPOptimizer", "GradSampleHooks", "prepare_layer"]
