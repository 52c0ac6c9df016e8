"""Records' text as text: what spells a special token of a tokenizer does not become one.

A row that holds `<|im_end|>` could otherwise close its own turn and write the answer itself, and
one with `[SEP]` begin a second text.
"""

from __future__ import annotations

import re
from typing import Any


class PlainText:
    """Takes the meaning out of special tokens that a text spells.

    Args:
        tokenizer: As transformers loads it.
    """

    def __init__(self, tokenizer: Any) -> None:
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        special = {str(token) for token in added if token.special}
        special |= {str(token) for token in tokenizer.all_special_tokens}
        # One of a single character is in every text that has the character, and means nothing else.
        longest_first = sorted((s for s in special if len(s) > 1), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._normalizer = getattr(backend, "normalizer", None)

    def __call__(self, text: str) -> str:
        """The text, with a space after the first character of what spells a special token."""
        text = self._broken(text)
        # Full-width letters and the like become a special token's only once they are normalised.
        if self._normalizer is not None:
            normal = self._normalizer.normalize_str(text)
            if self._pattern.search(normal):
                return self._broken(normal)
        return text

    def first_special(self, text: str) -> int | None:
        """Where the first special token that a text spells ends; None where it spells none."""
        found = self._pattern.search(text)
        return None if found is None else found.end()

    def _broken(self, text: str) -> str:
        while self._pattern.search(text):
            text = self._pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
        return text
