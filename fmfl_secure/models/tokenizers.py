"""Whether a tokenizer is the base model's own: what would otherwise be found out in training.

transformers makes a vocabulary of five special tokens where a folder has none, and every text
becomes the same row of unknown tokens. A tokenizer with more tokens than the model has embeddings
stops training at the first text that has one, when a round has been paid for. Neither depends on
any record, so both are refused before one is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fmfl_secure.errors import ModelError

_SAMPLED = 256  # tokens of the model's own vocabulary that are tried
_UNKNOWN_AT_MOST = 0.9  # share of them; a vocabulary of another language keeps its characters


def require_tokenizer_files(tokenizer: Any, folder: Path) -> None:
    """Require that a tokenizer was read from a folder's files, and not made up.

    Raises:
        ModelError: The files of its vocabulary are not there.
    """
    if (folder / "tokenizer.json").is_file():
        return
    names = dict(type(tokenizer).vocab_files_names)
    names.pop("tokenizer_file", None)
    missing = sorted(name for name in names.values() if not (folder / name).is_file())
    if missing or not names:
        raise ModelError(
            f"{folder} has no tokenizer: neither tokenizer.json nor {' and '.join(missing)}",
            hint="Save the tokenizer beside the model, with its save_pretrained.",
        )


def require_fitting_tokenizer(tokenizer: Any, *, embeddings: int, folder: Path) -> None:
    """Require that a tokenizer and a model's embeddings belong together.

    Args:
        tokenizer: As transformers loads it.
        embeddings: Rows of the model's word embeddings.
        folder: Where both are from, for the message.

    Raises:
        ModelError: It has tokens without an embedding, or knows next to none of the model's.
    """
    ids = tokenizer.get_vocab().values()
    largest = max(ids, default=-1)
    if largest >= embeddings:
        raise ModelError(
            f"the tokenizer in {folder} has {largest + 1} tokens, the base model {embeddings} "
            "embeddings",
            hint="Resize the model with resize_token_embeddings(len(tokenizer)) and save it again, "
            "or use the tokenizer that it was published with.",
        )
    share = _unknown_share(tokenizer, embeddings)
    if share >= _UNKNOWN_AT_MOST:
        raise ModelError(
            f"the tokenizer in {folder} knows next to no words: {share:.0%} of the model's own "
            "vocabulary is unknown to it",
            hint="Save the tokenizer that the model was trained with beside it.",
        )


def require_padding(tokenizer: Any, folder: Path) -> None:
    """Require a padding token, for a model that reads texts padded to their whole length.

    Raises:
        ModelError: There is none.
    """
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer in {folder} has no padding token, and this model pads every text",
            hint='Set "pad_token" in tokenizer_config.json to the one it was trained with.',
        )


def _unknown_share(tokenizer: Any, embeddings: int) -> float:
    """Of the model's own tokens, special ones apart, those that come back as unknown."""
    special = set(tokenizer.all_special_ids)
    own = np.array([index for index in range(embeddings) if index not in special])
    if not len(own):
        return 1.0
    step = np.linspace(0, len(own) - 1, num=min(len(own), _SAMPLED)).astype(int)
    return float(np.mean([not _knows(tokenizer, int(index)) for index in own[step]]))


def _knows(tokenizer: Any, index: int) -> bool:
    token = tokenizer.convert_ids_to_tokens(index)
    if token is None or index >= len(tokenizer):
        return False
    if tokenizer.unk_token_id is None:  # it falls back on bytes
        return True
    text = tokenizer.convert_tokens_to_string([token]).replace("##", "").strip()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return not ids or any(found != tokenizer.unk_token_id for found in ids)
