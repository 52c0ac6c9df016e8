"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from fmfl_secure.data.errors import OutputError


def write_files(out: Path, contents: Mapping[str, bytes]) -> None:
    """Writes several files into one directory.

    All are written in full and synced under temporary names first, then renamed in the order
    given: running out of space leaves the directory as it was.

    Args:
        out: Directory, made if missing.
        contents: Bytes by file name. A file that exists is replaced.

    Raises:
        OutputError: The directory or a file cannot be written.
    """
    staged: dict[Path, Path] = {}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            temporary = out / f".{name}.{secrets.token_hex(8)}"
            staged[temporary] = out / name
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for temporary, final in staged.items():
            temporary.replace(final)
    except OSError as error:
        raise OutputError(
            f"the files cannot be written: {error.strerror or type(error).__name__}",
            hint="check that the directory is writable and that there is space",
            path=out,
        ) from None
    finally:
        for temporary in staged:
            temporary.unlink(missing_ok=True)
