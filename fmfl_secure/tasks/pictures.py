"""Images as the model's own processor prepares them: what all tasks that see images share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fmfl_secure.data import decode_image
from fmfl_secure.models.base import BaseModel
from fmfl_secure.models.prefix import RecordCache

# Of images made up: how likely a patch is its label's own, how many lie side by side, how wide.
# With these the gradients of DINOv2-small's head and of FFA-LoRA in two layers are .011 and .48 C
# long with the settings of the digits; as many real ones of each label give .021 and .37.
OWN_PATCHES: Final = 0.4
_PATCHES, _PIXELS = 8, 8


class Pictures:
    """Encoded images, prepared when a batch needs them and kept while there is room.

    Args:
        base: The model whose processor prepares them.
        encoded: The bytes of each image file; every one decodes.
        cache: Where prepared images are kept.
    """

    def __init__(self, base: BaseModel, encoded: Sequence[bytes], cache: RecordCache) -> None:
        self._processor = base.load_image_processor()
        self._encoded = encoded
        self._cache = cache

    def __repr__(self) -> str:
        return "Pictures(<private>)"

    def __len__(self) -> int:
        return len(self._encoded)

    def pixel_values(self, records: NDArray[np.int64]) -> torch.Tensor:
        """Float32, shape (b, channels, height, width)."""
        return torch.stack([self._prepared(int(record)) for record in records])

    def _prepared(self, record: int) -> torch.Tensor:
        key = ("pixels", record)
        if key in self._cache:
            return self._cache[key]
        image = decode_image(self._encoded[record])
        prepared = self._processor(images=[image], return_tensors="pt")
        pixels: torch.Tensor = prepared["pixel_values"][0].to(torch.float32)
        self._cache.put(key, pixels)
        return pixels


def synthetic_images() -> list[bytes]:
    """Eight images: of one colour, of noise, of one pixel, wide, high."""
    generator = np.random.default_rng(20260103)
    sizes = [(1, 1), (8, 8), (16, 16), (64, 64), (5, 90), (90, 5), (33, 47), (128, 128)]
    found = []
    for number, (height, width) in enumerate(sizes):
        values = generator.integers(0, 256, size=(height, width, 3), dtype=np.uint8)
        if number % 4 == 1:
            values[:] = 255 * (number == 5)
        found.append(_encoded(values))
    return found


def telling_images(labels: NDArray[np.int64]) -> list[bytes]:
    """Images whose labels can be told: patches of grey, some of which are the label's own.

    Args:
        labels: Of each image, int64, shape (images,).
    """
    generator = np.random.default_rng(20260106)
    grid = (int(labels.max(initial=0)) + 1, _PATCHES, _PATCHES)
    own = generator.integers(0, 256, size=grid, dtype=np.uint8)
    found = []
    for label in labels:
        others = generator.integers(0, 256, size=grid[1:], dtype=np.uint8)
        telling = generator.random(grid[1:]) < OWN_PATCHES
        patches = np.where(telling, own[label], others).repeat(_PIXELS, 0).repeat(_PIXELS, 1)
        found.append(_encoded(np.repeat(patches[:, :, None], 3, axis=2)))
    return found


def _encoded(values: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()
