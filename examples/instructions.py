"""Synthetic instructions and preferences: which ward a complaint belongs to; an untrained model."""

from __future__ import annotations

from collections.abc import Callable
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
    _write(out, sites, ("prompt", "response"), lambda prompt, ward, _: (prompt, ward))


def write_preferences(out: Path, *, sites: int) -> None:
    """The same with `chosen` and `rejected`: the ward, and another one."""
    _write(out, sites, ("prompt", "chosen", "rejected"), lambda *row: row)


def _write(
    out: Path,
    sites: int,
    columns: tuple[str, ...],
    row: Callable[[str, str, str], tuple[str, ...]],
) -> None:
    model = small_gpt2(out / "model")
    model.save_pretrained(out / "model", safe_serialization=True)
    generator = np.random.default_rng(7)
    for name, count in parts(sites=sites, per_site=_PER_SITE, holdout=_HOLDOUT).items():
        rows = []
        for _ in range(count):
            ward, other = (str(each) for each in generator.permutation(list(_WARDS))[:2])
            complaint = str(generator.choice(_WARDS[ward]))
            prompt = str(generator.choice(_FRAMES)).format(complaint)
            rows.append(row(prompt, ward, other))
        write_table(out / "data" / f"{name}.csv", columns, rows)
