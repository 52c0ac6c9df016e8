"""Responses of which one is right, as a label is: each record with every one of them in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmfl_secure.data import Conversation
from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.tasks.base import TaskData


@dataclass(frozen=True, repr=False)
class WithEachResponse:
    """Records of a language model's task beside the declared responses. Private, as they are.

    Attributes:
        records: Each ends with its own response, or is to be answered.
        responses: The declared ones, at least two.
        prepare: Makes a data set of conversations, which keeps nothing of frozen layers.
        cache: Where outputs of frozen layers are kept for whoever comes again.
        known_by: What the cache knows each record by.
    """

    records: Sequence[Conversation]
    responses: tuple[str, ...]
    prepare: Callable[[Sequence[Conversation]], TaskData]
    cache: RecordCache
    known_by: Sequence[int]

    @property
    def right(self) -> NDArray[np.int64]:
        """The place of each record's own response, -1 where it is none; int64, shape (records,)."""
        places = {response.strip(): place for place, response in enumerate(self.responses)}
        last = [record[-1] for record in self.records]
        return np.array(
            [places.get(text.strip(), -1) if role == "assistant" else -1 for role, text in last],
            dtype=np.int64,
        )

    def only(self, chosen: NDArray[np.int64]) -> WithEachResponse:
        """Some of the records, int64, shape (n,)."""
        return replace(
            self,
            records=[self.records[record] for record in chosen],
            known_by=[self.known_by[record] for record in chosen],
        )

    def data(self) -> TaskData:
        """Each record with every response in place of its last answer, record by record.

        Outputs of frozen layers are kept for whoever asks again, of whichever model above them.
        """
        data = self.prepare(
            [
                (*record[:-1], ("assistant", response))
                for record in self.records
                for response in self.responses
            ]
        )
        each = range(len(self.responses))
        keys = [number * len(each) + place for number in self.known_by for place in each]

        def collate(rows: NDArray[np.int64]) -> Any:
            known_by = [keys[row] for row in rows]
            return replace(data.collate(rows), records=known_by, cache=self.cache)

        return replace(data, collate=collate)

    def __repr__(self) -> str:
        return "WithEachResponse(<private>)"


def chances(likelihoods: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of alternatives against each other, from log-likelihoods in the last axis."""
    whole = np.logaddexp.reduce(likelihoods, axis=-1, keepdims=True)
    return np.asarray(np.exp(likelihoods - whole), dtype=np.float64)
