"""A transformer whose linear layers multiply 8-bit integers, run by OpenVINO.

Weights are rounded per output channel, once. Activations are rounded while computing, with a scale for each token and each
`GROUP` of its numbers, so that a vector stays the same to the bit whatever else is in the batch; everything between the
products is in float32. A scale over the whole batch, as PyTorch's and ONNX Runtime's dynamic quantisation take it, would
make a text's vector depend on the texts beside it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock

from workbench import products, weights
from workbench.component import library_version
from workbench.errors import InputError, MissingExtraError
from workbench.machine import Machine, cpu_flags, fingerprint, threads
from workbench.quiet import quiet_transformers
from workbench.retrieval.embedders.transformer import LoadedTransformer

if TYPE_CHECKING:
    import openvino
    import torch
    from sentence_transformers import SentenceTransformer

CONVERSION = 1  # raised when `_converted` gives other numbers for the same weights
GROUP = 64  # numbers of a token that share a scale
PRODUCTS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}  # flags of processors that multiply integers


def definition() -> dict[str, Any]:
    """What decides the integers beside the weights; part of keys."""
    return {"conversion": CONVERSION, "group": GROUP, "openvino": library_version("openvino")}


def on(machine: Machine) -> Machine:
    """The machine, computing in int8.

    Raises:
        InputError: it computes on a GPU.
        MissingExtraError: OpenVINO is not installed.
    """
    if machine.device != "cpu":
        raise InputError(f"precision int8 is for processors; on {machine.device} leave it out, or set machine.device to cpu")
    if library_version("openvino") == "absent":
        raise MissingExtraError("openvino", "int8", "an embedder with precision: int8")
    # where the processor multiplies no integers, activations are not rounded either
    products = "_int8" if cpu_flags() & PRODUCTS else ""
    return replace(machine, kind=machine.kind + products, precision="int8")


class LoadedInt8(LoadedTransformer):
    """A model whose transformer computes in int8; what follows it, such as pooling, stays as it is."""

    def __init__(self, model: SentenceTransformer, device: str, source: str) -> None:
        """Begins.

        Args:
            model: in float32.
            device: ``cpu``.
            source: its weights source, under whose digest the conversion is kept.
        """
        super().__init__(model, device)
        self.in_threads = False  # OpenVINO has its own
        self.path = _folder(model, source) / "model.xml"
        self.requests: dict[int, openvino.InferRequest] = {}  # by the number of threads
        products.with_independent_rows(model)  # the layers behind the transformer; it was converted as it was

    def transform(self, features: dict[str, Any]) -> dict[str, Any]:
        import torch

        given = [features[name].numpy() for name in ("input_ids", "attention_mask")]
        number = min(threads(), torch.get_num_threads())
        if number not in self.requests:
            self.requests[number] = _compiled(self.path, number).create_infer_request()
        # the output's memory belongs to the request, which overwrites it
        found = self.requests[number].infer(given, share_inputs=True)[0]
        return features | {"token_embeddings": torch.from_numpy(found)}


def _compiled(model: Path | openvino.Model, threads: int) -> openvino.CompiledModel:
    """A model ready to compute with so many threads."""
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP,
    }
    return _openvino().Core().compile_model(model, "CPU", settings)


def operations(device: str) -> Iterator[bytes]:
    """What goes into the fingerprint of this arithmetic: products of a few rows, computed in one thread."""
    model = _openvino().Model  # imports the package, kept from reporting
    import openvino.opset13 as ops

    given = ops.parameter([-1, 384], np.float32)
    matrix = _constant(fingerprint.numbers(768, 384), inputs=1)
    product = ops.matmul(given, matrix, transpose_a=False, transpose_b=True)
    request = _compiled(model([product], [given]), 1).create_infer_request()
    for rows in fingerprint.ROWS:
        yield request.infer([fingerprint.numbers(rows, 384)])[0].tobytes()


fingerprint.OPERATIONS["int8"] = operations


def _openvino() -> Any:
    """The package, kept from reporting its use to its maker."""
    # it then takes the stand-in that it has for an absent reporter
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None stops an import; typeshed lacks it
    import openvino

    return openvino


def _folder(model: SentenceTransformer, source: str) -> Path:
    """Folder of the converted transformer, complete; converted at the first call."""
    name = f"{weights.digest(source)[:32]}-int8-{CONVERSION}-{library_version('openvino')}"
    parent = weights.home() / "converted"
    target = parent / name
    if target.is_dir():
        return target
    parent.mkdir(parents=True, exist_ok=True)
    with FileLock(parent / f"{name}.lock"):
        if not target.is_dir():
            temporary = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}-", dir=parent))
            try:
                graph = _converted(model[0].get_submodule("model"))
                _openvino().save_model(graph, temporary / "model.xml", compress_to_fp16=False)
                temporary.rename(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return target


def _converted(transformer: torch.nn.Module) -> openvino.Model:
    """The transformer's graph, from token ids and mask to token vectors, its weights in int8."""
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            return states

    example = torch.ones(2, 32, dtype=torch.long)
    with torch.no_grad(), quiet_transformers():
        graph = _openvino().convert_model(Graph().eval(), example_input={"input_ids": example, "attention_mask": example})
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "MatMul" and node.input_value(1).get_node().get_type_name() == "Constant":
            node.input(1).replace_source_output(_rounded(node.input_value(1).get_node().data, node).output(0))
    return graph


def _rounded(matrix: np.ndarray, node: Any) -> Any:
    """A node's constant matrix as int8 times one scale for each output channel."""
    return _constant(matrix, inputs=1 if node.get_attributes()["transpose_b"] else 0)


def _constant(matrix: np.ndarray, inputs: int) -> Any:
    """A matrix as int8 times one scale for each output channel; `inputs` is the axis of its inputs."""
    import openvino.opset13 as ops

    scale = np.maximum(np.abs(matrix).max(axis=inputs, keepdims=True) / 127, np.finfo(np.float32).tiny)
    integers = np.rint(matrix / scale).astype(np.int8)
    return ops.multiply(ops.convert(ops.constant(integers), "f32"), ops.constant(scale.astype(np.float32)))
