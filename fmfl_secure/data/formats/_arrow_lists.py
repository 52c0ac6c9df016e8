"""Arrow's columns of lists as JSON texts, as JSON Lines has them.

Hugging Face's datasets write tags as integers and their names into the file's schema; then each
integer reads as its name.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

_NOT_UTF8 = b"\xff"
_Item: TypeAlias = str | int | None


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists of texts or of integers."""
    if not (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    ):
        return False
    item = kind.value_type
    return bool(
        pa.types.is_string(item) or pa.types.is_large_string(item) or pa.types.is_integer(item)
    )


def list_cells(table: pa.Table, name: str) -> list[bytes | None]:
    """The cells of a column of lists.

    Args:
        table: The whole file, whose schema may name what integers stand for.
        name: The column; `is_list` of its type.

    Returns:
        Each cell as JSON, None for null; bytes that are not UTF-8 where one of its texts is not.
    """
    column = table.column(name)
    if pa.types.is_integer(column.type.value_type):
        names = names_of(table.schema, name)
        return [
            None if cell is None else msgspec.json.encode([_named(item, names) for item in cell])
            for cell in column.to_pylist()
        ]
    # As bytes: strings in Parquet are not checked when they are read.
    cells = pc.cast(column, pa.large_list(pa.large_binary())).to_pylist()
    return [None if cell is None else _texts(cell) for cell in cells]


def is_messages(kind: pa.DataType) -> bool:
    """Whether a column holds lists of objects whose values are all texts, as of messages."""
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    item = kind.value_type
    return bool(
        pa.types.is_struct(item)
        and item.num_fields
        and all(
            pa.types.is_string(each.type)
            or pa.types.is_large_string(each.type)
            or pa.types.is_null(each.type)
            for each in item
        )
    )


def message_cells(table: pa.Table, name: str) -> list[bytes | None]:
    """The cells of a column of messages, as `list_cells` gives those of lists."""
    column = table.column(name)
    # As bytes: strings in Parquet are not checked when they are read.
    item = pa.struct([(each.name, pa.large_binary()) for each in column.type.value_type])
    return [
        None if cell is None else _messages(cell)
        for cell in pc.cast(column, pa.large_list(item)).to_pylist()
    ]


def _messages(cell: list[dict[str, bytes | None] | None]) -> bytes:
    try:
        return msgspec.json.encode(
            [
                None if item is None else {k: v and v.decode() for k, v in item.items()}
                for item in cell
            ]
        )
    except UnicodeDecodeError:
        return _NOT_UTF8


def _texts(cell: list[bytes | None]) -> bytes:
    try:
        return msgspec.json.encode([None if item is None else item.decode() for item in cell])
    except UnicodeDecodeError:
        return _NOT_UTF8


def _named(item: int | None, names: list[str]) -> _Item:
    return names[item] if item is not None and 0 <= item < len(names) else item


def names_of(schema: pa.Schema, column: str) -> list[str]:
    """The names in the metadata that Hugging Face's datasets write; empty where there are none."""
    try:
        written: Any = msgspec.json.decode((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = written["info"]["features"][column]
        # [{...}] and {"feature": {...}}: both have been written for a list.
        inner = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        return msgspec.convert(inner["names"], list[str])
    except (
        msgspec.MsgspecError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        return []
