"""Records that a command leaves in a run's folder for its report."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from fmfl_secure.errors import RunError
from fmfl_secure.outside import MALFORMED, MOST_DOCUMENT, read_regular

_Record = TypeVar("_Record", bound=msgspec.Struct)


def read_record(path: Path, kind: type[_Record], *, hint: str) -> _Record | None:
    """A record from JSON; None where there is none.

    Args:
        path: The file.
        kind: What it holds.
        hint: What to do about one that cannot be read.

    Raises:
        RunError: It cannot be read, or is no such record.
    """
    try:
        return msgspec.json.decode(read_regular(path, most_bytes=MOST_DOCUMENT), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, *MALFORMED) as error:
        raise RunError(f"cannot read {path}: {error}", hint=hint) from error
