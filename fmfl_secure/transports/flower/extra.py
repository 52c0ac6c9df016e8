"""Whether what this engine needs besides the core is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import ClassVar

from fmfl_secure.errors import FmflError, Nature
from fmfl_secure.extras import how_to_install


class FlowerMissing(FmflError):
    """A package of the extra `flower` is not installed."""

    nature: ClassVar[Nature] = "decided"
    code = "configuration"


def needs_flower_extra() -> None:
    """Check for it, without loading any of it.

    Raises:
        FlowerMissing: Something is not installed.
    """
    for name in ("flwr", "ray", "httpx", "starlette", "uvicorn", "prometheus_client"):
        if find_spec(name) is None:
            raise FlowerMissing(f"{name} is not installed", hint=how_to_install("flower"))
