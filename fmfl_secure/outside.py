"""Files that come from outside: regular ones alone, so large at most, and nested so deep at most.

A pipe in a file's place keeps whoever opens it waiting for ever, a device has no end, and a parser
that calls itself ends the process on what is nested a thousand times. All are refused as a file
that cannot be read, or that is not JSON or TOML, is: by `OSError` and `ValueError`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

MOST_DOCUMENT: Final = 256 << 20  # bytes of what other parties send: reports, requests, kits
MOST_SETTINGS: Final = 16 << 20  # bytes of settings, and of a model's own descriptions
# What msgspec ends by on bytes of another's: text that is no UTF-8, and what is nested too deeply,
# are errors of Python's own.
MALFORMED: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)
_PIECE: Final = 1 << 20  # bytes
_NO_FILE: Final = "it is no file but a pipe, a device or a socket"
_KEY: Final = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY: Final = re.compile(rf"(?<![A-Za-z0-9_-]){_KEY}(?:[ \t]*+\.[ \t]*+{_KEY}){{64}}")


def open_regular(path: Path) -> BinaryIO:
    """A regular file's bytes, and nothing else's.

    Raises:
        OSError: It cannot be opened, or is a pipe, a device, a socket or a folder.
    """
    if "\0" in str(path):  # which Python refuses by a ValueError
        raise OSError(errno.EINVAL, "its name has a NUL character in it", str(path))
    try:
        # Without waiting for somebody to write into a pipe; of a regular file it says nothing.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.ENODEV}:  # a socket; a device without a driver
            raise OSError(errno.EINVAL, _NO_FILE, str(path)) from error
        raise
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, _NO_FILE, str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def is_folder(path: Path) -> bool:
    """Whether a place is a folder. One that cannot be looked at is none: reading it says why."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether a place is a file, as `is_folder` says it of folders."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_regular(path: Path, *, most_bytes: int | None = None) -> bytes:
    """All of a regular file.

    Args:
        path: The file.
        most_bytes: Largest that is read; None reads any, for data that are as large as they are.

    Raises:
        OSError: As `open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        if most_bytes is None:
            return file.read()
        pieces, left = [], most_bytes + 1
        # A read takes the memory that it asks for, however short the file is.
        while left and (piece := file.read(min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
    if not left:
        raise OSError(errno.EINVAL, f"it has more than {most_bytes} bytes", str(path))
    return b"".join(pieces)


def read_settings(path: Path) -> str:
    """Text of a file of settings, or of a description, without a byte-order mark.

    Raises:
        OSError: As `read_regular`.
        UnicodeDecodeError: It is no UTF-8.
    """
    return read_regular(path, most_bytes=MOST_SETTINGS).decode("utf-8-sig")


def parse_json(text: str) -> Any:
    """JSON's values.

    Raises:
        ValueError: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_toml(text: str) -> dict[str, Any]:
    """TOML's values.

    Raises:
        tomllib.TOMLDecodeError: It is no TOML, nested too deeply, or has a number of thousands of
            digits.
    """
    if _LONG_KEY.search(text) is not None:  # what the parser takes hours for
        raise tomllib.TOMLDecodeError("it is nested too deeply")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise tomllib.TOMLDecodeError("it is nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python reads no whole number of so many digits
        raise tomllib.TOMLDecodeError("a number has too many digits") from None
