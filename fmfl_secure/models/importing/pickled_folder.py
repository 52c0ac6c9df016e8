"""Hugging Face folders whose weights are pickled, by torch's loader that builds tensors alone."""

from __future__ import annotations

from pathlib import Path

import transformers
from transformers import AutoConfig

from fmfl_secure.errors import ModelError
from fmfl_secure.models.base_files import refuse_other_folders
from fmfl_secure.models.importing.source import Origin, Parts, copied_assets, sha256_of
from fmfl_secure.models.library_errors import reading
from fmfl_secure.models.provenance import licence

_WEIGHTS = "pytorch_model.bin"
_INDEX = f"{_WEIGHTS}.index.json"


def read_pickled(folder: Path) -> tuple[Parts, Origin]:
    """Read a folder's `pytorch_model.bin`, or the parts that its index lists.

    Raises:
        ModelError: It is no model's folder, has no such weights, or they hold more than tensors.
    """
    refuse_other_folders(folder)
    if any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has safetensors already", hint=f"Use it as it is: model.base = '{folder}'."
        )
    weights = _weights(folder)
    with reading("the configuration", folder / "config.json"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    kind = getattr(transformers, (config.architectures or [""])[0], None)
    if kind is None:
        raise ModelError(f"{folder / 'config.json'} does not name a class of transformers")
    with reading("the weights", folder):
        model, report = kind.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=False,
            weights_only=True,
            output_loading_info=True,
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(f"{weights} lacks {len(missing)} tensors, {missing[0]} among them")

    return Parts(model, copied_assets(folder)), Origin(
        title=folder.resolve().name,
        file=weights.name,
        sha256=sha256_of(weights),
        form="a pickle of tensors",
        licence=licence(folder),
    )


def _weights(folder: Path) -> Path:
    """The file with the weights, or the index of those that they are spread over."""
    for name in (_WEIGHTS, _INDEX):
        if (folder / name).is_file():
            return folder / name
    raise ModelError(
        f"{folder} has no weights that can be imported: neither {_WEIGHTS} nor {_INDEX}",
        hint="Give a folder of transformers, a .gguf file, or the name of a packaged model.",
    )
