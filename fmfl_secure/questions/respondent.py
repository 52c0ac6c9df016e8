"""What a site answers a question from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.tasks import Task, TaskData

T = TypeVar("T")


@dataclass(frozen=True, slots=True, repr=False)
class Respondent:
    """What a site answers from. Private: has no useful repr.

    Attributes:
        site: Its name.
        config: The federation's settings.
        task: The task.
        data: The site's units and their records.
        model: A model of the task, holding the adapter that is asked about; left as it is.
    """

    site: str
    config: FederationConfig
    task: Task
    data: TaskData
    model: nn.Module
    _computed: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "Respondent(<private>)"

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """What several questions of one answer need, computed by the first that asks.

        Args:
            name: What it is.
            compute: Makes it.
        """
        if name not in self._computed:
            self._computed[name] = compute()
        found: T = self._computed[name]
        return found
