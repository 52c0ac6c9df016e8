"""Private federated fine-tuning of foundation models.

Several sites adapt one model together. Every site trains under differential privacy against
its own budget ledger (package `privacy`); every update is quantised, encrypted, masked and
summed by a server that can open nothing (package `aggregation`). This package carries plain
vectors, integers and frozen dataclasses between the two, and is the only one that knows both.
"""

import os

# A base model is a local folder. Nothing here may ask a hub what a party is working on, and the
# libraries below would, on their own account, at loading and saving.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

__version__ = "0.1.0"

__all__ = ["__version__"]
