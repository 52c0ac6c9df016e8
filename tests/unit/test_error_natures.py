"""Every class of error says what follows from it; whoever makes an outcome of one asks that."""

from __future__ import annotations

import errno
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fmfl_secure
from fmfl_secure.cli.exit_codes import ExitCode, exit_code
from fmfl_secure.errors import (
    KNOWN_ERRORS,
    ModelError,
    RunError,
    Unavailable,
    is_passing,
    os_failure,
    said,
)
from fmfl_secure.models.library_errors import reading
from fmfl_secure.storage.errors import storage_errors
from privacy import StorageDamaged, StorageExists, StorageMissing, StorageUnavailable

NATURES = {"passing", "decided", "damage"}
ROOT = Path(fmfl_secure.__file__).parents[1]
CLASS = re.compile(r"^class (\w+)\((?:\w+\.)*(\w+)\):", re.MULTILINE)


def _import_all() -> None:
    """Every module that defines a class of error; the others, and what they bring, can stay out."""
    sources = {
        path: CLASS.findall(path.read_text(encoding="utf-8"))
        for package in ("fmfl_secure", "privacy", "aggregation")
        for path in (ROOT / package).rglob("*.py")
    }
    names = {base.__name__ for base in KNOWN_ERRORS}
    while (
        more := {name for found in sources.values() for name, base in found if base in names}
        - names
    ):
        names |= more
    for path, found in sources.items():
        if any(base in names for _, base in found):
            module = path.relative_to(ROOT).with_suffix("")
            importlib.import_module(".".join(module.parts).removesuffix(".__init__"))


def _below(base: type[Exception]) -> Iterator[type[Exception]]:
    yield base
    for each in base.__subclasses__():
        yield from _below(each)


def _undeclared(base: type[Exception]) -> list[str]:
    ours = ("fmfl_secure.", "privacy.", "aggregation.")
    return [
        f"{each.__module__}.{each.__qualname__}"
        for each in _below(base)
        if each.__module__.startswith(ours) and vars(each).get("nature") not in NATURES
    ]


def test_every_class_declares_its_nature() -> None:
    _import_all()
    for base in KNOWN_ERRORS:
        assert _undeclared(base) == []
        assert len(list(_below(base))) > 15


def test_a_class_that_declares_none_is_found() -> None:
    silent = type("Silent", (RunError,), {"__module__": "fmfl_secure.invented"})
    try:
        assert _undeclared(RunError) == ["fmfl_secure.invented.Silent"]
    finally:
        silent.__module__ = "elsewhere"  # a class lives on for as long as its base


@pytest.mark.parametrize(
    ("raised", "nature"),
    [
        (StorageUnavailable, "passing"),
        (StorageMissing, "damage"),
        (StorageDamaged, "damage"),
        (StorageExists, "decided"),
    ],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_a_store_s_failure_keeps_its_nature(raised: type[Exception], nature: str) -> None:
    with pytest.raises(fmfl_secure.errors.FmflError) as told, storage_errors("cannot write"):
        raise raised("the disk")
    assert told.value.nature == nature
    assert str(told.value) == "cannot write: the disk"


@pytest.mark.parametrize("name", ["ENOSPC", "EIO", "EMFILE", "ENFILE", "EROFS", "ENOMEM", "EFBIG"])
def test_the_system_s_surroundings_pass(name: str) -> None:
    error = OSError(getattr(errno, name), "as the system says")
    assert is_passing(error)
    told = os_failure(RunError, "cannot write", error)
    assert type(told) is Unavailable
    assert str(told) == "cannot write: as the system says"


def test_missing_memory_passes_and_says_so() -> None:
    assert is_passing(MemoryError())
    assert exit_code(MemoryError()) == ExitCode.INTERRUPTED
    assert said(MemoryError()) == "there is not enough memory"
    for text in (
        "<function _find_and_load> returned NULL without setting an exception",
        "error return without exception set",
    ):
        lost = SystemError(text)
        assert is_passing(lost)
        assert exit_code(lost) == ExitCode.INTERRUPTED
        assert said(lost) == "there is not enough memory"
    assert not is_passing(SystemError("bad argument to internal function"))
    for text in (
        "[enforce fail at alloc_cpu.cpp] can't allocate memory",
        "could not create a primitive",
    ):
        assert exit_code(RuntimeError(text)) == ExitCode.INTERRUPTED
    assert exit_code(RuntimeError("size mismatch")) == ExitCode.BUG


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (RuntimeError("[enforce fail at alloc_cpu.cpp] can't allocate memory"), MemoryError),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), MemoryError),
        (RuntimeError("could not create a primitive"), MemoryError),
        (OSError(errno.EIO, "Input/output error"), Unavailable),
        (RuntimeError("size mismatch"), ModelError),
    ],
    ids=["allocator", "mmap", "kernel", "disk", "file"],
)
def test_a_model_that_cannot_be_loaded_now_is_no_wrong_model(
    raised: Exception, told: type[Exception]
) -> None:
    with pytest.raises(told) as found, reading("the base model", Path("folder")):
        raise raised
    assert type(found.value) is told
    assert is_passing(found.value) == (told is not ModelError)


@pytest.mark.parametrize("name", ["ENOENT", "EACCES", "EISDIR"])
def test_a_wrong_path_does_not_pass(name: str) -> None:
    error = OSError(getattr(errno, name), "as the system says")
    assert not is_passing(error)
    assert type(os_failure(RunError, "cannot write", error)) is RunError
