"""From a released sum to the next adapter: what coordinator and sites both compute.

Each site computes it too, from the sum it verified itself, and refuses a next plan for any other
adapter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn

from aggregation import RoundPlan, dequantize
from fmfl_secure.models import Layout
from fmfl_secure.models.adapters import adapter_bytes, load_adapter_bytes, set_adapter_tensors
from fmfl_secure.models.ranks import contributors


def apply_release(
    model: nn.Module,
    layout: Layout,
    plan: RoundPlan,
    adapter: bytes,
    total: NDArray[np.int64],
    ranks: Sequence[int],
) -> bytes:
    """The adapter after a release: the same arithmetic at the coordinator and at every site.

    Args:
        model: A model to compute with; left with the new adapter.
        layout: Its layout.
        plan: The round's plan.
        adapter: The adapter that the round started from.
        total: Released sum, int64, shape (d,).
        ranks: Rank of each site in the sum; their weights are equal. A value's mean is taken over
            the sites that train it.
    """
    set_adapter_tensors(model, load_adapter_bytes(adapter))
    sites = float(len(ranks))
    # Where no site of the cohort trains a value, all that was summed is zero.
    mean = dequantize(total, plan.quantization, sites)
    mean *= sites / np.maximum(contributors(layout, ranks), 1.0)
    layout.unflatten_into(model, layout.flatten(model) + mean)
    return adapter_bytes(model)
