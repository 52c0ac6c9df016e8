"""Images with a text each, as batches: what the two-tower tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fmfl_secure.models.batches import PairBatch
from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.settings.tasks import ImageTextClassificationSection, ImageTextSection
from fmfl_secure.tasks.adapter_task import AdapterTask
from fmfl_secure.tasks.base import TaskData
from fmfl_secure.tasks.pictures import Pictures, synthetic_images
from fmfl_secure.tasks.texts import (
    Tokenized,
    lengths_of,
    pad,
    padding_id,
    synthetic_lengths,
    synthetic_words,
    tokenize,
)

Settings = TypeVar("Settings", bound=ImageTextSection | ImageTextClassificationSection)


class PairTask(AdapterTask[Settings]):
    """Base of the tasks on an image and a text together."""

    def prepare_pairs(
        self,
        images: Sequence[bytes],
        texts: Sequence[str],
        labels: NDArray[np.int64],
        units: Sequence[NDArray[np.int64]],
    ) -> TaskData:
        """Pairs ready to train on; labels are int64, shape (records,)."""
        tokenizer = self.base.load_tokenizer()
        rows, shortened, lengths, unread = self.tokenize(texts)
        padding, cache = padding_id(tokenizer), RecordCache(self.cache_bytes)
        pictures = Pictures(self.base, images, cache)

        def collate(records: NDArray[np.int64]) -> PairBatch:
            input_ids, mask = pad([rows[record] for record in records], padding)
            return PairBatch(
                input_ids=input_ids,
                attention_mask=mask,
                pixel_values=pictures.pixel_values(records),
                labels=torch.from_numpy(labels[records]),
                records=records.tolist(),
                cache=cache,
                padding=padding,
            ).to(self.computation.device)

        return TaskData(
            collate=collate,
            units=units,
            record_cost=lengths_of(rows),
            labels=labels,
            shortened=shortened,
            unread=unread,
            lengths=lengths,
        )

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        """Token ids of each text as this model reads it."""
        return tokenize(
            self.base.load_tokenizer(),
            texts,
            max_length=self.max_length,
            fixed_length=self.architecture.fixed_length,
        )

    @staticmethod
    def synthetic_pairs(max_length: int) -> tuple[list[bytes], list[str]]:
        """Images of extreme sizes and texts of extreme lengths, as many of each."""
        texts = [" ".join(words) for words in synthetic_words(synthetic_lengths(max_length))]
        return synthetic_images(), texts
