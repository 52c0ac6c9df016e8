"""The interface of a form of picture: one entry of the registry each.

`data.pictures.registry` asks each form whether a file is its own, and `data.images` decodes by it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmfl_secure.data._source import UnusableValue
from fmfl_secure.data.errors import UnusableImageError
from fmfl_secure.data.pictures.depth import Window, to_8_bits

MAX_PIXELS = 64_000_000  # 256 MB decoded
MAX_DEEP_PIXELS = 32_000_000  # 256 MB as numbers, a channel at a time
MAX_BYTES = 1 << 28  # of a file
# Of the longer side to the shorter, which a model's processor makes some hundred pixels: a strip of
# one pixel by a million, 3 KB as PNG, would be a picture of gigabytes then.
MAX_RATIO = 100
_HINT = 'replace or remove the image, or set on_bad_row = "skip"'


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Decoded:
    """A picture as it was read. Private: has no useful repr.

    Attributes:
        image: RGB of 8 bits, upright.
        mode: How the file holds it, such as `L`, `RGB`, `I;16`.
        stored: Least and greatest of its values, where they are not those of `image`.
        person: Whose it is, where its header says so.
    """

    image: Image.Image
    mode: str
    stored: Window | None = None
    person: str | None = None

    def __repr__(self) -> str:
        return "Decoded(<private>)"


class PictureForm(ABC):
    """One form that a picture may have.

    Attributes:
        name: How a refusal and the documents name it.
        suffixes: Usual ends of file names, for the documents: what a file is, its content says.
        known_by: How its content is recognised, for the documents.
        rules: What a picture of some kind becomes, in pairs, for the documents.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    known_by: ClassVar[str]
    rules: ClassVar[tuple[tuple[str, str], ...]] = ()

    @abstractmethod
    def begins(self, head: bytes) -> bool:
        """Whether a file that begins so is of this form; of its first 512 bytes."""

    @abstractmethod
    def decode(self, data: bytes, window: Window | None) -> Decoded:
        """The picture.

        Args:
            data: The file.
            window: What becomes black and white where there are more than 8 bits.

        Raises:
            UnusableValue: It cannot be read, or not with certainty. Quotes nothing of the file.
        """

    def require_extra(self) -> None:  # noqa: B027
        """Refuse the form where what reads it is not installed.

        Raises:
            UnusableValue: It is not.
        """

    def require_whole(self, data: bytes) -> None:  # noqa: B027
        """Refuse a file that decodes and lacks a part of the picture, which would be black.

        Args:
            data: A file that decodes.

        Raises:
            UnusableValue: It does.
        """


def unusable(problem: str, advice: str = "", sort: str = "") -> UnusableValue:
    """The refusal of a picture.

    Args:
        problem: What is wrong.
        advice: What to do.
        sort: What it is called where faults are counted.
    """
    return UnusableValue(UnusableImageError, problem, advice or _HINT, sort)


def partial(name: str) -> UnusableValue:
    """The refusal of a file that lacks a part of its picture."""
    return unusable(
        f"the {name} file holds less of the picture than its header says",
        "fetch or export it once more: what is missing would be black",
        "picture of which a part is missing",
    )


def require_size(width: int, height: int, *, deep: bool) -> None:
    """Refuse a picture that would take too much memory, before it is decoded.

    Raises:
        UnusableValue: It has no pixels, or too many, or is a strip.
    """
    if not 0 < width * height <= (MAX_DEEP_PIXELS if deep else MAX_PIXELS):
        raise wrong_size()
    if max(width, height) > MAX_RATIO * min(width, height):
        raise unusable(
            f"one side of the image is more than {MAX_RATIO} times the other",
            "replace or remove it: a model that makes its shorter side some hundred pixels long "
            "would need gigabytes for it",
            "image that is a strip",
        )


def wrong_size() -> UnusableValue:
    """The refusal of a picture of more pixels than are decoded, or of none."""
    return unusable(
        f"the image has too many pixels, or none: {MAX_PIXELS // 10**6} million are read, "
        f"{MAX_DEEP_PIXELS // 10**6} million of more than 8 bits",
        sort="image of too many pixels, or of none",
    )


def shaded(values: NDArray[Any], window: Window | None, what: str) -> NDArray[np.uint8]:
    """Numbers as shades of 8 bits.

    Args:
        values: Any shape.
        window: Black and white; None where neither the file nor the settings say.
        what: What the picture is of, for the refusal.

    Raises:
        UnusableValue: There is no window, or a value is no number.
    """
    shades = None if window is None else to_8_bits(values, window)
    if shades is None:
        raise unusable(
            f"an image of {what} does not say what is black and white in it, or holds what is "
            "no number",
            "say it in task.image_window, such as [0.0, 1.0], or export 8 or 16 bits",
            "image without a range (see task.image_window)",
        )
    return shades
