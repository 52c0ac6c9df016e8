"""Base models and adapters: plain PyTorch, Transformers and PEFT, no privacy and no network."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmfl_secure.models.adapters import AdapterSpec
    from fmfl_secure.models.base import BaseModel, find_base_model
    from fmfl_secure.models.layout import Layout

__all__ = ["AdapterSpec", "BaseModel", "Layout", "find_base_model"]

_HOMES = {
    "AdapterSpec": "adapters",
    "BaseModel": "base",
    "Layout": "layout",
    "find_base_model": "base",
}


def __getattr__(name: str) -> Any:
    # On first use: adapters bring PEFT, and finding a base model needs none of it.
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
