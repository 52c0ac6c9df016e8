"""Forms of pictures: an entry each, all of them to RGB of 8 bits by rules that are written down.

A new one is a subclass of `PictureForm` with its line in `registry.py`; `docs/data.md` follows from
it, and `tests/unit/test_picture_forms.py` walks them all.
"""

from __future__ import annotations

from fmfl_secure.data.pictures.base import Decoded, PictureForm
from fmfl_secure.data.pictures.depth import Window
from fmfl_secure.data.pictures.registry import PICTURES, decode, form_of

__all__ = ["PICTURES", "Decoded", "PictureForm", "Window", "decode", "form_of"]
