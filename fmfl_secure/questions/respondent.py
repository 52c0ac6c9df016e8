"""A respondent: data, task and model from which a site answers questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from fmfl_secure.models.adapters import load_adapter_bytes, set_adapter_tensors
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.tasks import Task, TaskData

T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class Respondent:
    """Everything that a site answers from. Private: has no useful repr.

    Attributes:
        site: Its name.
        config: The federation's settings.
        task: The task.
        data: The site's units and their records.
        model: A model of the task, holding the adapter that is asked about.
        candidates: Adapters to choose among, as safetensors; the model's own in place of each
            where there are none, as for records that are made up.
    """

    site: str
    config: FederationConfig
    task: Task
    data: TaskData
    model: nn.Module
    candidates: tuple[bytes, ...] = ()
    _computed: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "Respondent(<private>)"

    def hold(self, candidate: int) -> None:
        """Have the model hold one of the candidates.

        Raises:
            ModelError: It is not an adapter of this model.
        """
        if self.candidates:
            set_adapter_tensors(self.model, load_adapter_bytes(self.candidates[candidate]))

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Computes what several questions of one answer share, by the first that asks.

        Args:
            name: What it is.
            compute: Makes it.
        """
        if name not in self._computed:
            self._computed[name] = compute()
        found: T = self._computed[name]
        return found
