"""Base models and adapters: plain PyTorch, Transformers and PEFT, no privacy and no network."""

from fmfl_secure.models.adapters import AdapterSpec
from fmfl_secure.models.base import BaseModel, find_base_model
from fmfl_secure.models.layout import Layout

__all__ = ["AdapterSpec", "BaseModel", "Layout", "find_base_model"]
