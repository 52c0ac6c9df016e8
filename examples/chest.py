"""Made-up chest pictures, with a nodule in a lung or without; and a model of images.

The model is DINOv2-small where the package that carries it is installed. Its stand-in is a small
vision transformer, trained on public pictures of another kind: with less noise, and with a small
calcified granuloma (dense, sharp) or a tube to find in place of a soft nodule.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from published import in_place
from small_models import small_vit, train_encoder
from tables import parts, write_table

SIDE = 48  # pixels
_PIXELS_READ = 56  # of DINOv2: 4 x 4 of its patches, a sixteenth of the work of 224 pixels
_PER_SITE, _HOLDOUT, _PUBLIC = 500, 300, 1500  # patients; public pictures
_PUBLIC_FINDINGS = ("clear", "tube", "granuloma")


def write(out: Path, *, sites: int, stand_in: bool) -> None:
    """Tables of `image`, `label` and `patient_id`, and the model's folder.

    A patient has one or two pictures.
    """
    generator = np.random.default_rng(7)
    for part, patients in parts(sites=sites, per_site=_PER_SITE, holdout=_HOLDOUT).items():
        (out / "data" / part).mkdir(parents=True, exist_ok=True)
        rows = []
        for patient in range(patients):
            label = "nodule" if generator.random() < 0.45 else "clear"
            for view in range(1 + int(generator.random() < 0.3)):
                name = f"{part}/{patient:04d}-{view}.png"
                Image.fromarray(_picture(label, generator)[0]).save(out / "data" / name)
                rows.append((name, label, f"{part}-{patient:04d}"))
        write_table(out / "data" / f"{part}.csv", ("image", "label", "patient_id"), rows)
    if not in_place(out / "model", "dinov2-small", stand_in=stand_in, picture_size=_PIXELS_READ):
        _write_stand_in(out / "model", generator)


def _write_stand_in(folder: Path, generator: np.random.Generator) -> None:
    model = small_vit(folder, image_size=SIDE)
    labels = generator.integers(len(_PUBLIC_FINDINGS), size=_PUBLIC)
    pictures, places = zip(
        *(_picture(_PUBLIC_FINDINGS[n], generator, noise=6.0) for n in labels), strict=True
    )
    colours = np.repeat(np.stack(pictures)[..., None], 3, axis=-1)
    train_encoder(
        model,
        torch.from_numpy(colours),
        torch.from_numpy(labels),
        epochs=8,
        places=torch.from_numpy(np.stack(places)).float(),
    )
    model.save_pretrained(folder, safe_serialization=True)


def _picture(
    finding: str, generator: np.random.Generator, *, noise: float = 9.0
) -> tuple[np.ndarray, np.ndarray]:
    """One picture, shape (SIDE, SIDE), uint8: two lungs, ribs, a heart, and what is found.

    With it, shape (36,): how much of the finding each of its 6 x 6 patches has, from 0 to 1.
    """
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    shift, scale = generator.normal(0, 0.02, size=2), 1 + generator.normal(0, 0.05)
    x, y = (x - 0.5 - shift[0]) * scale + 0.5, (y - 0.5 - shift[1]) * scale + 0.5
    lungs = {side: _blob(x, y, centre, 0.52, 0.16, 0.34) for side, centre in _CENTRES.items()}
    picture = 165 - 95 * np.minimum(sum(_edge(lung) for lung in lungs.values()), 1)
    ribs = np.sin(2 * np.pi * (y * 8 + 1.5 * np.abs(x - 0.5) + generator.random()))
    picture += 14 * (ribs > 0.45)
    picture += 45 * _edge(_blob(x, y, 0.55, 0.68, 0.13, 0.15))  # the heart
    side = str(generator.choice(list(_CENTRES)))
    angle, far = generator.random() * 2 * np.pi, np.sqrt(generator.random()) * 0.6
    at_x = _CENTRES[side] + 0.15 * far * np.cos(angle)
    at_y = 0.48 + 0.27 * far * np.sin(angle)
    found = np.zeros_like(picture)
    match finding:
        case "nodule":
            radius = generator.uniform(0.06, 0.09)
            found = np.exp(-(((x - at_x) / radius) ** 2 + ((y - at_y) / radius) ** 2))
        case "granuloma":
            found = _edge(_blob(x, y, at_x, at_y, 0.06, 0.06))
        case "tube":
            found = 0.6 * (np.abs(x - at_x - 0.1 * (y - 0.5)) < 0.02) * (y < 0.75)
    picture += generator.uniform(90, 120) * found
    picture = (picture - 100) * generator.uniform(0.85, 1.15) + 100 + generator.normal(0, 8)
    picture = np.clip(picture + generator.normal(0, noise, picture.shape), 0, 255)
    return picture.astype(np.uint8), found.reshape(6, SIDE // 6, 6, SIDE // 6).max((1, 3)).ravel()


_CENTRES = {"left": 0.3, "right": 0.7}


def _blob(
    x: np.ndarray, y: np.ndarray, at_x: float, at_y: float, width: float, height: float
) -> np.ndarray:
    """How far inside an ellipse each pixel is: 1 at the centre, 0 at its edge."""
    return 1 - np.hypot((x - at_x) / width, (y - at_y) / height)


def _edge(inside: np.ndarray) -> np.ndarray:
    """A soft edge."""
    return np.clip(inside * 6 + 0.5, 0, 1)
