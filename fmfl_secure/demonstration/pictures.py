"""The private data of the demonstration: one scanned letter a site, and a model that learns them.

The model is one linear layer, as a classifier's head is one: the attack on it is exact, and what
it gets is a picture that everyone can judge.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import nn

from privacy import PrivacyPlan
from privacy.mechanism.training import PrivateTrainer

SIDE: Final = 32  # pixels; with 8 letters the weights fill two CKKS ciphertexts to the last slot
LETTERS: Final = "ABEGHKRS"
SIZES: Final = (len(LETTERS) * SIDE * SIDE, len(LETTERS))  # weight and bias
_SEED: Final = 4

Picture = npt.NDArray[np.float64]
"""Grey values from 0 to 1, shape (SIDE, SIDE)."""


def draw_letter(letter: str, rng: np.random.Generator) -> Picture:
    """A letter as a scanner might see it: tilted, shifted, on paper that is not quite white."""
    canvas = Image.new("L", (4 * SIDE, 4 * SIDE), 255)
    font = ImageFont.load_default(size=3.4 * SIDE)
    centre = tuple(2.0 * SIDE + float(shift) for shift in rng.integers(-6, 7, 2))
    ImageDraw.Draw(canvas).text((centre[0], centre[1]), letter, fill=20, font=font, anchor="mm")
    canvas = canvas.rotate(float(rng.uniform(-14, 14)), fillcolor=255)
    small = canvas.resize((SIDE, SIDE), Image.Resampling.BOX)
    paper = np.asarray(small, dtype=np.float64) / 255 - rng.uniform(0, 0.12, (SIDE, SIDE))
    return np.clip(paper, 0.0, 1.0)


def private_pictures(sites: int) -> list[tuple[Picture, int]]:
    """A picture and its class for each site: another letter for each of the first eight."""
    rng = np.random.default_rng(_SEED)
    classes = [place % len(LETTERS) for place in range(sites)]
    return [(draw_letter(LETTERS[label], rng), label) for label in classes]


def new_model() -> nn.Linear:
    """The public model that a round starts from; the same for everybody."""
    model = nn.Linear(SIDE * SIDE, len(LETTERS))
    generator = torch.Generator().manual_seed(_SEED)
    with torch.no_grad():
        model.weight.copy_(0.01 * torch.randn(model.weight.shape, generator=generator))
        model.bias.zero_()
    return model


def unprotected_update(picture: Picture, label: int) -> npt.NDArray[np.float64]:
    """Takes one step of SGD on one picture, without privacy; its change, shape (8200,)."""
    model = new_model()
    loss = nn.functional.cross_entropy(model(_row(picture)), torch.tensor([label]))
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    return -torch.cat([g.reshape(-1) for g in gradients]).numpy().astype(np.float64)


def private_plan(epsilon: float, delta: float) -> PrivacyPlan:
    """One step in which the one record takes part for certain: the worst case for it."""
    return PrivacyPlan.calibrated(
        unit="record",
        population=1,
        sample_rate=1.0,
        max_grad_norm=1.0,
        steps_per_round=1,
        rounds=1,
        repeats=0,
        epsilon=epsilon,
        delta=delta,
    )


def private_update(picture: Picture, label: int, plan: PrivacyPlan) -> npt.NDArray[np.float64]:
    """The same step through this project's trainer: clipped, and with noise; shape (8200,)."""
    model = new_model()
    before = _flat(model)
    row, target = _row(picture), torch.tensor([label])
    PrivateTrainer(
        model,
        plan=plan,
        loss=lambda net, batch: nn.functional.cross_entropy(net(batch), target, reduction="none"),
        collate=lambda records: row[torch.from_numpy(records)],
        units=[np.zeros(1, dtype=np.int64)],
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        physical_batch_size=1,
    ).train_round()
    return _flat(model) - before


def _row(picture: Picture) -> torch.Tensor:
    return torch.from_numpy(picture.reshape(1, -1)).float()


def _flat(model: nn.Module) -> npt.NDArray[np.float64]:
    parts = [p.detach().reshape(-1).double() for p in model.parameters()]
    return torch.cat(parts).numpy().copy()
