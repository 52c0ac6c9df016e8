"""How far residues are from zero: what colluders have of an update, or of a mask."""

from __future__ import annotations

from typing import Any

import numpy as np

from aggregation.ckks import residues


def spread(values: Any, modulus: int) -> float:
    """Mean absolute value, centred: a quarter of q for uniform residues, far less for an update."""
    return float(np.abs(residues.to_signed(values, modulus)).mean())
