"""Synthetic instructions: which ward a complaint belongs to; and an untrained language model."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from small_models import small_gpt2

_PER_SITE, _HOLDOUT = 500, 200
_WARDS = {
    "cardiology": ["chest pain", "palpitations", "ankle swelling"],
    "neurology": ["headache", "numb hand", "seizure"],
    "pulmonology": ["cough", "wheezing", "short breath"],
}
_FRAMES = ("Which ward for {}?", "Patient has {}. Ward?", "Refer {} to:")


def write(out: Path, *, sites: int) -> None:
    """CSV with `prompt` and `response`, for each site and a holdout, and the model's folder."""
    model = small_gpt2(out / "model")
    model.save_pretrained(out / "model", safe_serialization=True)
    generator = np.random.default_rng(7)
    (out / "data").mkdir(parents=True, exist_ok=True)
    for name, count in [
        *((f"site-{n}", _PER_SITE) for n in range(1, sites + 1)),
        ("holdout", _HOLDOUT),
    ]:
        with (out / "data" / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "response"])
            for _ in range(count):
                ward = str(generator.choice(list(_WARDS)))
                complaint = str(generator.choice(_WARDS[ward]))
                writer.writerow([str(generator.choice(_FRAMES)).format(complaint), ward])
