"""A published base model where the package that carries it is installed."""

from __future__ import annotations

from pathlib import Path

from fmfl_secure.errors import ModelError
from fmfl_secure.models.importing import import_model


def in_place(folder: Path, name: str, *, stand_in: bool, picture_size: int | None = None) -> bool:
    """Whether a model is in a folder now: there already, or imported. Says which.

    Args:
        folder: The model's.
        name: What `fmfl-secure model import` knows it by.
        stand_in: Import nothing: a small model is to be built.
        picture_size: At how many pixels it is to read images.
    """
    if folder.exists():
        print(f"{folder} is there already, and is kept")
        return True
    if stand_in:
        print(f"a small model is built in place of {name}")
        return False
    try:
        model = import_model(name, folder, picture_size=picture_size)
    except ModelError as error:
        print(f"{error}: a small model is built in place of {name} ({error.hint})")
        return False
    print(f"imported {name}: {model.digest}")
    return True
