"""PNG."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from fmfl_secure.data.pictures.pillow import PillowForm, both_bytes, sixteen_bits, with_layout

_GREY_AND_ALPHA = "LA;16B"


class Png(PillowForm):
    """8 bits and 16, in grey and in colour, with transparency or without."""

    name: ClassVar[str] = "PNG"
    format: ClassVar[str] = "PNG"
    suffixes: ClassVar[tuple[str, ...]] = (".png",)
    known_by: ClassVar[str] = "its signature of 8 bytes"
    rules: ClassVar[tuple[tuple[str, str], ...]] = (
        (
            "of 16 bits, in grey or colour",
            "scaled: 0 to 65535 become black and white, or what `task.image_window` says",
        ),
    )

    def begins(self, head: bytes) -> bool:
        """See `PictureForm`."""
        return head.startswith(b"\x89PNG\r\n\x1a\n")

    def deep(self, image: ImageFile.ImageFile, data: bytes) -> tuple[NDArray[Any], str] | None:
        """See `PillowForm`."""
        layout = sixteen_bits(image)
        if not layout:
            return super().deep(image, data)
        if layout == _GREY_AND_ALPHA:
            # Four bytes a pixel, as four channels of 8 bits have.
            with self.opened(data) as again:
                with_layout(again, "RGBA")
                four = np.array(again).astype(np.uint16)
            return four[..., ::2] << 8 | four[..., 1::2], "LA;16"
        return both_bytes(self, data, layout), layout[:-1]
