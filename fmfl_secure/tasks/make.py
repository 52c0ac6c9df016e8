"""All kinds of task, one entry each, and the one that settings describe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from fmfl_secure.extensions import TASKS_GROUP, load_extension
from fmfl_secure.models.adapters import AdapterSpec
from fmfl_secure.models.architectures import TaskNeeds
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.computation import EXACT, Computation
from fmfl_secure.registry import Registry
from fmfl_secure.settings.tasks import (
    CausalLMSection,
    ExtensionSection,
    ImageClassificationSection,
    ImageTextClassificationSection,
    ImageTextSection,
    MultiLabelClassificationSection,
    PreferenceSection,
    TaskSection,
    TextClassificationSection,
    TokenClassificationSection,
)
from fmfl_secure.tasks.adapter_task import AdapterTask, InitialAdapter
from fmfl_secure.tasks.base import Task
from fmfl_secure.tasks.causal_lm import CausalLM
from fmfl_secure.tasks.image_classification import ImageClassification
from fmfl_secure.tasks.image_text import ImageText
from fmfl_secure.tasks.image_text_classification import ImageTextClassification
from fmfl_secure.tasks.multi_label_classification import MultiLabelClassification
from fmfl_secure.tasks.preference import PreferenceTask
from fmfl_secure.tasks.text_classification import TextClassification
from fmfl_secure.tasks.token_classification import TokenClassification


@dataclass(frozen=True, slots=True)
class TaskKind:
    """One kind of task.

    Attributes:
        section: What settings say of it. Another package's is a subclass of one of those here,
            whose tag is its name.
        task: What it does.
    """

    section: type[TaskSection]
    task: type[AdapterTask[Any]]

    @property
    def name(self) -> str:
        """The name that settings use."""
        return self.needs.name

    @property
    def needs(self) -> TaskNeeds:
        """The demands on base model and adapter."""
        return self.task.needs


TASKS: Final[Registry[TaskKind]] = Registry(
    "kind of task",
    (
        TaskKind(TextClassificationSection, TextClassification),
        TaskKind(MultiLabelClassificationSection, MultiLabelClassification),
        TaskKind(TokenClassificationSection, TokenClassification),
        TaskKind(CausalLMSection, CausalLM),
        TaskKind(PreferenceSection, PreferenceTask),
        TaskKind(ImageClassificationSection, ImageClassification),
        TaskKind(ImageTextSection, ImageText),
        TaskKind(ImageTextClassificationSection, ImageTextClassification),
    ),
    outside=lambda name: load_extension(TASKS_GROUP, name, TaskKind),
)


def make_task(
    settings: TaskSection,
    *,
    base: BaseModel,
    adapter: AdapterSpec,
    max_length: int,
    cache_bytes: int,
    computation: Computation = EXACT,
    initial: InitialAdapter | None = None,
) -> Task:
    """The task of these settings.

    Args:
        settings: The `[task]` section, whose kind decides.
        base: The base model.
        adapter: Which adapter, where.
        max_length: Tokens kept of a text.
        cache_bytes: Memory a data set may use to keep outputs of frozen layers.
        computation: How the model is computed.
        initial: The adapter that training starts from; None for a fresh one.

    Raises:
        UnknownKind: There is no such kind of task.
        ConfigError: Another package's does not have these options.
    """
    kind = TASKS.get(settings.kind)
    if isinstance(settings, ExtensionSection):
        settings = settings.read(kind.section)
    return kind.task(base, adapter, settings, max_length, cache_bytes, computation, initial)
