"""Images of coloured shapes with captions, or with claims that hold or not; and two small towers.

The base model was trained on public shapes in some colours. The sites have all of them.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from small_models import IMAGE_SIZE, small_clip
from tables import parts, write_table
from torch import nn
from transformers import AutoTokenizer

_PER_SITE, _HOLDOUT = 300, 200
COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (40, 70, 220),
    "yellow": (230, 210, 50),
    "purple": (150, 50, 180),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "cross")
_PUBLIC_COLOURS = ("red", "green", "blue", "yellow")


def caption(colour: str, shape: str) -> str:
    """As the anchors in federation.toml are written."""
    return f"a {colour} {shape}"


def write_captions(out: Path, *, sites: int) -> None:
    """Tables of `image` and `text`: every image with its own caption."""
    _write(out, sites=sites, claims=False)


def write_claims(out: Path, *, sites: int) -> None:
    """Tables of `image`, `text` and `label`: a claim about an image that holds or not."""
    _write(out, sites=sites, claims=True)


def _write(out: Path, *, sites: int, claims: bool) -> None:
    generator = np.random.default_rng(7)
    kinds = list(product(COLOURS, SHAPES))
    for name, count in parts(sites=sites, per_site=_PER_SITE, holdout=_HOLDOUT).items():
        folder = out / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        rows: list[tuple[str, ...]] = []
        for number in range(count):
            own = kinds[generator.integers(len(kinds))]
            draw(*own, generator).save(folder / f"{number:04d}.png")
            image = f"{name}/{number:04d}.png"
            if not claims:
                rows.append((image, caption(*own)))
                continue
            holds = bool(generator.random() < 0.5)
            other = kinds[generator.integers(len(kinds))]
            told = own if holds else other
            rows.append((image, caption(*told), "true" if told == own else "false"))
        header = ("image", "text", "label") if claims else ("image", "text")
        write_table(out / "data" / f"{name}.csv", header, rows)
    words = ["a", *COLOURS, *SHAPES]
    model = small_clip(out / "model", words)
    _train(model, AutoTokenizer.from_pretrained(out / "model"), generator)
    model.save_pretrained(out / "model", safe_serialization=True)


def draw(colour: str, shape: str, generator: np.random.Generator) -> Image.Image:
    """One shape somewhere on a dark ground."""
    noise = generator.integers(0, 60, size=(IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    pen, fill = ImageDraw.Draw(image), COLOURS[colour]
    size = int(generator.integers(10, 16))
    left, top = (int(v) for v in generator.integers(1, IMAGE_SIZE - size, size=2))
    right, bottom, third = left + size, top + size, size // 3
    match shape:
        case "circle":
            pen.ellipse((left, top, right, bottom), fill=fill)
        case "square":
            pen.rectangle((left, top, right, bottom), fill=fill)
        case "triangle":
            pen.polygon([(left, bottom), (right, bottom), ((left + right) // 2, top)], fill=fill)
        case "cross":
            pen.rectangle((left + third, top, right - third, bottom), fill=fill)
            pen.rectangle((left, top + third, right, bottom - third), fill=fill)
    return image


def _train(model: nn.Module, tokenizer: object, generator: np.random.Generator) -> None:
    """CLIP's own loss, which public data may use, on colours that are public."""
    kinds = list(product(_PUBLIC_COLOURS, SHAPES))
    texts = tokenizer([caption(*kind) for kind in kinds], return_tensors="pt", padding=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(250):
        images = np.stack([np.array(draw(*kind, generator)) for kind in kinds])
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
        optimizer.zero_grad()
        model(
            input_ids=texts["input_ids"],
            attention_mask=texts["attention_mask"],
            pixel_values=pixels,
            return_loss=True,
        ).loss.backward()
        optimizer.step()
