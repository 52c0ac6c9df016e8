"""Memory of a process, as the system counts it."""

from __future__ import annotations

import contextlib
from pathlib import Path


def resident_mib(pid: int | None = None) -> float:
    """Memory that a process, this one unless said, has now, mapped files included."""
    return _status_mib("VmRSS", pid)


def peak_mib(pid: int | None = None) -> float:
    """The most it has had since it began, or since `forget_peak`."""
    # VmHWM belongs to this process image; getrusage would inherit the parent's.
    return _status_mib("VmHWM", pid)


def forget_peak() -> None:
    """Begin anew; where that is not allowed, what was before stays in the peak."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status_mib(name: str, pid: int | None) -> float:
    for line in Path(f"/proc/{pid or 'self'}/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status does not tell memory: run on Linux")
