"""Choices that only people can make for a new federation, by kind of task, as `init` asks.

Nothing of it is read off private data: which labels occur, and how many people there are, is itself
private.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Choice:
    """Something that settings cannot do without and no program can know.

    Attributes:
        option: The option of `init` that says it, with underscores.
        key: Where it stands in the settings, `section.key`.
        asks: The question.
        many: Whether it is a list.
    """

    option: str
    key: str
    asks: str
    many: bool = False

    @property
    def flag(self) -> str:
        """The option as it is typed."""
        return f"--{self.option.replace('_', '-')}"

    def read(self, given: str) -> str | list[str]:
        """Reads what was typed into the settings' form; a list stands with commas."""
        if not self.many:
            return given.strip()
        return [each.strip() for each in given.split(",") if each.strip()]


_TEXT = Choice("text_column", "task.text_columns", "Column with the text", many=True)
_CAPTION = Choice("text_column", "task.text_column", "Column with the text")
_LABEL = Choice("label_column", "task.label_column", "Column with the label")
_LABELS = Choice("labels", "task.labels", "All labels, in order, with commas", many=True)
_IMAGE = Choice("image_column", "task.image_column", "Column with the picture's path")

_OF_TASK: Final[Mapping[str, tuple[Choice, ...]]] = MappingProxyType(
    {
        "text-classification": (_TEXT, _LABEL, _LABELS),
        "multi-label-classification": (_TEXT, _LABEL, _LABELS),
        "token-classification": (
            Choice("tokens_column", "task.tokens_column", "Column with the lists of words"),
            Choice("tags_column", "task.tags_column", "Column with the lists of tags"),
            Choice("entities", "task.entities", "All types of entity, with commas", many=True),
        ),
        "causal-lm": (
            Choice("prompt_column", "task.prompt_column", "Column with the prompt"),
            Choice("response_column", "task.response_column", "Column with the response"),
        ),
        "preference": (
            Choice("prompt_column", "task.prompt_column", "Column with the prompt"),
            Choice("chosen_column", "task.chosen_column", "Column with the chosen answer"),
            Choice("rejected_column", "task.rejected_column", "Column with the rejected answer"),
        ),
        "image-classification": (_IMAGE, _LABEL, _LABELS),
        "image-text": (_IMAGE, _CAPTION),
        "image-text-classification": (_IMAGE, _CAPTION, _LABEL, _LABELS),
    }
)
UNIT: Final = Choice("unit", "task.unit", "Column that identifies a person, or record")
POPULATION: Final = Choice(
    "population", "sites.population", "Units at the largest site, declared and rounded"
)
EPSILON: Final = Choice("epsilon", "privacy.epsilon", "Epsilon that a whole run may cost each site")


def choices_of(task: str) -> tuple[Choice, ...]:
    """Lists the choices for this kind of task; none where it has no template."""
    own = _OF_TASK.get(task)
    return () if own is None else (*own, UNIT, POPULATION, EPSILON)


def still_open(task: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of the settings that nobody has chosen a value for."""
    return tuple(each.key for each in choices_of(task) if each.key not in values)
