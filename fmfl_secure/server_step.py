"""From a released sum to the next adapter: what coordinator and sites both compute.

Each site computes it too, from the sum it verified itself, and refuses a next plan for any other
adapter. What a round starts from is one file of tensors: the adapter and, beside it, the memory of
the server optimizer; one digest names both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from aggregation import RoundPlan, dequantize
from fmfl_secure.config import FederationConfig
from fmfl_secure.models import Layout
from fmfl_secure.models.adapters import (
    adapter_bytes,
    load_adapter_bytes,
    load_moments,
    set_adapter_tensors,
)
from fmfl_secure.server_optimizers import ServerOptimizer


@dataclass(frozen=True, slots=True)
class ServerStep:
    """The public rule of a run that takes one adapter to the next.

    Attributes:
        config: The federation's settings.
        layout: Of the trained parameters.
    """

    config: FederationConfig
    layout: Layout

    @property
    def optimizer(self) -> ServerOptimizer:
        """What the settings ask for.

        With distributed noise, what is released is a gradient, and `training.optimizer` runs
        here instead of at the sites.
        """
        training = self.config.training
        if self.config.privacy.mode == "distributed":
            return ServerOptimizer("adam" if training.optimizer == "adam" else "average")
        if training.server_optimizer in {"adam", "yogi"}:
            # Reddi et al. 2021, section 5.1: the values that served all their tasks.
            return ServerOptimizer(training.server_optimizer, 0.9, 0.99, 1e-3)
        return ServerOptimizer(training.server_optimizer)

    def start(self, model: nn.Module) -> bytes:
        """What the first round starts from: the model's adapter, and moments of zero."""
        return adapter_bytes(model, self.optimizer.start(self.layout.size))

    def apply(
        self,
        model: nn.Module,
        plan: RoundPlan,
        adapter: bytes,
        total: NDArray[np.int64],
        cohort: Sequence[str],
    ) -> bytes:
        """The adapter after a release: the same arithmetic at the coordinator and at every site.

        Args:
            model: A model to compute with; left with the new adapter.
            plan: The round's plan.
            adapter: What the round started from.
            total: Released sum, int64, shape (d,).
            cohort: Names of the sites in the sum.
        """
        set_adapter_tensors(model, load_adapter_bytes(adapter))
        step, moments = self.optimizer.step(
            self._direction(plan, total, cohort), load_moments(adapter), self._rate()
        )
        self.layout.unflatten_into(model, self.layout.flatten(model) + step)
        return adapter_bytes(model, moments)

    def _direction(
        self, plan: RoundPlan, total: NDArray[np.int64], cohort: Sequence[str]
    ) -> NDArray[np.float64]:
        if self.config.privacy.mode != "distributed":
            return dequantize(total, plan.quantization, float(len(cohort)))  # equal weights
        members = set(cohort)
        population = sum(s.population for s in self.config.sites if s.name in members)
        units = self.config.privacy.sample_rate * population
        return -dequantize(total, plan.quantization, units)

    def _rate(self) -> float | NDArray[np.float64]:
        training = self.config.training
        if self.config.privacy.mode != "distributed":
            return training.server_learning_rate
        sizes = [slot.size for slot in self.layout.slots]
        rates = [
            training.head_learning_rate if slot.name.startswith("head.") else training.learning_rate
            for slot in self.layout.slots
        ]
        return np.repeat(rates, sizes)
