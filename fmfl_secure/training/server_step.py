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

from aggregation import Quantization, RoundPlan, dequantize
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.training.server_optimizers import STEP_OPTIMIZERS, ServerOptimizer
from fmfl_secure.vectors.adapter import Adapter
from fmfl_secure.vectors.layout import FlatLayout
from fmfl_secure.vectors.ranks import rank_mask


@dataclass(frozen=True, slots=True)
class ServerStep:
    """The public rule of a run that takes one adapter to the next.

    Attributes:
        config: The federation's settings.
    """

    config: FederationConfig

    @property
    def optimizer(self) -> ServerOptimizer:
        """The optimizer that the settings name.

        Where sites release gradients, `training.optimizer` runs here instead of at them.
        """
        training = self.config.training
        if self.config.steps_at_server:
            return STEP_OPTIMIZERS.get(training.optimizer).at_server
        return ServerOptimizer.named(training.server_optimizer)

    def after(
        self,
        plan: RoundPlan,
        layout: FlatLayout,
        adapter: bytes,
        total: NDArray[np.int64],
        cohort: Sequence[str],
    ) -> bytes:
        """The adapter after a release: the one before it, where the round asked something.

        Args:
            plan: The round's plan.
            layout: Of what the round uploads.
            adapter: What the round started from.
            total: Released sum, int64, shape (d,).
            cohort: Names of the sites in the sum.

        Raises:
            ModelError: The adapter is not one of this layout, or would not be finite.
        """
        if self.config.turn(plan.round).asked is not None:
            return adapter
        return self.apply(layout, plan.quantization, adapter, total, cohort)

    def apply(
        self,
        layout: FlatLayout,
        quantization: Quantization,
        adapter: bytes,
        total: NDArray[np.int64],
        cohort: Sequence[str],
    ) -> bytes:
        """The adapter after a release: the same arithmetic at the coordinator and at every site.

        Args:
            layout: Of what the round trains.
            quantization: The round's grid.
            adapter: What the round started from.
            total: Released sum, int64, shape (d,).
            cohort: Names of the sites in the sum; a value's mean is taken over those that train it.

        Raises:
            ModelError: The adapter is not one of this layout, or would not be finite.
        """
        before = Adapter.read(adapter)
        # Rounds may differ in what they train; each kind keeps moments of its own.
        prefix = layout.digest.removeprefix("sha256:")[:16] + "."
        moments = before.moments
        own = {n.removeprefix(prefix): v for n, v in moments.items() if n.startswith(prefix)}
        step, own = self.optimizer.step(
            self._direction(layout, quantization, total, cohort),
            own or self.optimizer.start(layout.size),
            self._rate(layout),
        )
        kept = {**moments, **{prefix + name: vector for name, vector in own.items()}}
        return before.replaced(layout, before.flatten(layout) + step, kept).encode()

    def _direction(
        self,
        layout: FlatLayout,
        quantization: Quantization,
        total: NDArray[np.int64],
        cohort: Sequence[str],
    ) -> NDArray[np.float64]:
        """The weighted mean update; or minus the mean gradient, over the declared populations."""
        summed = set(cohort)
        members = [site for site in self.config.sites if site.name in summed]
        rank_of, weight_of = self.config.ranks(), self.config.weights()
        ranks = {rank_of[site.name] for site in members}
        masks = {rank: rank_mask(layout, rank) for rank in ranks}
        # Of one rank, what is added up for one value is so for all: the same sum, in its order.
        weights = np.zeros(layout.size if len(ranks) > 1 else 1)
        for site in members:
            weight = (
                self.config.privacy.sample_rate * self.config.trained_units(site)
                if self.config.steps_at_server
                else weight_of[site.name]
            )
            weights += weight * masks[rank_of[site.name]] if len(ranks) > 1 else weight
        if len(ranks) == 1:
            weights = weights * masks[ranks.pop()]
        # Where no site of the cohort trains a value, what was summed is zero, or noise alone.
        trained = weights > 0.0
        direction = dequantize(total, quantization, 1.0) / np.where(trained, weights, 1.0)
        direction[~trained] = 0.0
        return -direction if self.config.steps_at_server else direction

    def _rate(self, layout: FlatLayout) -> float | NDArray[np.float64]:
        training = self.config.training
        if not self.config.steps_at_server:
            return training.server_learning_rate
        rates = [
            training.head_learning_rate if slot.name.startswith("head.") else training.learning_rate
            for slot in layout.slots
        ]
        return np.repeat(rates, [slot.size for slot in layout.slots])
