"""Text classification: a text column, a label column, one label a record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.data import Field, Records, read_records, text_field
from fmfl_secure.models.architectures import Modality, TaskNeeds, feature_width
from fmfl_secure.models.batches import TextBatch
from fmfl_secure.models.classifiers import TextClassifier
from fmfl_secure.models.features import AtUnitNorm, Features
from fmfl_secure.models.prefix import FrozenPrefix, RecordCache
from fmfl_secure.settings.tasks import TextClassificationSection
from fmfl_secure.tasks.base import TaskData, one_unit_each
from fmfl_secure.tasks.classification import ClassificationTask
from fmfl_secure.tasks.texts import (
    lengths_of,
    padding_id,
    synthetic_lengths,
    synthetic_words,
    text_batch,
    tokenize,
)


class TextClassification(ClassificationTask[TextClassificationSection]):
    """The task; see `AdapterTask`."""

    needs = TaskNeeds(name="text-classification", modalities=("text",))
    answers_for = "text"

    problem_type = "single_label_classification"
    _reads = "mean over own tokens, unit L2 norm"

    def _fields(self, path: Path) -> list[Field]:  # noqa: ARG002
        return [
            text_field("text_columns", self.settings.text_columns),
            self._label_field,
        ]

    def _from_records(self, records: Records) -> TaskData:
        texts, labels = records.columns
        return self._prepare(texts, self._indices(labels), records.units)

    def load_inputs(self, path: Path) -> TaskData:
        """See `Task`.

        Raises:
            DataError: The file or a row of it is unusable.
        """
        records = read_records(path, [text_field("text_columns", self.settings.text_columns)])
        texts = records.columns[0]
        return self._prepare(texts, np.zeros(len(texts), dtype=np.int64), records.units)

    def synthetic(self) -> TaskData:
        """See `Task`: from one word to far beyond `max_length`, with words the tokenizer splits."""
        texts = [" ".join(words) for words in synthetic_words(synthetic_lengths(self.max_length))]
        labels = np.arange(len(texts), dtype=np.int64) % len(self.labels)
        return self._prepare(texts, labels, one_unit_each(len(texts)))

    def _prepare(
        self, texts: Sequence[str], labels: NDArray[np.int64], units: Sequence[NDArray[np.int64]]
    ) -> TaskData:
        tokenizer = self.base.load_tokenizer()
        rows, shortened = tokenize(tokenizer, texts, max_length=self.max_length)
        padding, cache = padding_id(tokenizer), RecordCache(self.cache_bytes)

        def collate(records: NDArray[np.int64]) -> TextBatch:
            return text_batch(
                [rows[record] for record in records],
                torch.from_numpy(labels[records]),
                records,
                padding=padding,
                cache=cache,
            ).to(self.computation.device)

        return TaskData(
            collate=collate,
            units=units,
            record_cost=lengths_of(rows),
            labels=labels,
            shortened=shortened,
        )

    def _features(self, encoder: nn.Module) -> Features:
        return super()._features(encoder) or AtUnitNorm("mean")

    def _assemble(
        self,
        adapted: nn.Module,
        prefixes: Mapping[Modality, FrozenPrefix],
        features: Features | None,
    ) -> TextClassifier:
        width = feature_width(self.base.load_config(), "text")
        return TextClassifier(
            adapted,
            prefixes,
            features,
            width=width,
            classes=len(self.labels),
            bias=self._head_has_bias,
        )
