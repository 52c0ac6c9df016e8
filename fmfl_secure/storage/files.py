"""Writing files so that a reader finds the old ones or the new ones, never half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from fmfl_secure.errors import RunError, os_failure


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write several files into one folder; durable when this returns.

    All are written in full and synced under temporary names first, then renamed in the order
    given: running out of space leaves the folder as it was.

    Args:
        folder: Made if missing.
        contents: Bytes by file name. A file that exists is replaced.

    Raises:
        OSError: The folder or a file cannot be written; callers say what that means.
    """
    staged: dict[Path, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        for name, data in contents.items():
            beside = folder / f".{name}.{secrets.token_hex(8)}"
            staged[beside] = folder / name
            with open(beside, "xb", opener=_for_others_to_read) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for beside, final in staged.items():
            beside.replace(final)
        _sync_folder(folder)
    finally:
        for beside in staged:
            beside.unlink(missing_ok=True)


def write_outputs(
    folder: Path, contents: Mapping[str, bytes], *, what: str, hint: str = ""
) -> None:
    """Write what people take away, as `write_files` does.

    Args:
        folder: Made if missing.
        contents: Bytes by file name.
        what: What the files are, for the error's text.
        hint: What to do if they cannot be written; by default make room, or check the path.

    Raises:
        Unavailable: They cannot be written now.
        RunError: The folder is none.
    """
    try:
        write_files(folder, contents)
    except OSError as error:
        raise os_failure(
            RunError, f"{what} cannot be written to {folder}", error, hint=hint
        ) from error


def write_output(path: Path, data: bytes) -> None:
    """Write a file that somebody named, as `write_files` does.

    Raises:
        Unavailable: It cannot be written now.
        RunError: There can be no such file.
    """
    try:
        write_files(path.parent, {path.name: data})
    except OSError as error:
        raise os_failure(RunError, f"cannot write {path}", error) from error


def require_new(path: Path) -> None:
    """Refuse to write over a file: it may be what is read, a ledger, or somebody's only copy.

    Raises:
        RunError: Something is there.
    """
    if os.path.lexists(path):
        raise RunError(
            f"{path} exists, and is not written over",
            hint="Name another file to write, or move that one away.",
        )


def write_secret(path: Path, secret: bytes) -> None:
    """Write a file that its owner alone may read, unless it is there; durable when this returns.

    Another process may do the same at once: one of the two is kept, and both find it whole.

    Raises:
        OSError: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
        _sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def _for_others_to_read(path: str, flags: int) -> int:
    # Less what the account's umask takes away; never for others to write, whatever it leaves.
    return os.open(path, flags, 0o644)


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once its directory is.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
