"""scikit-learn's digits as images, and a vision transformer trained on some of them in public.

1,797 scans of handwritten digits (UCI, CC BY 4.0). 400 are public, and the base model is trained
on them; sites and holdout have others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from small_models import IMAGE_SIZE, small_vit, train_encoder

_PUBLIC, _HOLDOUT = 400, 300


def write(out: Path, *, sites: int) -> None:
    """A folder with a subfolder a label for each site and a holdout, and the model's folder."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - an extra that no other example needs

    digits = load_digits()
    order = np.random.default_rng(7).permutation(len(digits.target))
    public, held_out, rest = np.split(order, [_PUBLIC, _PUBLIC + _HOLDOUT])
    parts = {f"site-{n + 1}": rest[n::sites] for n in range(sites)} | {"holdout": held_out}
    for name, chosen in parts.items():
        for index in chosen:
            folder = out / "data" / name / str(digits.target[index])
            folder.mkdir(parents=True, exist_ok=True)
            _image(digits.images[index]).save(folder / f"{index:04d}.png")
    model = small_vit(out / "model")
    pixels = np.stack([np.array(_image(digits.images[i])) for i in public])
    labels = torch.from_numpy(digits.target[public])
    train_encoder(model, torch.from_numpy(pixels), labels, epochs=25)
    model.save_pretrained(out / "model", safe_serialization=True)


def _image(values: np.ndarray) -> Image.Image:
    """8 x 8 shades from 0 to 16, as an image of the model's size."""
    image = Image.fromarray((values * 255 / 16).astype(np.uint8))
    return image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC).convert("RGB")
