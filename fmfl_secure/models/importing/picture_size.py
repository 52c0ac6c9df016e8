"""At how many pixels a model of images reads them: fewer cost less, where its positions stretch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fmfl_secure.errors import ModelError

# Their position embeddings are interpolated to whatever grid an image has; others have one size.
_STRETCH = frozenset({"dinov2", "dinov2_with_registers", "dinov3_vit"})
_FILE = "preprocessor_config.json"


def set_picture_size(folder: Path, config: Any, pixels: int) -> None:
    """Have the image processor of a folder scale and crop to a square of so many pixels.

    Args:
        folder: The model's, with its processor's file.
        config: The model's configuration.
        pixels: Along a side.

    Raises:
        ModelError: The model reads no images or those of one size only, or they are not whole
            patches.
    """
    if config.model_type not in _STRETCH:
        raise ModelError(
            f"{config.model_type!r} has no pictures of another size: it reads none, or its "
            "positions are of one size",
            hint=f"Leave the size out; it is for {', '.join(sorted(_STRETCH))}.",
        )
    patch = int(config.patch_size)
    if pixels < patch or pixels % patch:
        raise ModelError(
            f"pictures of {pixels} pixels are not whole patches of {patch}",
            hint=f"Use a multiple of {patch}, such as {max(1, round(pixels / patch)) * patch}.",
        )
    path = folder / _FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the model comes with no {_FILE} to set a size in") from error
    square = {"height": pixels, "width": pixels}
    settings["size"] = {"shortest_edge": pixels} if settings.get("do_center_crop") else square
    settings["crop_size"] = square
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
