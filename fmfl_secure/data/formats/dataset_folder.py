"""A folder that Hugging Face's datasets wrote with `save_to_disk`: read with pyarrow alone.

`data.formats.registry` holds its one entry, `DatasetFolder`, which opens an `ArrowSource` over all
of the Arrow files that `state.json` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import msgspec
import pyarrow as pa
from typing_extensions import override

from fmfl_secure.data.errors import DataError, UnreadableFileError
from fmfl_secure.data.formats._arrow import ARROW_FAILURES, ArrowSource
from fmfl_secure.data.formats._arrow_messages import MALFORMED, is_compressed
from fmfl_secure.data.formats._bounds import require_bounded_table
from fmfl_secure.data.formats.base import Format, unreadable
from fmfl_secure.outside import MOST_SETTINGS, is_file, open_regular, read_regular

_STATE, _SPLITS, _INFO = "state.json", "dataset_dict.json", "dataset_info.json"
_LARGEST_JSON = 1 << 26  # bytes


class DatasetFolder(Format):
    """Arrow files beside `state.json` and `dataset_info.json`."""

    name: ClassVar[str] = "a folder of Hugging Face's datasets"
    known_by: ClassVar[str] = f"`{_STATE}`, `{_SPLITS}` or `{_INFO}` in it"
    columns_from: ClassVar[str] = "the schema of its Arrow files"
    refuses: ClassVar[tuple[str, ...]] = (
        "a folder of several splits: name one, such as `DATA/train`",
        f"a cache of the library, without `{_STATE}`: write it with `save_to_disk`",
        "files that are compressed within, or named twice",
        "a data set with a selection of rows beside it, as versions before 1.2 wrote it",
    )

    @override
    def claims(self, path: Path) -> bool:
        return any(is_file(path / name) for name in (_STATE, _SPLITS, _INFO))

    @override
    def header(self, path: Path) -> ArrowSource:
        """Of every file, as they all have to go together."""
        parts = []
        for name in _files(path):
            with _opened(path, name) as reader:
                parts.append(reader.schema.empty_table())
        return ArrowSource(path, _joined(path, parts))

    @override
    def read(self, path: Path, data: bytes | None = None) -> ArrowSource:
        """`data` is of a file, and this is a folder."""
        del data
        parts = []
        for name in _files(path):
            _require_as_it_is(path, name)
            with _opened(path, name) as reader:
                parts.append(reader.read_all())
                # Arrow trusts a file's offsets, and would follow wrong ones out of its memory.
                parts[-1].validate(full=True)
                require_bounded_table(path / name, parts[-1], (path / name).stat().st_size)
        return ArrowSource(path, _joined(path, parts))


def _files(path: Path) -> list[str]:
    """The names of its Arrow files, in order."""
    splits = _json(path / _SPLITS)
    if splits is not None:
        given = splits.get("splits")
        known = [s for s in given if isinstance(s, str)] if isinstance(given, list) else []
        raise UnreadableFileError(
            f"the folder holds the splits {', '.join(map(repr, known)) or 'none'}; expected one",
            hint=f"name one of them: {path.name}/{known[0] if known else 'SPLIT'}",
            path=path,
        )
    state = _json(path / _STATE)
    if state is None:
        raise UnreadableFileError(
            f"the folder has a {_INFO} and no {_STATE}: a cache of the datasets library",
            hint="write it with save_to_disk, or as .parquet with to_parquet",
            path=path,
        )
    if any(state.get(key) for key in ("_indices_data_files", "_indices_files")):
        raise UnreadableFileError(
            "the data set is a selection of rows of what lies in the folder",
            hint="write it with flatten_indices().save_to_disk(...)",
            path=path,
        )
    held = state.get("_data_files")
    entries = held if isinstance(held, list) else []
    found = [entry.get("filename") for entry in entries if isinstance(entry, dict)]
    names = [name for name in found if isinstance(name, str) and PurePosixPath(name).name == name]
    if not names or len(set(names)) < len(entries):
        raise UnreadableFileError(
            f"{_STATE} names no Arrow files of the folder, or one of them twice",
            hint="write it once more",
            path=path,
        )
    return names


def _json(path: Path) -> dict[str, Any] | None:
    """An object; None where there is no such file."""
    if not is_file(path):
        return None
    try:
        if path.stat().st_size <= _LARGEST_JSON:
            return msgspec.json.decode(
                read_regular(path, most_bytes=MOST_SETTINGS), type=dict[str, Any]
            )
    except OSError as error:
        raise unreadable(path, error) from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    raise UnreadableFileError(
        "the file is no JSON object", hint="write the data set once more", path=path
    )


@contextmanager
def _opened(folder: Path, name: str) -> Iterator[Any]:
    """A reader of an Arrow stream."""
    try:
        with _file(folder, name) as file, pa.ipc.open_stream(file) as reader:
            yield reader
    except ARROW_FAILURES:
        raise _not_arrow(folder / name) from None


@contextmanager
def _file(folder: Path, name: str) -> Iterator[pa.NativeFile]:
    """A regular file, as Arrow reads it: in the place of one a pipe would be waited for."""
    with open_regular(folder / name), pa.OSFile(str(folder / name)) as file:
        yield file


def _require_as_it_is(folder: Path, name: str) -> None:
    """Refuse compressed buffers: what they unpack to is known once it takes the memory.

    Raises:
        UnreadableFileError: There are some, or it is no stream of Arrow.
    """
    found = False
    try:
        with _file(folder, name) as file:
            for message in pa.ipc.MessageReader.open_stream(file):
                found = found or is_compressed(message.metadata.to_pybytes())
    except (*ARROW_FAILURES, MALFORMED):
        raise _not_arrow(folder / name) from None
    if found:
        raise UnreadableFileError(
            "the Arrow file is compressed within",
            hint="write it once more with save_to_disk, or as .parquet",
            path=folder / name,
        )


def _not_arrow(path: Path) -> DataError:
    return UnreadableFileError(
        "the file is not readable as a stream of Arrow",
        hint="check that it is there and complete",
        path=path,
    )


def _joined(path: Path, parts: list[pa.Table]) -> pa.Table:
    """One table, with what the folder says that integers stand for where the files do not."""
    try:
        table = pa.concat_tables(parts)
    except pa.ArrowException:
        raise UnreadableFileError(
            "the folder's Arrow files have different columns",
            hint="write the data set once more with save_to_disk",
            path=path,
        ) from None
    if b"huggingface" in (table.schema.metadata or {}):
        return table
    info = _json(path / _INFO) or {}
    features = msgspec.json.encode({"info": {"features": info.get("features")}})
    return table.replace_schema_metadata({b"huggingface": features})
