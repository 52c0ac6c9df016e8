"""From settings to the task they describe."""

from __future__ import annotations

from fmfl_secure.models.adapters import AdapterSpec
from fmfl_secure.models.base import BaseModel
from fmfl_secure.task_settings import (
    TaskSection,
    TextClassificationSection,
)
from fmfl_secure.tasks.base import Task
from fmfl_secure.tasks.text_classification import TextClassification


def make_task(
    settings: TaskSection,
    *,
    base: BaseModel,
    adapter: AdapterSpec,
    max_length: int,
    cache_bytes: int,
) -> Task:
    """The task of these settings.

    Args:
        settings: The `[task]` section, whose kind decides.
        base: The base model.
        adapter: Which adapter, where.
        max_length: Tokens kept of a text.
        cache_bytes: Memory a data set may use to keep outputs of frozen layers.
    """
    match settings:
        case TextClassificationSection():
            return TextClassification(base, adapter, settings, max_length, cache_bytes)
        case _:
            raise NotImplementedError(settings.kind)
