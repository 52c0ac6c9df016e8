"""ONNX files exported by PyTorch: the weights in them, under the names of the modules.

An export keeps the names of most parameters. The matrix of a linear layer loses its own, is
transposed, and multiplies just before the layer's bias is added: there its name is found again.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fmfl_secure.errors import ModelError
from fmfl_secure.extras import how_to_install
from fmfl_secure.models.library_errors import reading

_FORGOTTEN = "onnx::"  # begins the names that the exporter makes up


def read_onnx(path: Path) -> dict[str, torch.Tensor]:
    """All weights of an exported module by the names of its parameters.

    Those whose name cannot be found again keep the exporter's, which begins with `onnx::`.

    Raises:
        ModelError: The `onnx` package is missing, or the file is none or keeps weights elsewhere.
    """
    if importlib.util.find_spec("onnx") is None:
        raise ModelError(
            "ONNX files are read with the package onnx, which is not installed",
            hint=how_to_install("onnx"),
        )
    import onnx  # of an extra

    with reading("the model", path):
        # Without external data: a file must not make the reader open others.
        graph = onnx.load(str(path), load_external_data=False).graph
        tensors = {
            each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy())
            for each in graph.initializer
        }
        names = _names_of_matrices(graph, tensors)
    return {
        names.get(name, name): tensor.T.contiguous() if name in names else tensor
        for name, tensor in tensors.items()
    }


def _names_of_matrices(graph: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Names of linear layers' matrices, by what the exporter called them."""
    products = {
        node.output[0]: node.input[1]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in tensors
    }
    found: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        biases = [name for name in node.input if name.endswith(".bias") and name in tensors]
        matrices = [products[name] for name in node.input if name in products]
        if len(biases) == len(matrices) == 1 and matrices[0].startswith(_FORGOTTEN):
            found[matrices[0]] = biases[0].removesuffix("bias") + "weight"
    if len(set(found.values())) != len(found):
        raise ModelError("two matrices of the ONNX file belong to one bias")
    return found
