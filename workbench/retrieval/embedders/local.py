"""Weights on disk -> an embedder in memory."""

from __future__ import annotations

from workbench import products, weights
from workbench.errors import InputError
from workbench.machine import Machine
from workbench.models import attention
from workbench.quiet import quiet_transformers
from workbench.retrieval.embedders import int8
from workbench.retrieval.embedders.static import LoadedStatic, is_model2vec
from workbench.retrieval.embedders.transformer import LoadedTransformer


def read(source: str, machine: Machine) -> LoadedTransformer | LoadedStatic:
    """The model of a weights source, computing in the machine's precision.

    Raises:
        InputError: its files cannot be read, it begins with something else than a transformer or static embeddings, or
            static embeddings were asked to compute in int8.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    machine.prepare()
    path = weights.folder(source)
    integers = machine.precision == "int8"  # what is no product then stays in float32
    try:
        with quiet_transformers():
            if is_model2vec(path):
                model = SentenceTransformer(modules=[StaticEmbedding.load(str(path))], device=machine.device)
            else:
                dtype = torch.float32 if integers else getattr(torch, machine.precision)
                model = SentenceTransformer(str(path), device=machine.device, model_kwargs={"dtype": dtype})
    except Exception as error:  # each library below raises its own kinds for damaged weights
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"weights {source!r}: {path} cannot be read as a sentence-transformers model: {reason}") from error
    model.eval()
    first = model[0]
    if isinstance(first, Transformer):
        if integers:
            return int8.LoadedInt8(model, machine.device, source)
        attention.independent(first.auto_model)
        return LoadedTransformer(products.with_independent_rows(model), machine.device)
    if not isinstance(first, StaticEmbedding):
        raise InputError(
            f"weights {source!r}: the model begins with {type(first).__name__}; allowed: a transformer, static embeddings"
        )
    if integers:
        raise InputError(f"weights {source!r}: static embeddings multiply nothing that int8 would speed up; leave precision out")
    return LoadedStatic(model, first, machine.device)
