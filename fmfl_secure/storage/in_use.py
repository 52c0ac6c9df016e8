"""One process at a time in a folder: two of one party would each do half, or everything twice.

The lock is the operating system's own, on a file in the folder: it ends with the process that
holds it, however that ends, and none is left over. The file says who holds it.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from fmfl_secure.errors import InUse, ServiceError, os_failure
from fmfl_secure.outside import MALFORMED

LOCK: Final = "in-use.lock"


class _Holder(msgspec.Struct, frozen=True):
    """Who holds a folder, as its lock's file says."""

    pid: int
    host: str
    role: str
    since: str


@contextmanager
def in_use(folder: Path, role: str) -> Iterator[None]:
    """Have a folder for this process alone.

    Args:
        folder: It exists, on a local disk.
        role: What this process does in it, as others are told.

    Raises:
        InUse: Another process has it, or another part of this one.
        Unavailable, ServiceError: The lock's file cannot be used.
    """
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise os_failure(ServiceError, f"cannot use {path}", error) from error
    try:
        _lock(descriptor, path, role)
        yield
    finally:
        os.close(descriptor)  # and with it the lock goes


def _lock(descriptor: int, path: Path, role: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(
            f"{path.parent} is in use: {_told(descriptor)}",
            hint="Stop that one first, of which one may run. A process that is gone holds nothing.",
        ) from None
    except OSError as error:
        raise os_failure(ServiceError, f"cannot lock {path}", error) from error
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = _Holder(os.getpid(), socket.gethostname(), role, since)
    # For people's eyes only: nobody decides anything by it.
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, msgspec.json.encode(holder) + b"\n", 0)


def _told(descriptor: int) -> str:
    try:
        holder = msgspec.json.decode(os.pread(descriptor, 4096, 0), type=_Holder)
    except (OSError, *MALFORMED):
        return "by a process that does not say who it is"
    return f"process {holder.pid} on {holder.host} has it, as {holder.role}, since {holder.since}"
