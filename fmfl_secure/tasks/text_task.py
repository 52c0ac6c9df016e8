"""A text and what is to be told of it as a whole: what tasks with such records share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from fmfl_secure.data import Field, Records, read_records, text_field
from fmfl_secure.models.architectures import Modality
from fmfl_secure.models.classifiers import TextClassifier
from fmfl_secure.models.features import AtUnitNorm, Features
from fmfl_secure.models.prefix import FrozenPrefix
from fmfl_secure.settings.tasks import TextClassificationSection
from fmfl_secure.tasks.base import TaskData, one_unit_each
from fmfl_secure.tasks.classification import ClassificationTask
from fmfl_secure.tasks.texts import (
    lengths_of,
    padding_id,
    synthetic_lengths,
    synthetic_words,
    text_batches,
    tokenize,
)

Settings = TypeVar("Settings", bound=TextClassificationSection)


class TextTask(ClassificationTask[Settings]):
    """Base of both; see `AdapterTask`."""

    answers_for = "text"
    _reads = "mean over own tokens, unit L2 norm"

    @abstractmethod
    def _targets(self, values: Sequence[Any]) -> NDArray[Any]:
        """Converts the label column to the form that the loss takes."""

    @abstractmethod
    def _synthetic_targets(self, records: int) -> NDArray[Any]:
        """Targets made up."""

    def _fields(self, path: Path) -> list[Field]:  # noqa: ARG002
        return [
            text_field("text_columns", self.settings.text_columns),
            self._label_field,
        ]

    def _from_records(self, records: Records) -> TaskData:
        texts, labels = records.columns
        return self._prepare(texts, self._targets(labels), records.units)

    def load_inputs(self, path: Path) -> TaskData:
        """Reads and prepares texts, without labels.

        Raises:
            DataError: The file or a row of it is unusable.
        """
        records = read_records(
            path,
            [text_field("text_columns", self.settings.text_columns)],
            readers=self.settings.readers,
        )
        texts = records.columns[0]
        return self._prepare(texts, self._synthetic_targets(len(texts)), records.units)

    @override
    def synthetic(self) -> TaskData:
        """From one word to far beyond `max_length`, with words the tokenizer splits."""
        texts = [" ".join(words) for words in synthetic_words(synthetic_lengths(self.max_length))]
        return self._prepare(texts, self._synthetic_targets(len(texts)), one_unit_each(len(texts)))

    def _prepare(
        self, texts: Sequence[str], targets: NDArray[Any], units: Sequence[NDArray[np.int64]]
    ) -> TaskData:
        tokenizer = self.base.load_tokenizer()
        rows, shortened, lengths, unread = tokenize(tokenizer, texts, max_length=self.max_length)
        collate = text_batches(
            rows,
            lambda records: torch.from_numpy(targets[records]),
            padding=padding_id(tokenizer),
            cache_bytes=self.cache_bytes,
            device=self.computation.device,
        )
        data = TaskData(
            collate=collate,
            units=units,
            record_cost=lengths_of(rows),
            shortened=shortened,
            unread=unread,
            lengths=lengths,
        )
        if targets.ndim == 1:
            return replace(data, labels=targets)
        return replace(data, label_sets=targets)

    def _features(self, encoder: nn.Module) -> Features:
        return super()._features(encoder) or AtUnitNorm("mean")

    def _assemble(
        self,
        adapted: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        features: Features | None,
    ) -> TextClassifier:
        width = self._feature_width("text")
        return TextClassifier(
            adapted,
            prefixes,
            features,
            width=width,
            classes=len(self.labels),
            bias=self._head_has_bias,
        )
