"""Frozen matrices in blocks of 8 or about 4 bits, multiplied in float32: a quarter of the memory.

The blocks are those of GGUF: 32 values of a row, whole numbers of 8 or 4 bits, with one scale (and
in `q4_1` one offset) as float16. They stay in the mapped file; a matrix is float32 no longer than
a product with it takes, as bfloat16 weights are (`half_weights`). All arithmetic is float32, so
that a record's gradient is as exact as on float32 weights of the same values.

`models.importing.convert` writes such a folder and `models.base` loads it: `block_kinds` finds the
tensors, and `load_blocks` puts them in their places.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

import safetensors
import safetensors.torch
import torch
from torch import nn

from fmfl_secure.errors import ModelError

BlockKind = Literal["q8_0", "q4_0", "q4_1"]
KINDS: Final[tuple[BlockKind, ...]] = get_args(BlockKind)
BLOCK: Final = 32  # values
METADATA: Final = "fmfl-secure.blocks"
# Bytes of a block in front of its whole numbers: one float16, or two.
_HEAD_BYTES: Final[Mapping[str, int]] = {"q8_0": 2, "q4_0": 2, "q4_1": 4}
BLOCK_BYTES: Final[Mapping[str, int]] = {"q8_0": 34, "q4_0": 18, "q4_1": 20}
_SHARD_BYTES: Final = 1 << 30


def dequantised(blocks: torch.Tensor, kind: BlockKind) -> torch.Tensor:
    """The values that blocks stand for.

    Args:
        blocks: uint8, shape (..., bytes).
        kind: Of the blocks.

    Returns:
        float32, shape (..., values).
    """
    head, width = _HEAD_BYTES[kind], BLOCK_BYTES[kind]
    parts = blocks.reshape(*blocks.shape[:-1], -1, width)
    scales = parts[..., :head].contiguous().view(torch.float16).float()
    values = torch.empty(*parts.shape[:-1], BLOCK, dtype=torch.float32, device=blocks.device)
    numbers = parts[..., head:]
    if kind == "q8_0":
        values.copy_(numbers.view(torch.int8))
    else:
        values[..., : BLOCK // 2] = numbers & 15
        values[..., BLOCK // 2 :] = numbers >> 4
    if kind == "q4_0":
        values.sub_(8.0)
    values.mul_(scales[..., :1])
    if kind == "q4_1":
        values.add_(scales[..., 1:])
    return values.reshape(*blocks.shape[:-1], -1)


def write_blocks(
    tensors: Iterable[tuple[str, torch.Tensor, BlockKind | None]], folder: Path
) -> None:
    """Write a model's tensors, matrices in blocks as such, a file at a time in memory.

    Args:
        tensors: Name, tensor, and what kind of blocks it is of; None for values.
        folder: That holds the configuration.
    """
    places: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    kinds: dict[str, str] = {}
    size = 0

    def close() -> None:
        file = f"model-{len(set(places.values())) + 1:05}.safetensors"
        metadata = {"format": "pt", METADATA: json.dumps(kinds, sort_keys=True)}
        safetensors.torch.save_file(shard, folder / file, metadata=metadata)
        places.update(dict.fromkeys(shard, file))
        shard.clear()
        kinds.clear()

    for name, tensor, kind in tensors:
        shard[name] = tensor.contiguous()
        if kind is not None:
            kinds[name] = kind
        size += tensor.numel() * tensor.element_size()
        if size >= _SHARD_BYTES:
            close()
            size = 0
    if shard:
        close()


def block_kinds(folder: Path) -> dict[str, BlockKind]:
    """Which tensors of a folder's files are blocks, and of what kind; empty of plain weights.

    Raises:
        ModelError: A file says what no version here wrote.
    """
    found: dict[str, BlockKind] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safetensors.safe_open(path, "pt") as file:
                said = json.loads((file.metadata() or {}).get(METADATA, "{}"))
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"cannot read {path}: {error}") from error
        if not isinstance(said, dict) or not set(said.values()) <= set(KINDS):
            raise ModelError(f"{path} has blocks of a kind that is not known here")
        found |= said
    return found


def load_blocks(build: Callable[[], Any], folder: Path, *, keep: bool) -> nn.Module:
    """A model whose matrices are blocks in mapped files, or the values that they stand for.

    Args:
        build: Makes the model, with whatever values.
        folder: What `write_blocks` wrote.
        keep: Keep matrices in blocks; else every weight becomes float32.

    Raises:
        ModelError: A weight is missing or of another shape.
    """
    from transformers.initialization import no_init_weights

    with no_init_weights():  # memory that nothing is written to is never taken
        model: Any = build()
    kinds = block_kinds(folder)
    stored: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        stored |= safetensors.torch.load_file(path)
    prefix = f"{model.base_model_prefix}."
    missing = []
    for owner, module in model.named_modules():
        for last, parameter in list(module.named_parameters(recurse=False)):
            name = f"{owner}.{last}".removeprefix(".")
            names = (name, prefix + name, name.removeprefix(prefix))
            found = next((each for each in names if each in stored), None)
            if found is None:
                missing.append(name)
                continue
            _place(module, last, parameter.shape, stored[found], kinds.get(found), keep=keep)
    _tie(model, missing)
    lacking = sorted(name for name in missing if "pooler." not in name)
    if lacking:
        raise ModelError(
            f"the weights in {folder} lack {len(lacking)} tensors, {lacking[0]} among them",
            hint="Import the model again: fmfl-secure model import.",
        )
    frozen: nn.Module = model.requires_grad_(requires_grad=False)
    return frozen.eval()


def _place(
    module: nn.Module,
    last: str,
    shape: torch.Size,
    tensor: torch.Tensor,
    kind: BlockKind | None,
    *,
    keep: bool,
) -> None:
    """Put a tensor of a file where a parameter is."""
    own = _BLOCKED.get(type(module))
    if kind is not None and (own is None or last != "weight"):
        raise ModelError(f"{type(module).__name__}.{last} is in blocks, which it cannot be")
    stored = tuple(tensor.shape)
    if kind is not None:
        stored = (*stored[:-1], stored[-1] // BLOCK_BYTES[kind] * BLOCK)
    if stored != tuple(shape):
        raise ModelError(f"a weight has shape {stored}, expected {tuple(shape)}")
    if kind is None or not keep or own is None:
        whole = tensor.float() if kind is None else dequantised(tensor, kind)
        setattr(module, last, nn.Parameter(whole, requires_grad=False))
        return
    setattr(module, last, nn.Parameter(tensor, requires_grad=False))
    # In place, and not another module: adapters and layouts go by the names that modules have.
    module.__class__ = own
    module.kind = kind  # type: ignore[assignment]


def _tie(model: Any, missing: list[str]) -> None:
    """Give the output layer the embeddings' matrix, where that is what the files leave out."""
    output, words = model.get_output_embeddings(), model.get_input_embeddings()
    if output is None or not model.config.get_text_config().tie_word_embeddings:
        return
    names = {name for name, each in model.named_modules() if each is output}
    for name in [each for each in missing if each.rpartition(".")[0] in names]:
        missing.remove(name)
        output.weight = words.weight
        if isinstance(words, _BlockEmbedding):
            output.__class__ = _BlockLinear
            output.kind = words.kind


class _BlockLinear(nn.Linear):
    kind: BlockKind

    def forward(self, activations: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = _product(activations, self.weight, self.kind)
        return product if self.bias is None else product + self.bias


class _BlockEmbedding(nn.Embedding):
    kind: BlockKind

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return dequantised(self.weight[index], self.kind)


# Exactly these types: what derives from them may read its weight in ways of its own.
_BLOCKED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: _BlockLinear,
    nn.Embedding: _BlockEmbedding,
}


class _Product(torch.autograd.Function):
    """Activations times a frozen matrix, whose float32 values live no longer than a product."""

    @staticmethod
    def forward(
        ctx: Any, activations: torch.Tensor, blocks: torch.Tensor, kind: BlockKind
    ) -> torch.Tensor:
        ctx.save_for_backward(blocks)
        ctx.kind = kind
        return nn.functional.linear(activations, dequantised(blocks, kind))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (blocks,) = ctx.saved_tensors
        return gradient @ dequantised(blocks, ctx.kind), None, None


_product: Callable[[torch.Tensor, torch.Tensor, BlockKind], torch.Tensor] = _Product.apply
