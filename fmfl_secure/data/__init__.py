"""Local data: tables and folders into records and privacy units.

`read_records` is the way in for training, field by field (`read_image_folder` where there is no
table), `read_table` for everything else, and `partition_file` splits one public file into a
simulated federation. All refusals are kinds of `DataError` (`fmfl_secure.data.errors`), with one
code.
"""

from __future__ import annotations

from fmfl_secure.data._shares import share_by_label
from fmfl_secure.data.conversations import (
    Conversation,
    Role,
    messages_field,
    optional_text_field,
)
from fmfl_secure.data.errors import DataError
from fmfl_secure.data.fields import (
    Field,
    OnBadRow,
    Records,
    group_field,
    label_field,
    pool_records,
    read_records,
    text_field,
)
from fmfl_secure.data.formats.registry import claimed, read_as
from fmfl_secure.data.headers import check_header, check_image_folder, check_rows
from fmfl_secure.data.images import check_forms, decode_image, image_field, read_image_folder
from fmfl_secure.data.label_sets import label_set_field
from fmfl_secure.data.left_out import LeftOut
from fmfl_secure.data.partition import PartFile, PartitionSummary, partition_file
from fmfl_secure.data.picture_check import PictureCheck, check_pictures
from fmfl_secure.data.readers import read_table
from fmfl_secure.data.tagged import check_equally_many, tags_field, words_field
from fmfl_secure.data.unit_check import UnitCheck, check_units

__all__ = [
    "Conversation",
    "DataError",
    "Field",
    "LeftOut",
    "OnBadRow",
    "PartFile",
    "PartitionSummary",
    "PictureCheck",
    "Records",
    "Role",
    "UnitCheck",
    "check_equally_many",
    "check_forms",
    "check_header",
    "check_image_folder",
    "check_pictures",
    "check_rows",
    "check_units",
    "claimed",
    "decode_image",
    "group_field",
    "image_field",
    "label_field",
    "label_set_field",
    "messages_field",
    "optional_text_field",
    "partition_file",
    "pool_records",
    "read_as",
    "read_image_folder",
    "read_records",
    "read_table",
    "share_by_label",
    "tags_field",
    "text_field",
    "words_field",
]
