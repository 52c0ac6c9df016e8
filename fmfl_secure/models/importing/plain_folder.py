"""Folders of transformers with safetensors, as a source of blocks; as they are, they need none."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForCausalLM

from fmfl_secure.models.base import find_base_model
from fmfl_secure.models.importing.source import Origin, Parts, copied_assets, sha256_of
from fmfl_secure.models.library_errors import reading
from fmfl_secure.models.provenance import licence
from fmfl_secure.models.unlisted import architecture_for


def read_folder(folder: Path) -> tuple[Parts, Origin]:
    """Read a folder's model in float32.

    Raises:
        ModelError: It is no base model that can be used here.
    """
    base = find_base_model(str(folder))
    kind = AutoModelForCausalLM if architecture_for(base).causal else AutoModel
    with reading("the base model", folder):
        model = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
        )
    first = min(folder.glob("*.safetensors"))
    return Parts(model, copied_assets(folder)), Origin(
        title=folder.resolve().name,
        file=first.name,
        sha256=sha256_of(first),
        form="safetensors",
        licence=licence(folder),
    )
