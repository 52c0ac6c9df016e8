"""From settings to the task they describe."""

from __future__ import annotations

from fmfl_secure.models.adapters import AdapterSpec
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.computation import EXACT, Computation
from fmfl_secure.settings.tasks import (
    CausalLMSection,
    ImageClassificationSection,
    ImageTextClassificationSection,
    ImageTextSection,
    TaskSection,
    TextClassificationSection,
    TokenClassificationSection,
)
from fmfl_secure.tasks.base import Task
from fmfl_secure.tasks.causal_lm import CausalLM
from fmfl_secure.tasks.image_classification import ImageClassification
from fmfl_secure.tasks.image_text import ImageText
from fmfl_secure.tasks.image_text_classification import ImageTextClassification
from fmfl_secure.tasks.text_classification import TextClassification
from fmfl_secure.tasks.token_classification import TokenClassification


def make_task(
    settings: TaskSection,
    *,
    base: BaseModel,
    adapter: AdapterSpec,
    max_length: int,
    cache_bytes: int,
    computation: Computation = EXACT,
) -> Task:
    """The task of these settings.

    Args:
        settings: The `[task]` section, whose kind decides.
        base: The base model.
        adapter: Which adapter, where.
        max_length: Tokens kept of a text.
        cache_bytes: Memory a data set may use to keep outputs of frozen layers.
        computation: How the model is computed.
    """
    match settings:
        case TextClassificationSection():
            return TextClassification(base, adapter, settings, max_length, cache_bytes, computation)
        case TokenClassificationSection():
            return TokenClassification(
                base, adapter, settings, max_length, cache_bytes, computation
            )
        case CausalLMSection():
            return CausalLM(base, adapter, settings, max_length, cache_bytes, computation)
        case ImageClassificationSection():
            return ImageClassification(
                base, adapter, settings, max_length, cache_bytes, computation
            )
        case ImageTextSection():
            return ImageText(base, adapter, settings, max_length, cache_bytes, computation)
        case ImageTextClassificationSection():
            return ImageTextClassification(
                base, adapter, settings, max_length, cache_bytes, computation
            )
