"""The commands on base models: import."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fmfl_secure.cli._command import Group, command
from fmfl_secure.cli._console import say
from fmfl_secure.cli.answers.adapters import ModelImported

app = typer.Typer(cls=Group, help="Base models: make a folder that every party can pin.")


@app.callback()
def options() -> None:
    """Base models: make a folder that every party can pin."""


@command(app, "import", answers=ModelImported, acts="a base model is public, and no party's")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="smollm2, dinov2-small, a .gguf file, or a folder with pickled weights."
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder to make.")],
    weights: Annotated[
        Literal["float32", "blocks", "q8_0", "q4_0", "q4_1"],
        typer.Option(help="blocks keeps a GGUF file's; q8_0, q4_0 and q4_1 make blocks."),
    ] = "float32",
    picture_size: Annotated[
        int | None,
        typer.Option(help="Pixels along a side that a DINO reads images at; few cost less.", min=1),
    ] = None,
) -> ModelImported:
    """Write a model as a Hugging Face folder of safetensors, with where it came from.

    Nothing of the source is run. Matrices in blocks take a quarter to an eighth of the memory, with
    model.dtype = "blocks"; a folder of safetensors is a source of them too.

    Example: fmfl-secure model import smollm2 --output smollm2
    """
    from fmfl_secure.models.importing import import_model

    model = import_model(source, output, weights=weights, picture_size=picture_size)
    say(f"wrote {output}: {model.model_type}, {model.digest}")
    say(f"use it with base = {str(output)!r} in [model]; README.md says where it came from")
    return ModelImported(folder=str(output), model_type=model.model_type, digest=model.digest)
