"""Names that people typed, without what nobody can see.

A trailing space or a letter composed in another way makes another string of what everyone reads as
one name. Where a name decides what is counted together, `plain` forms are what is compared.
"""

from __future__ import annotations

import re
import unicodedata

# What is drawn as nothing: controls, and Unicode's Default_Ignorable_Code_Point (soft hyphen,
# fillers, joiners, marks of direction, variation selectors, byte-order mark, tags).
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff"
    "\uffa0\ufff0-\ufff8\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def plain(text: str) -> str:
    """A text as it reads: two that look the same in any typeface have one plain form.

    Canonically equivalent characters are one (Unicode NFC), what cannot be seen is left out, a run
    of white space of any kind is one space, and there is none at either end. Idempotent.
    """
    if text.isascii() and text.isalnum():
        return text
    return " ".join(unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).split())
