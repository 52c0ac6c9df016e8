"""Matrices in GGUF's blocks: those of a GGUF file as they are, or any model's, made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fmfl_secure.errors import ModelError
from fmfl_secure.models.block_weights import BLOCK, KINDS, BlockKind, dequantised

Blocks = tuple[str, torch.Tensor, BlockKind | None]


def made_blocks(model: nn.Module, kind: BlockKind) -> Iterator[Blocks]:
    """A model's tensors, with the matrices of linear layers and embeddings rounded to blocks."""
    # Of an extra, whose absence was told before.
    from gguf import GGMLQuantizationType, quants

    matrices = _matrices(model)
    for name, tensor in _state(model):
        if name in matrices and tensor.shape[-1] % BLOCK == 0:
            values = tensor.float().numpy()
            packed = quants.quantize(values, GGMLQuantizationType[kind.upper()])
            yield name, torch.from_numpy(packed), kind
        else:
            yield name, tensor.float(), None


def kept_blocks(model: nn.Module, file: Path) -> Iterator[Blocks]:
    """The tensors of a model that came from a GGUF file, in the blocks that the file has.

    A file names its tensors otherwise, and some have their rows in another order: each matrix is
    found by its rows' own values, every one of which has to be there bit by bit. Matrices in other
    kinds of blocks are kept as the values that they stand for.

    Args:
        model: As transformers dequantised it, in float32.
        file: The GGUF file.
    """
    from gguf import GGUFReader

    found: dict[tuple[tuple[int, ...], bytes], list[tuple[torch.Tensor, BlockKind]]] = {}
    for each in GGUFReader(str(file)).tensors:
        kind = each.tensor_type.name.lower()
        if kind in KINDS:
            blocks = torch.from_numpy(np.array(each.data))
            values = dequantised(blocks, kind).numpy()
            key = values.shape, _first(values)
            found.setdefault(key, []).append((blocks, kind))
    matrices = _matrices(model)
    for name, tensor in _state(model):
        if name in matrices:
            values = tensor.float().numpy()
            for blocks, kind in found.get((values.shape, _first(values)), ()):
                placed = _placed(values, blocks, kind)
                if placed is not None:
                    yield name, placed, kind
                    break
            else:
                yield name, tensor.float(), None
        else:
            yield name, tensor.float(), None


def _first(values: NDArray[np.float32]) -> bytes:
    """The smallest row, which no order of rows changes."""
    return bytes(min(row.tobytes() for row in values))


def _placed(
    values: NDArray[np.float32], blocks: torch.Tensor, kind: BlockKind
) -> torch.Tensor | None:
    """Blocks with their rows in the order of a matrix; None where they are not that matrix."""
    places = {row.tobytes(): n for n, row in enumerate(dequantised(blocks, kind).numpy())}
    order = [places.get(row.tobytes(), -1) for row in values]
    return None if -1 in order else blocks[order]


def _matrices(model: nn.Module) -> set[str]:
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, nn.Embedding)
    }


def _state(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor once: a matrix that is embedding and output layer under its first name."""
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            seen.add(tensor.data_ptr())
            yield name, tensor


def require_some(kinds: set[BlockKind | None], source: str) -> None:
    """Return if anything is in blocks.

    Raises:
        ModelError: Nothing is.
    """
    if kinds <= {None}:
        raise ModelError(
            f"{source} has no matrix in blocks of {', '.join(KINDS)}",
            hint="Make them: --weights q8_0, q4_0 or q4_1.",
        )
