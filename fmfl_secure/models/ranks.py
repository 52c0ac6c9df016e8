"""Ranks that differ by site, in one common layout with public zeros.

A site of rank r trains the first r rows of every A and columns of every B; the rest of its update
is zero, which everyone knows (HetLoRA, Cho et al. 2024, arXiv 2401.06432, with a mask that is
public instead of pruned by data). The mean of a value is taken over the sites that train it. The
scale, alpha over the common rank, is the same for all, so that a truncated adapter means the same
at every site.
"""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def truncate(model: nn.Module, rank: int) -> None:
    """Set what a site of this rank does not have to zero, in A and in B, trained or not.

    With a row of A and the column of B both at zero, neither gets a gradient.
    """
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter[rank:] = 0.0
        elif "lora_B" in name:
            parameter[:, rank:] = 0.0
