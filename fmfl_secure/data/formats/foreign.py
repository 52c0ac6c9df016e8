"""Recognises files that are none of the forms read here, by name, so that they can be mended.

Each is known by how it begins. None of these beginnings is one of a table in UTF-8.

`data.formats.base` refuses a file of which it knows what it is, and `data.formats.registry` and
`data.pictures.registry` say of one that nobody reads what it seems to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fmfl_secure.data.errors import DataEncodingError, DataError, UnreadableFileError

HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that a file turns out to be.

    Attributes:
        name: What it is, as a refusal says it.
        begins: Whether a file that begins so is one.
        advice: What to do.
        kind: What to raise.
    """

    name: str
    begins: Callable[[bytes], bool]
    advice: str
    kind: type[DataError] = UnreadableFileError


def _with(*beginnings: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(beginnings)


def _marked(*beginnings: bytes) -> Callable[[bytes], bool]:
    """Beginnings that a column's name might have, too: of a binary file where bytes tell so."""
    return lambda head: head.startswith(beginnings) and any(byte < 9 for byte in head[:64])


def _zip_of(*names: bytes) -> Callable[[bytes], bool]:
    """A ZIP archive by the name of its first entry."""
    return lambda head: head.startswith(b"PK\x03\x04") and any(n in head[30:] for n in names)


def _utf16_unmarked(head: bytes) -> bool:
    """Latin letters in UTF-16: every other byte is NUL, on one side. A text in UTF-8 has none."""
    line = head.partition(b"\n")[0][:64]  # of the header, not of a record
    pairs = line[: len(line) // 2 * 2]
    sides = pairs[::2], pairs[1::2]
    return len(pairs) >= 4 and any(
        side.count(0) * 2 > len(side) and other.count(0) == 0
        for side, other in (sides, sides[::-1])
    )


_EXPORT = "export it as .csv, .jsonl or .parquet"
_TO_UTF8 = "convert it: iconv -f UTF-16{} -t UTF-8 FILE > NEW"
FOREIGN: Final[tuple[Foreign, ...]] = (
    Foreign(
        "a Git LFS pointer, and not the data that it stands for",
        _with(b"version https://git-lfs.github.com/"),
        "fetch the data: git lfs pull",
    ),
    Foreign(
        "a .DS_Store, which macOS leaves in folders",
        _with(b"\0\0\0\x01Bud1"),
        "name the data file beside it",
    ),
    Foreign(
        "an OLE file: Windows' Thumbs.db, or a document of an old Office",
        _with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        f"name the data file beside it, or {_EXPORT}",
    ),
    Foreign("an Office document", _zip_of(b"[Content_Types].xml", b"_rels/"), _EXPORT),
    Foreign("an OpenDocument", _zip_of(b"mimetypeapplication/vnd.oasis"), _EXPORT),
    Foreign("an NPZ archive of NumPy", _zip_of(b".npy"), "give it the extension .npz"),
    Foreign("a ZIP archive", _with(b"PK\x03\x04", b"PK\x05\x06"), "unpack it"),
    Foreign(
        "compressed with gzip", _with(b"\x1f\x8b"), "give it .gz as last extension, or unpack it"
    ),
    Foreign(
        "compressed with bzip2, xz, zstd or 7z",
        _with(b"BZh91AY&SY", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf"),
        "unpack it",
    ),
    Foreign("Parquet", _marked(b"PAR1"), "give it the extension .parquet"),
    Foreign("encrypted Parquet", _marked(b"PARE"), "decrypt it"),
    Foreign("an Arrow or Feather file", _marked(b"ARROW1", b"FEA1"), "write it as .parquet"),
    Foreign("an array of NumPy", _with(b"\x93NUMPY"), "write it as .parquet or .npz"),
    Foreign(
        "a pickle, which is a program and is never opened",
        _with(b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        _EXPORT,
    ),
    Foreign("a SQLite database", _with(b"SQLite format 3\0"), _EXPORT),
    Foreign("HDF5", _with(b"\x89HDF\r\n\x1a\n"), _EXPORT),
    Foreign("ORC", _marked(b"ORC"), "write it as .parquet"),
    Foreign("Avro", _with(b"Obj\x01"), "write it as .parquet"),
    Foreign("a PDF", _with(b"%PDF-"), _EXPORT),
    Foreign(
        "a web page: a download that asked for a log-in, as a rule",
        lambda head: head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")),
        "fetch the file itself",
    ),
    Foreign(
        "a picture",
        _with(b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
        "name a table with a column of paths, or a folder with a subfolder for each label",
    ),
    Foreign(
        "UTF-32; expected UTF-8",
        _with(b"\xff\xfe\0\0", b"\0\0\xfe\xff"),
        "convert it: iconv -f UTF-32 -t UTF-8 FILE > NEW",
        DataEncodingError,
    ),
    Foreign(
        "UTF-16; expected UTF-8",
        _with(b"\xff\xfe", b"\xfe\xff"),
        _TO_UTF8.format(""),
        DataEncodingError,
    ),
    Foreign(
        "UTF-16 without a mark; expected UTF-8",
        _utf16_unmarked,
        _TO_UTF8.format("LE") + ", or UTF-16BE",
        DataEncodingError,
    ),
)


SYSTEM_FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".DS_Store": "which macOS leaves in folders",
        "._*": "which macOS leaves on other systems' disks",
        "Thumbs.db": "which Windows leaves among pictures",
        "ehthumbs.db": "which Windows leaves among pictures",
        "desktop.ini": "which Windows leaves in folders",
    }
)


def left_by_a_system(name: str) -> str:
    """Returns what left a file of this name that nobody put there; empty for any other.

    By its name, which says it for certain: it is no record, and is passed over with a word.
    """
    for pattern, what in SYSTEM_FILES.items():
        if fnmatchcase(name.lower(), pattern.lower()):
            return f"{pattern}, {what}"
    return ""


def refuse_foreign(path: Path, head: bytes) -> None:
    """Refuse a file that begins as one of these.

    Raises:
        UnreadableFileError: It does.
        DataEncodingError: It is text, and not UTF-8.
    """
    found = recognise(head)
    if found is not None:
        raise found.kind(f"the file is {found.name}", hint=found.advice, path=path)


def recognise(head: bytes) -> Foreign | None:
    """Recognises a file by how it begins; None where it may be a table."""
    return next((known for known in FOREIGN if known.begins(head)), None)
