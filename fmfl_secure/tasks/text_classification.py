"""Text classification: a text column, a label column, one label a record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fmfl_secure.errors import ModelError
from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.architectures import TaskNeeds
from fmfl_secure.models.classifiers import TextClassifier
from fmfl_secure.models.label_start import start_head
from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.settings.tasks import TextClassificationSection
from fmfl_secure.tasks.text_task import TextTask
from fmfl_secure.tasks.texts import padding_id, text_batch, tokenize


class TextClassification(TextTask[TextClassificationSection]):
    """The task; see `AdapterTask`."""

    needs = TaskNeeds(name="text-classification", modalities=("text",))
    problem_type = "single_label_classification"

    def _targets(self, values: Sequence[str]) -> NDArray[np.int64]:
        return self._indices(list(values))

    def _start(self, model: AdaptedModel) -> None:
        """See `AdapterTask`: the head, where the labels come with texts."""
        texts = self.settings.label_texts
        if not texts or not isinstance(model, TextClassifier):
            return
        tokenizer = self.base.load_tokenizer()
        rows, shortened = tokenize(tokenizer, texts, max_length=self.max_length)
        if shortened:
            raise ModelError(
                f"{shortened} of task.label_texts are longer than model.max_length = "
                f"{self.max_length} tokens",
                hint="Say it in fewer words, or raise model.max_length.",
            )
        batch = text_batch(
            rows,
            torch.zeros(len(rows), dtype=torch.int64),
            np.arange(len(rows)),
            padding=padding_id(tokenizer),
            cache=RecordCache(0),
        )
        training = model.training
        model.eval()
        with torch.no_grad():
            start_head(model.head, model.read_features(batch))
        model.train(training)

    def _synthetic_targets(self, records: int) -> NDArray[np.int64]:
        return np.arange(records, dtype=np.int64) % len(self.labels)
