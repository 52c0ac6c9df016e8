"""What becomes of a released direction: the optimizers that coordinator and sites both run.

Pure float64 arithmetic on flat vectors, element by element in a fixed order, so that everyone who
verified the same sum computes the same adapter bit for bit. All of it is post-processing of
released sums and costs no privacy. FedAvg, FedAvgM, FedAdam and FedYogi are those of Reddi et al.
2021 (arXiv 2003.00295, Algorithm 2), Adam with the bias correction of Kingma and Ba 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.errors import RunError
from fmfl_secure.settings.types import ServerOptimizerName

Vector = NDArray[np.float64]
Moments = Mapping[str, Vector]
"""An optimizer's memory by name; every vector has shape (d,), and `steps` has shape (1,)."""

_FIRST, _SECOND, _STEPS = "first_moment", "second_moment", "steps"
_NEEDS = {
    "average": frozenset[str](),
    "momentum": frozenset({_FIRST}),
    "adam": frozenset({_FIRST, _SECOND, _STEPS}),
    "yogi": frozenset({_FIRST, _SECOND, _STEPS}),
}


@dataclass(frozen=True, slots=True)
class ServerOptimizer:
    """One rule for turning a direction into a step.

    Attributes:
        name: `average` steps by rate x direction; `momentum` by rate x a decaying sum of
            directions; `adam` and `yogi` by rate x first moment over the root of the second.
        first_decay: Of the first moment (beta 1), 0 to 1.
        second_decay: Of the second moment (beta 2), 0 to 1.
        stabiliser: Added to the root of the second moment, > 0 for `adam` and `yogi`.
    """

    name: ServerOptimizerName = "average"
    first_decay: float = 0.9
    second_decay: float = 0.999
    stabiliser: float = 1e-8

    def start(self, size: int) -> dict[str, Vector]:
        """Moments before the first step, for vectors of shape (size,)."""
        return {
            name: np.zeros(1 if name == _STEPS else size, dtype=np.float64)
            for name in sorted(_NEEDS[self.name])
        }

    def step(
        self, direction: Vector, moments: Moments, rate: float | Vector
    ) -> tuple[Vector, dict[str, Vector]]:
        """The step to add to the parameters, and the moments after it.

        Args:
            direction: Where to go, float64, shape (d,): the mean update, or minus the gradient.
            moments: From `start` or the step before; not changed.
            rate: Learning rate, one for all or one a coordinate.

        Raises:
            RunError: The moments are not this optimizer's, or not of this size.
        """
        if moments.keys() != _NEEDS[self.name] or any(
            vector.shape != ((1,) if name == _STEPS else direction.shape)
            for name, vector in moments.items()
        ):
            raise RunError(f"the server optimizer's state is not one of {self.name}'s")
        if self.name == "average":
            return rate * direction, {}
        if self.name == "momentum":
            first = self.first_decay * moments[_FIRST] + direction
            return rate * first, {_FIRST: first}
        steps = moments[_STEPS] + 1.0
        first = self.first_decay * moments[_FIRST] + (1.0 - self.first_decay) * direction
        squared = direction * direction
        second = moments[_SECOND]
        if self.name == "adam":
            second = self.second_decay * second + (1.0 - self.second_decay) * squared
        else:
            second = second - (1.0 - self.second_decay) * squared * np.sign(second - squared)
        first_hat = first / (1.0 - self.first_decay ** steps[0])
        second_hat = second / (1.0 - self.second_decay ** steps[0])
        step = rate * first_hat / (np.sqrt(second_hat) + self.stabiliser)
        return step, {_FIRST: first, _SECOND: second, _STEPS: steps}
