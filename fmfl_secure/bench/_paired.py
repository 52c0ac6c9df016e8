"""Paired measurement: two ways of doing the same work, one after the other, in CPU time.

A machine's speed drifts, most of all one that others use too. Two runs next to each other see
nearly the same machine, so each pair gives a ratio, and the median of the ratios stands. On one
thread, CPU time counts work and no waiting.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch


def cpu_seconds(action: Callable[[], object]) -> float:
    """CPU time of this process that the action took; garbage of earlier ones is not in it."""
    gc.collect()
    start = time.process_time()
    action()
    return time.process_time() - start


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch use a single thread inside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the median and the quartiles of `values`; of one value, itself."""
    if len(values) == 1:
        return dict.fromkeys(("median", "quartile_1", "quartile_3"), values[0])
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "quartile_1": first, "quartile_3": third}
