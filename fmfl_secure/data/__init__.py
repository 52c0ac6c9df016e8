"""Local data: tables into labelled texts and privacy units.

`read_text_dataset` is the way in for training, `read_table` for everything else.
All refusals are kinds of `DataError` (`fmfl_secure.data.errors`), with one code.
"""

from __future__ import annotations

from fmfl_secure.data.errors import DataError
from fmfl_secure.data.readers import read_table, read_text_dataset
from fmfl_secure.data.records import TextDataset

__all__ = [
    "DataError",
    "TextDataset",
    "read_table",
    "read_text_dataset",
]
