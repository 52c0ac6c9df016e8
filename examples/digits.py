"""scikit-learn's digits as images, and a vision transformer trained on some of them in public.

1,797 scans of handwritten digits (UCI, CC BY 4.0). 400 are public, and the base model is trained
on them; sites and holdout have others.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from small_models import IMAGE_SIZE, small_vit
from torch import nn

_PUBLIC, _HOLDOUT = 400, 300


def write(out: Path, *, sites: int) -> None:
    """A folder with a subfolder a label for each site and a holdout, and the model's folder."""
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
    _train(model, [_image(digits.images[i]) for i in public], digits.target[public])
    model.save_pretrained(out / "model", safe_serialization=True)


def _image(values: np.ndarray) -> Image.Image:
    """8 x 8 shades from 0 to 16, as an image of the model's size."""
    image = Image.fromarray((values * 255 / 16).astype(np.uint8))
    return image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC).convert("RGB")


def _train(model: nn.Module, images: list[Image.Image], labels: np.ndarray) -> None:
    pixels = torch.stack([torch.from_numpy(np.array(image)) for image in images])
    pixels = (pixels.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    targets = torch.from_numpy(labels)
    head = nn.Linear(64, 10)
    optimizer = torch.optim.Adam([*model.parameters(), *head.parameters()], lr=2e-3)
    for epoch in range(25):
        shuffled = torch.from_numpy(np.random.default_rng(epoch).permutation(len(images)))
        for chosen in shuffled.split(32):
            states = model(pixel_values=pixels[chosen]).last_hidden_state[:, 0]
            loss = nn.functional.cross_entropy(head(states), targets[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
