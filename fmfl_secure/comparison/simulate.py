"""All rounds of one arm, in one process and in the clear.

Training, quantisation and the server's step are the product's own. Sums are added up as integers,
which is what secure aggregation releases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import nn

from fmfl_secure.models.adapters import adapter_bytes, load_adapter_bytes, set_adapter_tensors
from fmfl_secure.models.personal import personal_bytes, personal_names, set_personal
from fmfl_secure.planning.plans import quantization, site_plan
from fmfl_secure.planning.task import largest_layout
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.tasks import Task, TaskData
from fmfl_secure.training.local_round import train_locally
from fmfl_secure.training.server_step import ServerStep

OnRound = Callable[[int], None]
"""Told how many rounds are over."""


@dataclass(slots=True)
class Simulated:
    """The end of a simulated federation: its model, and the parts that sites kept.

    Attributes:
        model: The model with the final adapter.
        parts: Names of the parts that every site keeps for itself.
        own: Their values, by site.
    """

    model: nn.Module
    parts: tuple[str, ...] = ()
    own: dict[str, bytes] = field(default_factory=dict)

    def at(self, site: str) -> nn.Module:
        """The model as a site has it: with its own parts, where it keeps any."""
        if site in self.own:
            set_personal(self.model, personal_names(self.model, self.parts), self.own[site])
        return self.model


def simulate(
    config: FederationConfig,
    task: Task,
    data: Mapping[str, TaskData],
    *,
    on_round: OnRound | None = None,
) -> Simulated:
    """Train a federation of the parties whose data are given.

    Args:
        config: The arm's settings.
        task: The task that they describe.
        data: By party. A party of the settings that is missing here takes no part.
        on_round: Told about progress.

    Returns:
        The final adapter, in its model, and the parts that sites kept.

    Raises:
        PlanError: No noise meets the settings' target.
        PrivacyError: A private step failed its checks.
    """
    model = task.build_model(seed=config.federation.seed)
    size = largest_layout(task, model).size
    parties = [entry for entry in config.sites if entry.name in data]
    plans = {entry.name: site_plan(config, entry, size) for entry in parties}
    adapter, server = adapter_bytes(model), ServerStep(config)
    parts = config.adapter.personal_parts
    own = dict.fromkeys(data, personal_bytes(model, parts)) if parts else {}
    for round_number in range(1, config.federation.rounds + 1):
        layout = task.begin_round(model, round_number)
        grid = quantization(config, layout, size)
        total = np.zeros(layout.size, dtype=np.int64)
        for entry in parties:
            total += train_locally(
                model,
                adapter,
                data[entry.name],
                config=config,
                task=task,
                plan=plans[entry.name],
                layout=layout,
                rank=config.ranks()[entry.name],
                quantization=grid,
                weight=config.weights()[entry.name],
                personal=own.get(entry.name, b""),
            )
            if parts:
                own[entry.name] = personal_bytes(model, parts)
        cohort = [entry.name for entry in parties]
        adapter = server.apply(layout, grid, adapter, total, cohort)
        if on_round is not None:
            on_round(round_number)
    set_adapter_tensors(model, load_adapter_bytes(adapter))
    return Simulated(model, parts, own)
