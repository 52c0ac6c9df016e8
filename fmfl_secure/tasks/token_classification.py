"""Token classification: words with a tag each, for clinical entities or de-identification.

`make` builds it from settings. A row's words are cut into tokens, of which a word's first answers
for it; tags in other schemes become BIO as they are read, and metrics are of whole entities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from typing_extensions import override

from fmfl_secure.data import (
    Field,
    Records,
    check_equally_many,
    read_records,
    tags_field,
    words_field,
)
from fmfl_secure.data.tag_schemes import RULES, begins_inside
from fmfl_secure.errors import ModelError
from fmfl_secure.measures import Tagged, types_of
from fmfl_secure.models.architectures import Modality, TaskNeeds
from fmfl_secure.models.batches import IGNORED, TextBatch
from fmfl_secure.models.classifiers import TextClassifier
from fmfl_secure.models.features import AtUnitNorm, Features
from fmfl_secure.models.prefix import FrozenPrefix
from fmfl_secure.settings.tasks import TokenClassificationSection
from fmfl_secure.tasks.adapter_task import AdapterTask
from fmfl_secure.tasks.base import TaskData, one_unit_each
from fmfl_secure.tasks.entities import count_entities, entity_scores
from fmfl_secure.tasks.plain_text import PlainText
from fmfl_secure.tasks.texts import (
    count_unread,
    lengths_of,
    padded_labels,
    padding_id,
    synthetic_lengths,
    synthetic_words,
    text_batches,
    whole_length,
)


class TokenClassification(AdapterTask[TokenClassificationSection]):
    """The task; see `AdapterTask`.

    A word is judged by its first token. Words beyond `max_length` tokens are not learned from, and
    count as predicted `O`.
    """

    needs = TaskNeeds(name="token-classification", modalities=("text",))
    answers_for = "tokens"

    def _agree(self, values: Sequence[Any]) -> None:
        check_equally_many(values)

    def _fields(self, path: Path) -> list[Field]:  # noqa: ARG002
        return [
            self._words_field,
            self._tags_field,
        ]

    def _from_records(self, records: Records) -> TaskData:
        words, tags = records.columns
        return self._prepare(words, tags, records.units)

    def load_inputs(self, path: Path) -> TaskData:
        """Reads and prepares texts, without tags.

        Raises:
            DataError: The file or a row of it is unusable.
        """
        records = read_records(path, [self._words_field], readers=self.settings.readers)
        words = records.columns[0]
        return self._prepare(words, [[0] * len(own) for own in words], records.units)

    @override
    def synthetic(self) -> TaskData:
        words = synthetic_words(synthetic_lengths(self.max_length))
        generator = np.random.default_rng(20260102)
        tags = [generator.integers(len(self._tags), size=len(own)).tolist() for own in words]
        return self._prepare(words, tags, one_unit_each(len(words)))

    @override
    def said_of(self, data: TaskData) -> tuple[str, ...]:
        """By which rule, and whether another one may be meant."""
        scheme = self.settings.tag_scheme
        said = f"tags are read as {scheme.upper()}: {RULES[scheme]}".replace("`", "")
        if scheme != "bio":
            return (said,)
        rows = sum(begins_inside([self._tags[tag] for tag in own]) for own in data.tags)
        doubt = (
            f"in {rows} of {data.records} texts an entity begins with I-, as IOB1 writes it: is "
            "that how they are written? (task.tag_scheme)"
        )
        return (said, doubt) if rows else (said,)

    def per_record_loss(self, model: nn.Module, batch: TextBatch) -> torch.Tensor:
        """Cross-entropy averaged over a record's own words, shape (b,)."""
        losses = nn.functional.cross_entropy(
            model(batch).transpose(1, 2), batch.labels, reduction="none", ignore_index=IGNORED
        )
        words = (batch.labels != IGNORED).sum(dim=1)
        return losses.sum(dim=1) / words.clamp(min=1)

    def evaluate(self, model: nn.Module, data: TaskData, *, batch_size: int) -> dict[str, float]:
        """Entity F1, precision and recall, accuracy of tags by word, and mean loss."""
        predicted, losses = self._answer(model, data, batch_size=batch_size)
        truth = self._truth(data)
        pairs = zip(truth, predicted, strict=True)
        right = sum(a == b for own, guess in pairs for a, b in zip(own, guess, strict=True))
        return {
            **entity_scores(truth, predicted),
            "accuracy": right / sum(len(own) for own in truth),
            "loss": float(losses.sum()) / data.records,
        }

    @override
    def outcomes(self, model: nn.Module, data: TaskData, *, batch_size: int) -> Tagged:
        predicted, losses = self._answer(model, data, batch_size=batch_size)
        truth = self._truth(data)
        right = [
            sum(a == b for a, b in zip(own, guess, strict=True)) / max(1, len(own))
            for own, guess in zip(truth, predicted, strict=True)
        ]
        return Tagged(
            losses=losses,
            groups=data.groups if len(data.groups) else None,
            right=np.array(right, dtype=np.float64),
            entities=count_entities(truth, predicted, types=types_of(self._tags)),
        )

    def _truth(self, data: TaskData) -> list[list[str]]:
        return [[self._tags[tag] for tag in own] for own in data.tags]

    def predict(
        self, model: nn.Module, inputs: TaskData, *, batch_size: int
    ) -> list[dict[str, Any]]:
        """A tag for each of a record's words."""
        predicted, _ = self._answer(model, inputs, batch_size=batch_size)
        return [{"tags": tags} for tags in predicted]

    def _answer(
        self, model: nn.Module, data: TaskData, *, batch_size: int
    ) -> tuple[list[list[str]], NDArray[np.float64]]:
        """Tags of all records in order, and each one's loss against the tags that data has."""
        answers = [["O"] * len(words) for words in data.words]
        losses = np.zeros(data.records)
        model.eval()
        with torch.no_grad():
            for records in data.by_cost(batch_size):
                batch = data.collate(records)
                chosen = model(batch).argmax(dim=-1).cpu()
                losses[records] = self.per_record_loss(model, batch).double().cpu().numpy()
                for row, record in enumerate(records):
                    for word, token in enumerate(data.words[record]):
                        if token >= 0:
                            answers[record][word] = self._tags[int(chosen[row, token])]
        return answers, losses

    def _prepare(
        self,
        words: Sequence[Sequence[str]],
        tags: Sequence[Sequence[int]],
        units: Sequence[NDArray[np.int64]],
    ) -> TaskData:
        tokenizer = self._load_tokenizer()
        plain = PlainText(tokenizer)
        rows: list[torch.Tensor] = []
        labels: list[torch.Tensor] = []
        first: list[NDArray[np.int64]] = []
        lengths = np.zeros(len(words), dtype=np.int64)
        for place, (spelt, tag) in enumerate(zip(words, tags, strict=True)):
            own = [plain(word) for word in spelt]
            encoded = tokenizer(
                " ".join(own),
                truncation=True,
                max_length=self.max_length,
                return_offsets_mapping=True,
            )
            lengths[place] = whole_length(encoded.encodings[0])
            rows.append(torch.tensor(encoded["input_ids"], dtype=torch.int64))
            first.append(_first_tokens(own, encoded["offset_mapping"]))
            label = torch.full((len(rows[-1]),), IGNORED)
            for token, own_tag in zip(first[-1], tag, strict=True):
                if token >= 0:
                    label[token] = own_tag
            labels.append(label)
        collate = text_batches(
            rows,
            padded_labels(labels, IGNORED),
            padding=padding_id(tokenizer),
            cache_bytes=self.cache_bytes,
            device=self.computation.device,
        )
        return TaskData(
            collate=collate,
            units=units,
            record_cost=lengths_of(rows),
            words=first,
            tags=tags,
            shortened=int((lengths > self.max_length).sum()),
            unread=count_unread(tokenizer, [row.tolist() for row in rows]),
            lengths=lengths,
        )

    def _load_tokenizer(self) -> Any:
        tokenizer = self.base.load_tokenizer()
        if not tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer in {self.base.path} does not say which word a token is of",
                hint="Save a tokenizer.json beside the model, with save_pretrained of a fast one.",
            )
        return tokenizer

    @property
    @override
    def answers(self) -> tuple[str, ...]:
        return self._tags

    @property
    def _tags(self) -> tuple[str, ...]:
        return self.settings.tags

    @property
    def _words_field(self) -> Any:
        return words_field("tokens_column", self.settings.tokens_column)

    @property
    def _tags_field(self) -> Any:
        settings = self.settings
        return tags_field(
            "tags_column",
            settings.tags_column,
            self._tags,
            settings.tag_names,
            settings.tag_scheme,
        )

    def _facts(self) -> dict[str, Any]:
        own = self.own_head
        return {
            "tags": list(self._tags),
            "features": "own token, unit L2 norm" if own is None else own.said,
        }

    def _features(self, encoder: nn.Module) -> Features:
        return super()._features(encoder) or AtUnitNorm("every")

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
            classes=len(self._tags),
            bias=self._head_has_bias,
        )


def _first_tokens(words: Sequence[str], spans: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """The first token of each word; -1 where the tokenizer left nothing of it, or it was cut.

    Args:
        words: As they stand in the text, with a space between them.
        spans: First character of each token, and the one after its last; equal for none. Some
            tokenizers count the space before a word as its own, so the last character decides.
    """
    found = np.full(len(words), -1, dtype=np.int64)
    tokens = [token for token, (begin, end) in enumerate(spans) if end > begin]
    ends = np.array([spans[token][1] for token in tokens], dtype=np.int64)
    start = 0
    for word, text in enumerate(words):
        index = int(np.searchsorted(ends, start, side="right"))
        if index < len(ends) and ends[index] <= start + len(text):
            found[word] = tokens[index]
        start += len(text) + 1
    return found
