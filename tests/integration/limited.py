"""A run in a process of its own, under a limit of the operating system, or on a disk of its own."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import sys
from pathlib import Path

import pytest
from faults import Faults
from support import Quiet

import fmfl_secure.report.results
import privacy.training
from fmfl_secure.cli.exit_codes import exit_code
from fmfl_secure.transports.local.engine import LocalEngine


def run_limited(folder: Path, limit: str, amount: int) -> None:
    """Run a federation; ends with the exit code that its command would have.

    Args:
        folder: With `federation.toml`.
        limit: `NOFILE`, so many descriptors beyond those that are open; `FSIZE`, bytes a file; `AS`
            or `DATA`, bytes of memory beyond what the process has when the run begins.
        amount: How much.
    """
    _quicken()
    engine = _engine(folder)
    number = getattr(resource, f"RLIMIT_{limit}")
    soft, hard = amount + _IN_USE.get(limit, int)(), resource.getrlimit(number)[1]
    resource.setrlimit(number, (soft, hard))
    try:
        engine.run()
    except Exception as error:  # noqa: BLE001 - its kind is what is asked for
        resource.setrlimit(number, (hard, hard))
        (folder / "said").write_text(f"{type(error).__name__}: {error}")
        sys.exit(exit_code(error))


def _memory(field: str) -> int:
    """Bytes of this process, as the system counts them."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{field}:")[2].split()[0])


_IN_USE = {
    "NOFILE": lambda: max(int(name) for name in os.listdir("/proc/self/fd")) + 1,  # noqa: PTH208
    "AS": lambda: _memory("VmSize"),
    "DATA": lambda: _memory("VmData"),
}


def run_on_tmpfs(folder: Path, writer: str, room: int) -> None:
    """Run a federation of which one writer's folder is a tmpfs; once it is full, it is made larger.

    What it held when the run ended is copied back to where it would have been. `folder / "said"`
    has what ended the first try, nothing where nothing did; `folder / "skipped"` why a tmpfs is not
    to be had here.

    Args:
        folder: With `federation.toml`.
        writer: Its folder there.
        room: KiB beyond what it holds before the run.
    """
    _quicken()
    engine = _engine(folder)
    place, before = folder / writer, folder / "before"
    place.mkdir(exist_ok=True)
    shutil.copytree(place, before)
    used = sum(4096 * (1 + file.stat().st_size // 4096) for file in place.rglob("*")) // 1024
    try:
        _own_mounts()
        _mount("tmpfs", place, f"size={used + room}k")
    except OSError as error:
        (folder / "skipped").write_text(f"a tmpfs cannot be mounted here: {error}")
        return
    shutil.copytree(before, place, dirs_exist_ok=True)
    try:
        engine.run()
    except Exception as error:  # noqa: BLE001 - its kind is what is asked for
        (folder / "said").write_text(f"{exit_code(error)} {type(error).__name__}: {error}")
        _mount("tmpfs", place, "size=64m", remount=True)
        _engine(folder, resume=True).run()
    shutil.copytree(place, folder / "after")


def _quicken() -> None:
    import torch

    torch.set_num_threads(1)
    fmfl_secure.report.results.write_report = lambda *_: None  # type: ignore[assignment]
    privacy.training.check_admission = lambda *_, **__: None  # type: ignore[assignment]
    Faults().install(pytest.MonkeyPatch())  # nothing of it fails: its clock spares the waiting


def _engine(folder: Path, *, resume: bool = False) -> LocalEngine:
    path = folder / "federation.toml"
    return LocalEngine(path, folder / "run", resume=resume, observer=Quiet())


# Of <sched.h> and <sys/mount.h>; Python has neither call before 3.12.
_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000
_MS_REMOUNT, _MS_REC, _MS_PRIVATE = 0x20, 0x4000, 0x40000


def _own_mounts() -> None:
    """Have this process see mounts of its own, which end with it."""
    if os.geteuid() != 0:
        ids = os.geteuid(), os.getegid()
        _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        for name, number in zip(("uid_map", "gid_map"), ids, strict=True):
            Path("/proc/self", name).write_text(f"0 {number} 1")
    else:
        _call("unshare", _CLONE_NEWNS)
    _call("mount", None, b"/", None, _MS_REC | _MS_PRIVATE, None)


def _mount(kind: str, place: Path, options: str, *, remount: bool = False) -> None:
    flags = _MS_REMOUNT if remount else 0
    _call("mount", kind.encode(), str(place).encode(), kind.encode(), flags, options.encode())


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
