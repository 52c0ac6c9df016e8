"""Text classification: a text column, a label column, one label a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import override

from fmfl_secure.models.adapted import AdaptedModel
from fmfl_secure.models.architectures import TaskNeeds
from fmfl_secure.models.classifiers import TextClassifier
from fmfl_secure.models.label_start import start_head
from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.settings.tasks import TextClassificationSection
from fmfl_secure.tasks.base import TaskData, one_unit_each
from fmfl_secure.tasks.text_task import TextTask
from fmfl_secure.tasks.texts import (
    padding_id,
    rows_of_settings,
    text_batch,
    tokenize,
    vocabulary_words,
)

# Of texts made up: how likely a word is its label's own, how many words a label has, and a text.
# With these the head's gradient at the start is .094 and .048 C long, with the settings of SST-2
# and of the medical abstracts; as many real records of each label give .060 and .068.
OWN_WORDS: Final = 0.4
_WORDS_OF_A_LABEL, _WORDS_OF_A_TEXT = 50, 40


class TextClassification(TextTask[TextClassificationSection]):
    """Classification of texts; see `AdapterTask`."""

    needs = TaskNeeds(name="text-classification", modalities=("text",))
    problem_type = "single_label_classification"

    def _targets(self, values: Sequence[str]) -> NDArray[np.int64]:
        return self._indices(list(values))

    @override
    def _start(self, model: AdaptedModel) -> None:
        """The head, where the labels come with texts."""
        texts = self.settings.label_texts
        if not texts or not isinstance(model, TextClassifier):
            return
        tokenizer = self.base.load_tokenizer()
        read = tokenize(tokenizer, texts, max_length=self.max_length)
        rows = rows_of_settings(read, "task.label_texts", self.max_length)
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

    def synthetic_topics(self, records: int) -> TaskData:
        """Texts made up whose labels can be told: some of a text's words are its label's own.

        Every label has as many words of its own, drawn from the tokenizer's vocabulary, and every
        word of a text is one of them with probability `OWN_WORDS`; the others are anybody's.

        Args:
            records: How many; labels are as often as each other.
        """
        generator = np.random.default_rng(20260104)
        words = np.array(vocabulary_words(self.base.load_tokenizer()))
        own = [generator.choice(words, size=_WORDS_OF_A_LABEL) for _ in self.labels]
        labels = self._synthetic_targets(records)
        longest = max(2, min(_WORDS_OF_A_TEXT, self.max_length // 2))
        texts = []
        for label in labels:
            length = int(generator.integers(longest // 2, longest + 1))
            telling = generator.random(length) < OWN_WORDS
            chosen = np.where(
                telling, generator.choice(own[label], length), generator.choice(words, length)
            )
            texts.append(" ".join(chosen))
        return self._prepare(texts, labels, one_unit_each(records))

    def _synthetic_targets(self, records: int) -> NDArray[np.int64]:
        return np.arange(records, dtype=np.int64) % len(self.labels)
