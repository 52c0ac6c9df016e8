"""Several adapters as one file: what a round starts from that chooses among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fmfl_secure.errors import ModelError

MAX_CANDIDATES: Final = 16


def join_candidates(adapters: Sequence[bytes]) -> bytes:
    """Adapters of one model, one after the other, as safetensors; equal for equal ones.

    Raises:
        ModelError: They are fewer than two, too many, or not adapters of the same tensors.
    """
    if not 2 <= len(adapters) <= MAX_CANDIDATES:
        raise ModelError(f"{len(adapters)} candidates, expected 2 to {MAX_CANDIDATES}")
    tensors: dict[str, NDArray[Any]] = {}
    first: set[str] = set()
    for number, adapter in enumerate(adapters):
        own = _load(adapter)
        first = first or set(own)
        if set(own) != first:
            raise ModelError("the candidates are adapters of different kinds or models")
        tensors |= {_name(number, name): tensor for name, tensor in sorted(own.items())}
    return bytes(safetensors.numpy.save(tensors))


def split_candidates(data: bytes, number: int) -> tuple[bytes, ...]:
    """Splits what `join_candidates` joined.

    Raises:
        ModelError: It is something else, or of another number.
    """
    parts: list[dict[str, NDArray[Any]]] = [{} for _ in range(number)]
    for name, tensor in _load(data).items():
        place, _, own = name.partition("/")
        if not (own and place.isascii() and place.isdigit() and int(place) < number):
            raise ModelError("not so many adapters to choose among")
        parts[int(place)][own] = np.ascontiguousarray(tensor)
    if any(set(part) != set(parts[0]) or not part for part in parts):
        raise ModelError("not so many adapters to choose among")
    return tuple(bytes(safetensors.numpy.save(part)) for part in parts)


def _name(number: int, name: str) -> str:
    return f"{number:02d}/{name}"


def _load(data: bytes) -> dict[str, NDArray[Any]]:
    try:
        found: dict[str, NDArray[Any]] = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"not an adapter in safetensors form: {error}") from error
    return found
