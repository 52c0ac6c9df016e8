"""Forms that hold 8 bits of a channel and no more."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from fmfl_secure.data.pictures.pillow import PillowForm


class Jpeg(PillowForm):
    """Photographs; of a telephone's MPO the first one."""

    name: ClassVar[str] = "JPEG"
    format: ClassVar[str] = "JPEG"
    suffixes: ClassVar[tuple[str, ...]] = (".jpg", ".jpeg")
    known_by: ClassVar[str] = "`FF D8 FF`"
    rules: ClassVar[tuple[tuple[str, str], ...]] = (
        ("of a telephone's MPO, with previews behind it", "the photograph"),
    )

    @override
    def begins(self, head: bytes) -> bool:
        return head.startswith(b"\xff\xd8\xff")


class WebP(PillowForm):
    """Photographs and drawings, in WebP."""

    name: ClassVar[str] = "WebP"
    format: ClassVar[str] = "WEBP"
    suffixes: ClassVar[tuple[str, ...]] = (".webp",)
    known_by: ClassVar[str] = "`RIFF`, and `WEBP` eight bytes on"

    @override
    def begins(self, head: bytes) -> bool:
        return head.startswith(b"RIFF") and head[8:12] == b"WEBP"


class Bitmap(PillowForm):
    """Windows' bitmaps, without compression or nearly."""

    name: ClassVar[str] = "BMP"
    format: ClassVar[str] = "BMP"
    suffixes: ClassVar[tuple[str, ...]] = (".bmp",)
    known_by: ClassVar[str] = "`BM`"

    @override
    def begins(self, head: bytes) -> bool:
        return head.startswith(b"BM")


class Gif(PillowForm):
    """Drawings of up to 256 colours."""

    name: ClassVar[str] = "GIF"
    format: ClassVar[str] = "GIF"
    suffixes: ClassVar[tuple[str, ...]] = (".gif",)
    known_by: ClassVar[str] = "`GIF87a` or `GIF89a`"

    @override
    def begins(self, head: bytes) -> bool:
        return head.startswith((b"GIF87a", b"GIF89a"))
