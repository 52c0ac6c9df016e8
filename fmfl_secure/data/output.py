"""Writing data files all at once, with this package's error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fmfl_secure.data.errors import OutputError
from fmfl_secure.errors import RunError, is_passing, os_failure
from fmfl_secure.storage import files


def write_files(out: Path, contents: Mapping[str, bytes]) -> None:
    """Writes several files into one directory; see `fmfl_secure.storage.files.write_files`.

    Raises:
        OutputError: The directory or a file cannot be written.
        Unavailable: There is no room for them now.
    """
    try:
        files.write_files(out, contents)
    except OSError as error:
        if is_passing(error):
            raise os_failure(RunError, f"{out}: the files cannot be written", error) from None
        raise OutputError(
            f"the files cannot be written: {error.strerror or type(error).__name__}",
            hint="check that the directory is writable and that there is space",
            path=out,
        ) from None
