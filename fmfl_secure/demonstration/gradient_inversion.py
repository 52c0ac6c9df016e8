"""Gradient inversion of a linear layer: the input, read off the gradient by one division.

For a layer y = W x + b and a loss L on one record, dL/dW = (dL/dy) x^T and dL/db = dL/dy, so every
row of dL/dW is x times the matching entry of dL/db (Phong et al. 2018, IEEE TIFS 13(5), section 3).
An update of one step is the gradient times a constant, which the division takes away, as it does
the factor by which the gradient was clipped.

Where noise spoils the division, the attacker can do better: the model is public, so for each label
it can guess dL/dy, and project all rows on the guess. That averages noise away over the rows, and
is the least-squares estimate of x.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fmfl_secure.demonstration.pictures import SIDE, SIZES, Picture

# As Pearson's correlation: from here on a shape shows. What the attack gets where it works is
# above 0.8, and noise alone stays below 0.2 but once in 10^8 pictures.
READABLE = 0.5


def invert(update: npt.NDArray[np.float64]) -> list[Picture]:
    """Pictures that an update may have been made from: for each row, by division and projection.

    Args:
        update: Weight, row by row, then bias; shape (8200,), any scale.

    Returns:
        Candidates of shape (SIDE, SIDE), as the attack gives them: nothing is clipped.
    """
    weight = update[: SIZES[0]].reshape(SIZES[1], -1)
    bias = update[SIZES[0] :]
    divided = [row / (entry or 1.0) for row, entry in zip(weight, bias, strict=True)]
    guesses = np.eye(SIZES[1]) - 1 / SIZES[1]  # minus dL/dy at a model that knows nothing yet
    projected = guesses @ weight / np.square(guesses).sum(axis=1, keepdims=True)
    return [candidate.reshape(SIDE, SIDE) for candidate in (*divided, *projected)]


def best(candidates: list[Picture], truth: Picture) -> tuple[Picture, float]:
    """The candidate most like the private picture, and how like it is.

    An attacker does not have the truth to choose by. It looks at all of them.
    """
    return max(((c, likeness(c, truth)) for c in candidates), key=lambda pair: pair[1])


def likeness(picture: Picture, truth: Picture) -> float:
    """Pearson's correlation of two pictures, 0 where one is blank: what an eye goes by."""
    a, b = (p.reshape(-1) - p.mean() for p in (picture, truth))
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else 0.0
