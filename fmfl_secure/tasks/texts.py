"""Texts as rows of token ids, and rows as batches: what all tasks that read text share.

`text_task`, `pairs` and `token_classification` tokenise with it. It counts what a model would not
see: ends that were cut, and texts that a tokenizer does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.batches import TextBatch
from fmfl_secure.models.prefix import RecordCache
from fmfl_secure.tasks.plain_text import PlainText

_WORDS = ("the", "patient", "reports", "pain", "zxqv", "1234567", "æøå", ".")


def padding_id(tokenizer: Any) -> int:
    """The token that fills a row up; masked wherever it stands."""
    return int(tokenizer.pad_token_id or 0)


class Tokenized(NamedTuple):
    """Texts as token ids.

    Attributes:
        rows: Of each text, int64.
        shortened: How many of the texts are longer and lost their ends.
        lengths: Tokens of each whole text, int64, shape (texts,).
        unread: How many of the texts are next to nothing to the tokenizer; see `count_unread`.
    """

    rows: list[torch.Tensor]
    shortened: int
    lengths: NDArray[np.int64]
    unread: int


def tokenize(
    tokenizer: Any, texts: Sequence[str], *, max_length: int, fixed_length: bool = False
) -> Tokenized:
    """Token ids of each text, at most `max_length` of them, or exactly so many.

    What in a text spells a special token is read as the letters that it is.
    """
    settings = {"padding": "max_length"} if fixed_length else {}
    plain = PlainText(tokenizer)
    own = [plain(text) for text in texts]
    encoded = tokenizer(own, truncation=True, max_length=max_length, **settings)
    # Some tokenizers leave nothing of a text: the model still has to see something.
    padding = padding_id(tokenizer)
    rows = [torch.tensor(ids or [padding], dtype=torch.int64) for ids in encoded["input_ids"]]
    if encoded.encodings is None:  # one that does not say what it cut off
        whole = [len(ids) for ids in tokenizer(own)["input_ids"]]
    else:
        whole = [whole_length(each) for each in encoded.encodings]
    lengths = np.array(whole, dtype=np.int64)
    unread = count_unread(tokenizer, encoded["input_ids"])
    return Tokenized(rows, int((lengths > max_length).sum()), lengths, unread)


def rows_of_settings(read: Tokenized, setting: str, max_length: int) -> list[torch.Tensor]:
    """Token ids of public texts in settings: nobody else would hear of what is lost of them.

    Raises:
        ModelError: One is cut, or is next to nothing to the tokenizer.
    """
    if read.shortened:
        raise ModelError(
            f"{read.shortened} of {setting} are longer than model.max_length = {max_length} tokens",
            hint="Say it in fewer words, or raise model.max_length.",
        )
    if read.unread:
        raise ModelError(
            f"{read.unread} of {setting} are next to nothing to the model: its tokenizer knows "
            "less than half of their tokens",
            hint="Say it in the model's language, and in its case.",
        )
    return read.rows


def count_unread(tokenizer: Any, rows: Sequence[Sequence[int]]) -> int:
    """How many texts are next to nothing to a tokenizer.

    Args:
        tokenizer: As transformers loads it.
        rows: Token ids of each text, special ones too.

    Returns:
        Those of which it knows less than half of the tokens, or left none.
    """
    unknown = tokenizer.unk_token_id
    special = set(tokenizer.all_special_ids) - {unknown}
    own = [[token for token in ids if token not in special] for ids in rows]
    return sum(2 * ids.count(unknown) > len(ids) or not ids for ids in own)


def whole_length(encoding: Any) -> int:
    """Tokens of a text that a tokenizer cut, also of what it cut off."""
    beyond: int = sum(part.special_tokens_mask.count(0) for part in encoding.overflowing)
    own: int = sum(encoding.attention_mask)
    return own + beyond


def pad(rows: Sequence[torch.Tensor], value: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows filled up at their ends, and a mask of what is their own; int64, shape (b, tokens)."""
    padded = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
    lengths = torch.tensor([len(row) for row in rows])
    mask = (torch.arange(padded.shape[1]) < lengths.unsqueeze(1)).to(torch.int64)
    return padded, mask


def text_batch(
    rows: Sequence[torch.Tensor],
    labels: torch.Tensor,
    records: NDArray[np.int64],
    *,
    padding: int,
    cache: RecordCache,
) -> TextBatch:
    """A batch of these rows, which are those of `records`."""
    input_ids, mask = pad(rows, padding)
    return TextBatch(
        input_ids=input_ids,
        attention_mask=mask,
        labels=labels,
        records=records.tolist(),
        cache=cache,
        padding=padding,
    )


def text_batches(
    rows: Sequence[torch.Tensor],
    labels_of: Callable[[NDArray[np.int64]], torch.Tensor],
    *,
    padding: int,
    cache_bytes: int,
    device: torch.device,
) -> Callable[[NDArray[np.int64]], TextBatch]:
    """Returns a function from record indices to a batch of these rows and their labels."""
    cache = RecordCache(cache_bytes)

    def collate(records: NDArray[np.int64]) -> TextBatch:
        chosen = [rows[record] for record in records]
        batch = text_batch(chosen, labels_of(records), records, padding=padding, cache=cache)
        return batch.to(device)

    return collate


def padded_labels(
    labels: Sequence[torch.Tensor], ignored: int
) -> Callable[[NDArray[np.int64]], torch.Tensor]:
    """Of any records, a label for each token, filled up with what no loss looks at."""
    return lambda records: pad([labels[record] for record in records], ignored)[0]


def lengths_of(rows: Sequence[torch.Tensor]) -> NDArray[np.int64]:
    """Returns the length of each row, int64, shape (rows,)."""
    return np.array([len(row) for row in rows], dtype=np.int64)


def vocabulary_words(tokenizer: Any, at_most: int = 2000) -> list[str]:
    """Whole words that a tokenizer knows, in the order of their ids; spread over all of them."""
    size = len(tokenizer)
    ids = np.unique(np.linspace(0, size - 1, num=min(size, 4 * at_most), dtype=np.int64))
    special = set(tokenizer.all_special_ids)
    texts = (tokenizer.decode([int(number)]).strip() for number in ids if number not in special)
    found = list(dict.fromkeys(text for text in texts if len(text) > 1 and text.isalpha()))
    return found[:: max(1, len(found) // at_most)] or list(_WORDS)


def synthetic_lengths(max_length: int) -> list[int]:
    """Words of eight texts: from one to far beyond what is kept."""
    return [1, 2, 3, 5, 8, 13, 40, 2 * max_length]


def synthetic_words(lengths: Sequence[int]) -> list[list[str]]:
    """Texts of so many words, some of which every tokenizer has to split."""
    generator = np.random.default_rng(20260101)
    words = np.array(_WORDS)
    return [[str(word) for word in generator.choice(words, size=n)] for n in lengths]
