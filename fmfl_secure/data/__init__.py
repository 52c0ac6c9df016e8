"""Local data: tables into labelled texts and privacy units.

`read_text_dataset` is the way in for training, `read_table` for everything else,
`partition_file` splits one public file into a simulated federation, and `write_demo_notes` makes
one up. All refusals are kinds of `DataError` (`fmfl_secure.data.errors`), with one code.
"""

from __future__ import annotations

from fmfl_secure.data.errors import DataError
from fmfl_secure.data.partition import PartFile, PartitionSummary, partition_file
from fmfl_secure.data.readers import read_table, read_text_dataset
from fmfl_secure.data.records import TextDataset
from fmfl_secure.data.synthetic import DEMO_CATEGORIES, DemoNotes, write_demo_notes

__all__ = [
    "DEMO_CATEGORIES",
    "DataError",
    "DemoNotes",
    "PartFile",
    "PartitionSummary",
    "TextDataset",
    "partition_file",
    "read_table",
    "read_text_dataset",
    "write_demo_notes",
]
