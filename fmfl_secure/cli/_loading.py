"""Loading machine-learning libraries in four fifths of the CPU time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# Objects made before garbage is looked for: by default 700, and loading PyTorch makes millions
# that stay. What a command leaves in cycles meanwhile is small: tensors are freed by their counts.
_OBJECTS: Final = 200_000


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for garbage seldom while this lasts; stands before short commands that load much."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
