"""Forms of local data: an entry and a file each, and what is no such form by name.

A new one is a subclass of `Format` in a file of its own with its line in `registry.py`;
`docs/data.md` follows from it, and `tests/unit/test_data_formats.py` walks them all.
"""

from __future__ import annotations

from fmfl_secure.data.formats.base import Format, TextFormat
from fmfl_secure.data.formats.registry import FORMATS, format_of, open_header, open_source

__all__ = ["FORMATS", "Format", "TextFormat", "format_of", "open_header", "open_source"]
