"""How to install what an extra needs, on a machine that has the product and not the extra."""

from __future__ import annotations

import importlib.metadata
import re

_OWN = "fmfl-secure"


def how_to_install(extra: str) -> str:
    """A command that works however the product was installed: from a clone, or from a wheel.

    Args:
        extra: Name of an extra, such as `server`.

    Raises:
        ValueError: The product has no such extra.
    """
    packages = _packages(extra)
    if not packages:
        raise ValueError(f"there is no extra {extra!r}")
    return "pip install " + " ".join(f"'{package}'" for package in packages)


def _packages(extra: str) -> list[str]:
    found = []
    for requirement in importlib.metadata.requires(_OWN) or ():
        package, _, marker = requirement.partition(";")
        if not re.search(rf"""extra == ['"]{re.escape(extra)}['"]""", marker):
            continue
        own = re.match(rf"{_OWN}\[(.+)\]", package.strip())
        for needed in own[1].split(",") if own else ():
            found += _packages(needed)
        found += [] if own else [package.strip()]
    return found
