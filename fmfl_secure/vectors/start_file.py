"""A `RunStart` as a file: how a server gets what it computes with from whoever has the base model.

One safetensors file: the first adapter's tensors, and the rest as JSON in the header's metadata.
It may come from anywhere, so it is read as data, within limits, and everything that the server
would do by it is checked here. What it says of base model, layouts and grids is not: sites compare
that with their own.

`planning.task` writes one where the base model is (`make_start_file`), and `runtime.start` reads
it where the server is.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import safetensors
import safetensors.numpy

from aggregation import AggregationError, Quantization
from fmfl_secure._version import __version__
from fmfl_secure.errors import ModelError, StartError
from fmfl_secure.outside import MALFORMED, open_regular
from fmfl_secure.settings.federation import FederationConfig
from fmfl_secure.storage.files import write_outputs
from fmfl_secure.vectors.adapter import Adapter, adapter_digest
from fmfl_secure.vectors.adapter_files import AdapterFiles, Length
from fmfl_secure.vectors.layout import FlatLayout, TensorSlot
from fmfl_secure.vectors.start import RunStart

START_FILE: Final = "start.safetensors"  # its name in a server's kit
_KEY: Final = "fmfl-secure.start"
_FORMAT: Final = 1
# An update has at most 2**26 values, and an adapter besides what is frozen in it.
_MAX_BYTES: Final = 1 << 30
_MAX_HEADER_BYTES: Final = 16 << 20
_LENGTH_BYTES: Final = 8  # in front of the header
_MAX_LAYOUTS: Final = 16
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.(json|safetensors)")
_MAKE: Final = "Make it again where the base model is: fmfl-secure start-file FEDERATION.toml."


class _Slot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    shape: tuple[Length, ...]


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    made_by: str
    settings_digest: str
    base_model: str
    base_model_digest: str
    base_model_license: str
    layouts: tuple[tuple[_Slot, ...], ...]
    grids: tuple[Quantization, ...]
    adapter_digest: str
    files: AdapterFiles
    answer_layout: tuple[_Slot, ...] | msgspec.UnsetType = msgspec.UNSET
    answer_grid: Quantization | msgspec.UnsetType = msgspec.UNSET


def write_start(start: RunStart, path: Path) -> None:
    """Write what a run starts from.

    Raises:
        RunError: The file cannot be written.
        StartError: It would be larger than is read.
    """
    facts = _Facts(
        format=_FORMAT,
        made_by=f"fmfl-secure {__version__}",
        settings_digest=start.settings_digest,
        base_model=start.base_model,
        base_model_digest=start.base_model_digest,
        base_model_license=start.base_model_license,
        layouts=tuple(_slots(each) for each in start.layouts),
        grids=start.grids,
        adapter_digest=adapter_digest(start.adapter),
        files=start.files,
        answer_layout=_slots(start.answer_layout) if start.answer_layout else msgspec.UNSET,
        answer_grid=start.answer_grid or msgspec.UNSET,
    )
    metadata = {_KEY: msgspec.json.encode(facts).decode()}
    tensors = dict(Adapter.read(start.adapter).tensors)
    data = bytes(safetensors.numpy.save(tensors, metadata=metadata))
    _require_size(path, len(data), int.from_bytes(data[:_LENGTH_BYTES], "little"))
    write_outputs(
        path.parent,
        {path.name: data},
        what="what a run starts from",
        hint="Check that the folder is writable and that there is space.",
    )


def read_start(path: Path, config: FederationConfig) -> RunStart:
    """Read what a run by these settings starts from.

    Args:
        path: What `write_start` wrote.
        config: The federation's settings.

    Raises:
        StartError: It is not there, too large, damaged, made for other settings, or asks for what
            no server does.
    """
    facts, adapter = _read(path)
    if facts.settings_digest != config.digest:
        raise StartError(f"{path} was made for other settings than these", hint=_MAKE)
    start = RunStart(
        settings_digest=facts.settings_digest,
        base_model=facts.base_model,
        base_model_digest=facts.base_model_digest,
        base_model_license=facts.base_model_license,
        layouts=tuple(_layout(each) for each in facts.layouts),
        grids=facts.grids,
        adapter=adapter.encode(),
        files=facts.files,
        answer_layout=_layout(facts.answer_layout) if facts.answer_layout else None,
        answer_grid=facts.answer_grid or None,
    )
    if adapter_digest(start.adapter) != facts.adapter_digest:
        raise _damaged(path, "its adapter is not the one it was made with")
    _require_consistent(path, start, adapter, config)
    return start


def is_start(path: Path) -> bool:
    """Returns whether a file says that it is what a run starts from, whole or not."""
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            return _KEY in (opened.metadata() or {})
    except (OSError, safetensors.SafetensorError, ValueError):
        return False


def is_for(path: Path, config: FederationConfig) -> bool:
    """Whether a file can be used with these settings."""
    try:
        read_start(path, config)
    except StartError:
        return False
    return True


def _slots(layout: FlatLayout) -> tuple[_Slot, ...]:
    return tuple(_Slot(slot.name, slot.shape) for slot in layout.slots)


def _layout(slots: tuple[_Slot, ...]) -> FlatLayout:
    return FlatLayout(tuple(TensorSlot(slot.name, slot.shape) for slot in slots))


def _read(path: Path) -> tuple[_Facts, Adapter]:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            _require_size(path, size, int.from_bytes(file.read(_LENGTH_BYTES), "little"))
        with safetensors.safe_open(path, framework="numpy") as opened:
            text = (opened.metadata() or {}).get(_KEY, "")
            tensors: dict[str, Any] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError:
        raise StartError(
            f"there is no {path}: a server has no base model of its own, and starts from that file",
            hint=_MAKE,
        ) from None
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror or error}") from error
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    try:
        facts = msgspec.json.decode(text, type=_Facts)
    except (AggregationError, *MALFORMED) as error:
        raise _damaged(path, error) from error
    if facts.format != _FORMAT:
        raise StartError(f"{path} is of format {facts.format}, this version reads {_FORMAT}")
    return facts, Adapter(tensors, {})


def _require_size(path: Path, size: int, header: int) -> None:
    if size > _MAX_BYTES or header > _MAX_HEADER_BYTES:
        raise StartError(
            f"{path} takes {size} bytes, {header} of them for its header; at most {_MAX_BYTES} and "
            f"{_MAX_HEADER_BYTES} are read"
        )


def _require_consistent(
    path: Path, start: RunStart, adapter: Adapter, config: FederationConfig
) -> None:
    """Refuses a start that would fail later, in the middle of a run or in another run's folder."""
    most = _MAX_LAYOUTS if config.trains else 0
    if not min(1, most) <= len(start.layouts) <= most or len(start.grids) != len(start.layouts):
        raise _damaged(path, f"{len(start.layouts)} layouts and {len(start.grids)} grids")
    if not start.base_model.isprintable() or not start.base_model_license.isprintable():
        raise _damaged(path, "a name that cannot be printed")
    for name, tensor in adapter.tensors.items():
        if tensor.dtype != np.float32 or not bool(np.isfinite(tensor).all()):
            raise _damaged(path, f"{name} is not finite, in float32")
    for layout, grid in zip(start.layouts, start.grids, strict=True):
        if list(layout.slots) != sorted(set(layout.slots), key=lambda slot: slot.name):
            raise _damaged(path, "a layout that is not in order")
        try:
            layout.require((segment.name, segment.size) for segment in grid.segments)
            adapter.require(layout)
        except ModelError as error:
            raise _damaged(path, error) from error
    _require_answers(path, start, config)
    for name in start.files.names:
        if _NAME.fullmatch(name) is None:
            raise _damaged(path, "a file of the adapter has a name that no adapter's file has")
    if len(set(start.files.names)) != len(start.files.names):
        raise _damaged(path, "two files of the adapter have one name")
    if config.trains:  # else no adapter is written from them
        try:
            start.files.require(adapter)
        except ModelError as error:
            raise _damaged(path, error) from error


def _require_answers(path: Path, start: RunStart, config: FederationConfig) -> None:
    layout, answers = start.answer_layout, start.answer_grid
    if not (layout is None) == (answers is None) == (config.asked is None):
        raise _damaged(path, "a layout of answers that these settings do not ask for, or none")
    if layout is not None and answers is not None:
        try:
            layout.require((segment.name, segment.size) for segment in answers.segments)
        except ModelError as error:
            raise _damaged(path, error) from error


def _damaged(path: Path, why: object) -> StartError:
    return StartError(f"{path} is not what a run starts from: {why}", hint=_MAKE)
