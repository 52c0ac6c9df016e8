"""Synthetic instructions: which ward a complaint belongs to; and an untrained language model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from small_models import small_gpt2
from tables import parts, write_table

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
    for name, count in parts(sites=sites, per_site=_PER_SITE, holdout=_HOLDOUT).items():
        rows = []
        for _ in range(count):
            ward = str(generator.choice(list(_WARDS)))
            complaint = str(generator.choice(_WARDS[ward]))
            rows.append((str(generator.choice(_FRAMES)).format(complaint), ward))
        write_table(out / "data" / f"{name}.csv", ("prompt", "response"), rows)
