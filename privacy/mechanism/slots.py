"""From gradients by record to gradients by unit, when a unit's records may span several passes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from privacy.mechanism.constant_work import DUMMY, Pass


def sum_by_owner(gradients: list[torch.Tensor], owners: NDArray[np.int64]) -> list[torch.Tensor]:
    """Rows of the same owner added up; owners are ascending. Shape (b, ...) to (owners, ...)."""
    _, local = np.unique(owners, return_inverse=True)
    count = int(local[-1]) + 1
    if count == len(owners):  # every record is its own unit
        return gradients
    index = torch.from_numpy(local)
    return [
        g.new_zeros((count, *g.shape[1:])).index_add_(0, index.to(g.device), g) for g in gradients
    ]


def sum_in_slots(gradients: list[torch.Tensor], owners: NDArray[np.int64]) -> list[torch.Tensor]:
    """Rows of the same owner added up, always in as many slots as there are rows.

    Args:
        gradients: Of each parameter, shape (rows, ...).
        owners: Of each row; a unit's rows follow each other. `DUMMY` belongs to nobody.

    Returns:
        Shape (rows, ...): units in the order of their first rows, then zeros.
    """
    slots = np.full(len(owners), len(owners), dtype=np.int64)  # the last is for dummies
    owned = owners != DUMMY
    begins = np.diff(owners[owned], prepend=DUMMY) != 0
    slots[owned] = np.cumsum(begins) - 1
    index = torch.from_numpy(slots)
    return [
        g.new_zeros((len(owners) + 1, *g.shape[1:])).index_add_(0, index.to(g.device), g)[:-1]
        for g in gradients
    ]


def hand_on(
    gradients: list[torch.Tensor],
    unfinished: list[torch.Tensor],
    owners: NDArray[np.int64],
    following: Pass | None,
) -> tuple[list[torch.Tensor], int]:
    """Take over what a unit began in the pass before, and set apart what the next one ends.

    The same operations whether or not there is such a unit.

    Args:
        gradients: By slot, as `sum_in_slots` gives them; changed in place.
        unfinished: What the pass before left, shape (...), zero if nothing.
        owners: Of the pass's rows.
        following: The next pass.

    Returns:
        What is left for the next pass, and how many units ended in this one.
    """
    owned = owners[owners != DUMMY]
    units = int(np.count_nonzero(np.diff(owned, prepend=DUMMY)))
    goes_on = following is not None and units > 0 and int(following.owners[0]) == int(owned[-1])
    last, left = max(0, units - 1), []
    for gradient, earlier in zip(gradients, unfinished, strict=True):
        gradient[0] += earlier
        kept = torch.tensor(goes_on, device=gradient.device)
        # Chosen and not multiplied: what is not finite times zero is no zero.
        nothing = torch.zeros_like(earlier)
        left.append(torch.where(kept, gradient[last], nothing))
        gradient[last] = torch.where(kept, nothing, gradient[last])
    return left, units - goes_on
