"""Is this machine ready? Each check says what it found, and what to do where it found a fault.

Nothing is changed and nothing is asked of the network.

`fmfl-secure doctor` (`cli.doctor`) calls `examine` and shows each `Finding`.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fmfl_secure.extras import how_to_install

_LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "opacus",
    "dp-accounting",
    "tenseal",
    "cryptography",
    "numpy",
    "safetensors",
)
_EXTRAS = {
    "a ledger in PostgreSQL": ("psycopg", "postgresql"),
    "a federation across machines": ("fastapi", "server"),
}
_DISK_GIB, _MEMORY_GIB = 2.0, 4.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's result.

    Attributes:
        what: What was looked at.
        state: `ok`, `missing` for what only some uses need, `question` for what people have to
            answer, or `fault`.
        found: What is there.
        advice: What to do; empty where all is well.
    """

    what: str
    state: Literal["ok", "missing", "question", "fault"]
    found: str
    advice: str = ""


def examine(folder: Path) -> Iterator[Finding]:
    """Check this machine, quick things first.

    Args:
        folder: Where federations will be; need not exist yet.
    """
    yield Finding("Python", "ok", ".".join(map(str, sys.version_info[:3])))
    yield from (_library(name) for name in _LIBRARIES)
    yield from (_extra(what, *needs) for what, needs in _EXTRAS.items())
    yield _room(folder)
    yield _memory()
    yield _durable(folder)
    yield _works("encryption", _encrypt_and_decrypt, "Reinstall tenseal==0.3.18.")
    yield _works(
        "post-quantum key agreement",
        _agree,
        "Install cryptography 48 or newer, whose OpenSSL has ML-KEM-768.",
    )
    yield _works("private training", _clip, "Reinstall opacus and torch.")
    yield _base_model()


def _library(name: str) -> Finding:
    try:
        return Finding(name, "ok", importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(
            name, "fault", "not installed", "Install this package again: docs/installing.md."
        )


def _extra(what: str, package: str, extra: str) -> Finding:
    try:
        return Finding(what, "ok", f"{package} {importlib.metadata.version(package)}")
    except importlib.metadata.PackageNotFoundError:
        return Finding(what, "missing", f"{package} is not installed", how_to_install(extra))


def _room(folder: Path) -> Finding:
    free = shutil.disk_usage(_nearest(folder)).free / 2**30
    found = f"{free:.1f} GiB free"
    if free >= _DISK_GIB:
        return Finding("disk", "ok", found)
    return Finding("disk", "fault", found, f"Have {_DISK_GIB:g} GiB free for models and runs.")


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = f"{total:.1f} GiB"
    if total >= _MEMORY_GIB:
        return Finding("memory", "ok", found)
    advice = "Lower training.physical_batch_size and training.cache_mib."
    return Finding("memory", "missing", found, advice)


def _durable(folder: Path) -> Finding:
    """A ledger needs a place where files can be private and are on disk once synced."""
    what = "private and durable files"
    try:
        with tempfile.TemporaryDirectory(dir=_nearest(folder)) as place:
            descriptor = os.open(Path(place) / "probe", os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.fsync(descriptor)
                shared = _mode(descriptor) & 0o077
            finally:
                os.close(descriptor)
    except OSError as error:
        return Finding(
            what, "fault", error.strerror or type(error).__name__, "Choose another folder."
        )
    if shared:
        return Finding(
            what,
            "fault",
            "others may read what is made here",
            "Choose a folder on a file system that keeps permissions.",
        )
    return Finding(what, "ok", str(_nearest(folder)))


def _mode(descriptor: int) -> int:
    return os.fstat(descriptor).st_mode


def _works(what: str, attempt: Callable[[], None], advice: str) -> Finding:
    try:
        attempt()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a library is the finding
        return Finding(what, "fault", f"{type(error).__name__}: {error}", advice)
    return Finding(what, "ok", "works")


def _encrypt_and_decrypt() -> None:
    from aggregation.testing import works  # noqa: PLC0415 - the libraries are what is looked at

    if not works():
        raise ArithmeticError("a sum of three encrypted values came out wrong")


def _agree() -> None:
    from cryptography.hazmat.primitives.asymmetric import mlkem  # noqa: PLC0415

    private = mlkem.MLKEM768PrivateKey.generate()
    secret, sealed = private.public_key().encapsulate()
    if private.decapsulate(sealed) != secret:
        raise ArithmeticError("two parties agreed on different keys")


def _clip() -> None:
    import torch  # noqa: PLC0415
    from torch.nn import functional  # noqa: PLC0415

    from privacy.training import check_admission  # noqa: PLC0415

    records = torch.linspace(-2.0, 2.0, 24).reshape(8, 3)
    check_admission(
        torch.nn.Linear(3, 2),
        loss=lambda model, batch: functional.cross_entropy(
            model(batch), torch.zeros(len(batch), dtype=torch.int64), reduction="none"
        ),
        collate=lambda chosen: records[torch.from_numpy(chosen)],
        records=8,
        physical_batch_size=4,
    )


def _base_model() -> Finding:
    from fmfl_secure.models.base import find_base_model  # noqa: PLC0415

    try:
        base = find_base_model("minilm")
    except Exception as error:  # noqa: BLE001 - as above
        advice = f"{how_to_install('minilm')}, or set model.base to a local folder."
        return Finding("base model minilm", "missing", str(error), advice)
    return Finding("base model minilm", "ok", base.digest)


def _nearest(folder: Path) -> Path:
    place = folder.absolute()
    while not place.is_dir():
        place = place.parent
    return place
