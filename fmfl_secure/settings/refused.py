"""Settings that people ask for and that cannot be: refused in words, with what to use instead.

Aggregation under encryption opens a weighted sum and nothing else, and a record's gradient under
privacy may depend on that record alone. What needs more than that is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_NOT_A_SUM = "its result is no weighted sum of the sites' updates, and only a sum can be opened"
_LOOKS_AT_ONE = "it compares the sites' updates with each other, which nobody ever sees"
_COMPARES = "equal weights; a site's own clipping bounds what it can do"

# (section, key): value: (reason, instead).
REFUSED_SETTINGS: Mapping[tuple[str, str], Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        ("adapter", "kind"): {
            "flora": (
                f"FLoRA stacks the sites' matrices: {_NOT_A_SUM}",
                "rolora or ffa-lora, whose averages are exact",
            ),
            "dora": (
                "DoRA divides by the norm of the updated weight, where hooks see no record alone",
                "lora with rank_stabilised = true",
            ),
            "adalora": (
                "AdaLoRA drops ranks by what it reads off a site's data: layouts would tell of it",
                "lora, with a public rank for each site if need be",
            ),
            "vera": ("VeRA trains bare vectors, where hooks see no record alone", "ffa-lora"),
        },
        ("aggregation", "rule"): {
            "krum": (f"Krum picks the update nearest to others: {_LOOKS_AT_ONE}", _COMPARES),
            "trimmed-mean": (
                f"a trimmed mean leaves out extremes: {_LOOKS_AT_ONE}",
                _COMPARES,
            ),
            "median": (f"a median orders the updates: {_LOOKS_AT_ONE}", _COMPARES),
            "scaffold": (
                "its control variates are gradients of a site's data that are not charged",
                "equal weights",
            ),
        },
    }
)

INFO_NCE = (
    "InfoNCE under privacy of a record: every pair of a batch is in every other pair's loss, and "
    "leaving one out moved the clipped sum by 1.90 times the bound that the noise is scaled to"
)
INFO_NCE_INSTEAD = "task.loss = 'sigmoid' with public anchors, or 'cosine'"


def find_refusal(data: Any) -> tuple[str, str] | None:
    """Why parsed settings ask for something that cannot be; None where nothing of it is known.

    Args:
        data: The settings, not validated.

    Returns:
        What was asked for and why not, and what to use instead.
    """
    if not isinstance(data, Mapping):
        return None
    for (section, key), values in REFUSED_SETTINGS.items():
        content = data.get(section)
        value = content.get(key) if isinstance(content, Mapping) else None
        if isinstance(value, str) and value in values:
            reason, instead = values[value]
            return f"{section}.{key} = {value!r} is refused: {reason}", f"Use {instead}."
    return None
