"""Optimizers that coordinator and sites both run on a released direction.

Pure float64 arithmetic on flat vectors, element by element in a fixed order, so that everyone who
verified the same sum computes the same adapter bit for bit. All of it is post-processing of
released sums and costs no privacy. FedAvg, FedAvgM, FedAdam and FedYogi are those of Reddi et al.
2021 (arXiv 2003.00295, Algorithm 2), Adam with the bias correction of Kingma and Ba 2015.

`training.server_step` makes a `ServerOptimizer` from settings and calls `step` on each released
mean. `training.local_round` takes `STEP_OPTIMIZERS` where sites step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fmfl_secure.errors import RunError
from fmfl_secure.registry import Registry
from fmfl_secure.settings.types import OptimizerName, ServerOptimizerName

Vector = NDArray[np.float64]
Moments = Mapping[str, Vector]
"""An optimizer's memory by name; every vector has shape (d,), and `steps` has shape (1,)."""

_FIRST, _SECOND, _STEPS = "first_moment", "second_moment", "steps"


class Rule(ABC):
    """How a direction becomes a step.

    Attributes:
        name: Its name in settings.
        memory: Names of the moments that it keeps.
        decays: Its first and second decay and its stabiliser, where settings name the rule.
    """

    name: ClassVar[ServerOptimizerName]
    memory: ClassVar[frozenset[str]] = frozenset()
    decays: ClassVar[tuple[float, float, float]] = (0.9, 0.999, 1e-8)

    @abstractmethod
    def step(
        self, decays: ServerOptimizer, direction: Vector, moments: Moments, rate: float | Vector
    ) -> tuple[Vector, dict[str, Vector]]:
        """The step, shape (d,), and the moments after it, which were checked to be its own."""


class Average(Rule):
    """FedAvg: adds the mean update, times the rate."""

    name = "average"

    @override
    def step(
        self,
        decays: ServerOptimizer,
        direction: Vector,
        moments: Moments,
        rate: float | Vector,
    ) -> tuple[Vector, dict[str, Vector]]:
        return rate * direction, {}


class Momentum(Rule):
    """FedAvgM: adds a running sum of mean updates."""

    name = "momentum"
    memory = frozenset({_FIRST})

    @override
    def step(
        self, decays: ServerOptimizer, direction: Vector, moments: Moments, rate: float | Vector
    ) -> tuple[Vector, dict[str, Vector]]:
        first = decays.first_decay * moments[_FIRST] + direction
        return rate * first, {_FIRST: first}


class Adaptive(Rule):
    """Base of FedAdam and FedYogi: a first moment over the root of a second."""

    memory = frozenset({_FIRST, _SECOND, _STEPS})
    decays = (0.9, 0.99, 1e-3)  # Reddi et al. 2021, section 5.1: served all their tasks

    @abstractmethod
    def second(self, decay: float, before: Vector, squared: Vector) -> Vector:
        """The second moment after squared directions."""

    @override
    def step(
        self, decays: ServerOptimizer, direction: Vector, moments: Moments, rate: float | Vector
    ) -> tuple[Vector, dict[str, Vector]]:
        steps = moments[_STEPS] + 1.0
        first = decays.first_decay * moments[_FIRST] + (1.0 - decays.first_decay) * direction
        second = self.second(decays.second_decay, moments[_SECOND], direction * direction)
        first_hat = first / (1.0 - decays.first_decay ** steps[0])
        second_hat = second / (1.0 - decays.second_decay ** steps[0])
        step = rate * first_hat / (np.sqrt(second_hat) + decays.stabiliser)
        return step, {_FIRST: first, _SECOND: second, _STEPS: steps}


class Adam(Adaptive):
    """FedAdam: the second moment decays."""

    name = "adam"

    @override
    def second(self, decay: float, before: Vector, squared: Vector) -> Vector:
        return decay * before + (1.0 - decay) * squared


class Yogi(Adaptive):
    """FedYogi: the second moment moves by what is new in it, whatever its size."""

    name = "yogi"

    @override
    def second(self, decay: float, before: Vector, squared: Vector) -> Vector:
        return before - (1.0 - decay) * squared * np.sign(before - squared)


SERVER_OPTIMIZERS: Final[Registry[Rule]] = Registry(
    "server optimizer", (Average(), Momentum(), Adam(), Yogi())
)


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

    @classmethod
    def named(cls, name: ServerOptimizerName) -> ServerOptimizer:
        """The one that settings name, with what its rule has for the rest.

        Raises:
            UnknownKind: There is no such rule.
        """
        return cls(name, *SERVER_OPTIMIZERS.get(name).decays)

    def start(self, size: int) -> dict[str, Vector]:
        """Moments before the first step, for vectors of shape (size,)."""
        return {
            name: np.zeros(1 if name == _STEPS else size, dtype=np.float64)
            for name in sorted(SERVER_OPTIMIZERS.get(self.name).memory)
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
        rule = SERVER_OPTIMIZERS.get(self.name)
        if moments.keys() != rule.memory or any(
            vector.shape != ((1,) if name == _STEPS else direction.shape)
            for name, vector in moments.items()
        ):
            raise RunError(f"the server optimizer's state is not one of {self.name}'s")
        return rule.step(self, direction, moments, rate)


@dataclass(frozen=True, slots=True)
class StepOptimizer:
    """An optimizer of steps by gradients, at a site or at the server.

    Attributes:
        name: Its name in settings.
        torch_name: Of PyTorch's class, which sites step with.
        at_server: The same rule on released gradients.
    """

    name: OptimizerName
    torch_name: str
    at_server: ServerOptimizer


STEP_OPTIMIZERS: Final[Registry[StepOptimizer]] = Registry(
    "optimizer",
    (
        StepOptimizer("adam", "Adam", ServerOptimizer("adam")),
        StepOptimizer("sgd", "SGD", ServerOptimizer("average")),
    ),
)
