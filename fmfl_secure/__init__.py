"""Private federated fine-tuning of foundation models.

Several sites adapt one model together. Every site trains under differential privacy against
its own budget ledger (package `privacy`); every update is quantised, encrypted, masked and
summed by a server that can open nothing (package `aggregation`). This package carries plain
vectors, integers and frozen dataclasses between the two, and is the only one that knows both.
"""

import os
from typing import TYPE_CHECKING, Any

from fmfl_secure._version import __version__

if TYPE_CHECKING:
    from fmfl_secure.api import Federation, Run

# A base model is a local folder. Nothing here may ask a hub what a party is working on, and the
# libraries below would, on their own account, at loading and saving.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

__all__ = ["Federation", "Run", "__version__"]


def __getattr__(name: str) -> Any:
    # On first use: they bring PyTorch with them, and the command line's help needs none.
    if name in {"Federation", "Run"}:
        from fmfl_secure import api  # noqa: PLC0415

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
