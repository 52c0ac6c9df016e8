"""Classes of transformers, and of `pipeline`, that people would open a model of a task with."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OWN_CLASSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "text-classification": "AutoModelForSequenceClassification",
        "multi-label-classification": "AutoModelForSequenceClassification",
        "token-classification": "AutoModelForTokenClassification",
        "image-classification": "AutoModelForImageClassification",
    }
)
