"""The components of an experiment's file: which class a `kind` names, and what components name each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.component import Component, build, digest, load_class
from workbench.errors import InputError, unknown
from workbench.experiment.config import ComponentSettings, at
from workbench.models.served import AnyGenerator, EndpointGenerator, generator_class
from workbench.retrieval.embedders.base import AnyEmbedder
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.embedders.endpoint import EndpointEmbedder
from workbench.retrieval.expansion import Expander
from workbench.retrieval.learning import RankedTraining
from workbench.retrieval.rerankers.base import Reranker
from workbench.retrieval.rerankers.cross_encoder import CrossEncoder
from workbench.retrieval.rerankers.likelihood import Likelihood
from workbench.retrieval.rerankers.maxsim import MaxSim
from workbench.retrieval.retriever import Retriever
from workbench.retrieval.rewriting import Rewriter

# family -> what its components are derived from, and the classes that a `kind` names; they are imported when they are used
KINDS: dict[str, tuple[type[Component], dict[str, str]]] = {
    "retriever": (
        Retriever,
        {
            "bm25": "workbench.retrieval.bm25:BM25",
            "dense": "workbench.retrieval.indexes.dense:Dense",
            "fusion": "workbench.retrieval.fusion:Fusion",
        },
    ),
    "rewriter": (Rewriter, {"standalone": "workbench.retrieval.rewriting:Standalone"}),
    "expander": (
        Expander,
        {"hyde": "workbench.retrieval.expansion:HyDE", "multi_query": "workbench.retrieval.expansion:MultiQuery"},
    ),
    "reranker": (
        Reranker,
        {
            "cross_encoder": "workbench.retrieval.rerankers.cross_encoder:CrossEncoder",
            "library": "workbench.retrieval.rerankers.library:Library",
            "library_lists": "workbench.retrieval.rerankers.library_lists:LibraryLists",
            "likelihood": "workbench.retrieval.rerankers.likelihood:Likelihood",
            "maxsim": "workbench.retrieval.rerankers.maxsim:MaxSim",
            "mmr": "workbench.retrieval.rerankers.mmr:MMR",
        },
    ),
}


class Components:
    """The components of a file, built, with the names they refer to each other by checked."""

    def __init__(self, settings: ComponentSettings, folder: Path) -> None:
        self.embedders: dict[str, AnyEmbedder] = {
            n: _embedder(v, f"components.embedders.{n}") for n, v in settings.embedders.items()
        }
        self.generators: dict[str, AnyGenerator] = {
            n: build(generator_class(v), v, f"components.generators.{n}") for n, v in settings.generators.items()
        }
        self.retrievers: dict[str, Retriever] = _family("retriever", settings.retrievers, folder)
        self.rewriters: dict[str, Rewriter] = _family("rewriter", settings.rewriters, folder)
        self.expanders: dict[str, Expander] = _family("expander", settings.expanders, folder)
        self.rerankers: dict[str, Reranker] = _family("reranker", settings.rerankers, folder)
        self._check_references()
        self._check_servers()

    def references(self, component: Component) -> dict[str, Component]:
        """The components that a component's fields name, by field."""
        named: dict[str, Mapping[str, Component]] = {"embedder": self.embedders, "generator": self.generators}
        return {field: those[getattr(component, field)] for field, those in named.items() if field in component.references}

    def _check_references(self) -> None:
        families: tuple[tuple[str, Mapping[str, Component]], ...] = (
            ("rewriters", self.rewriters),
            ("retrievers", self.retrievers),
            ("expanders", self.expanders),
            ("rerankers", self.rerankers),
        )
        for family, named in families:
            for name, component in named.items():
                for field, those in (("embedder", self.embedders), ("generator", self.generators)):
                    if field in component.references and getattr(component, field) not in those:
                        where = f"components.{family}.{name}.{field}"
                        raise at(where, unknown(field, getattr(component, field), those))
        trained: tuple[tuple[str, Mapping[str, Component]], ...] = (
            ("embedders", self.embedders),
            ("rerankers", self.rerankers),
        )
        for family, named in trained:
            for name, component in named.items():
                training = training_of(component)
                if training and training.negatives_from and training.negatives_from not in self.retrievers:
                    where = f"components.{family}.{name}.train.negatives_from"
                    raise at(where, unknown("retriever", training.negatives_from, self.retrievers))
        for name, retriever in self.retrievers.items():
            self._check_fusion(name, retriever, ())
        for name, generator in self.generators.items():
            distractors = generator.lora.distractors if generator.lora else None
            if distractors and distractors not in self.retrievers:
                raise at(f"components.generators.{name}.lora.distractors", unknown("retriever", distractors, self.retrievers))

    def _check_servers(self) -> None:
        """What two servers give under one definition would be taken for the same; some things no server gives."""
        families: tuple[tuple[str, str, Mapping[str, Component]], ...] = (
            ("embedders", "vectors", self.embedders),
            ("generators", "answers", self.generators),
        )
        for family, what, named_components in families:
            seen: dict[str, tuple[str, str]] = {}
            for name, one in named_components.items():
                if isinstance(one, (EndpointEmbedder, EndpointGenerator)):
                    other, endpoint = seen.setdefault(digest(one.definition()), (name, one.endpoint))
                    if endpoint != one.endpoint:
                        raise InputError(
                            f"components.{family}.{name}: {one.model!r} is served at {one.endpoint} and, as {other}, at "
                            f"{endpoint}; give each a revision, since nothing else tells their {what} apart"
                        )
        for name, reranker in self.rerankers.items():
            if isinstance(reranker, Likelihood) and isinstance(self.generators[reranker.generator], EndpointGenerator):
                raise InputError(
                    f"components.rerankers.{name}.generator: a server gives no probabilities of a given text, and "
                    f"{reranker.kind} ranks by those of the question; name a generator with weights"
                )
            named = self.embedders[reranker.embedder] if isinstance(reranker, MaxSim) else None
            if isinstance(named, EndpointEmbedder):
                raise InputError(
                    f"components.rerankers.{name}.embedder: a server gives one vector for a text, and {reranker.kind} compares "
                    f"tokens; name an embedder with weights"
                )

    def _check_fusion(self, name: str, retriever: Retriever, above: tuple[str, ...]) -> None:
        for part in getattr(retriever, "of", ()):
            where = f"components.retrievers.{name}.of"
            if part not in self.retrievers:
                raise at(where, unknown("retriever", part, self.retrievers))
            if part in (*above, name):
                raise InputError(f"{where}: {part!r} is fused with itself")
            self._check_fusion(part, self.retrievers[part], (*above, name))


def _family(family: str, named: dict[str, dict[str, Any]], folder: Path) -> dict[str, Any]:
    return {name: of_kind(family, values, f"components.{family}s.{name}", folder) for name, values in named.items()}


def _embedder(values: dict[str, Any], where: str) -> AnyEmbedder:
    """Weights here, or a server's."""
    return build(EndpointEmbedder if "endpoint" in values else Embedder, values, where)


def training_of(component: Component) -> RankedTraining | None:
    """How an embedder or a reranker is trained on the train split, or None."""
    return component.train if isinstance(component, (Embedder, CrossEncoder)) else None


def of_kind(family: str, values: Any, where: str, folder: Path) -> Any:
    """A component whose class its `kind` names.

    Args:
        family: a key of `KINDS`.
        values: its settings as read from the file.
        where: its place in the file.
        folder: where a class's own file is looked for, as in ``./mine.py:MyReranker``.

    Raises:
        InputError: no kind, an unknown one, or settings that its class refuses.
    """
    base, kinds = KINDS[family]
    if not isinstance(values, dict) or "kind" not in values:
        raise InputError(f"{where}: the key 'kind' is required; it names the class, e.g. {{kind: {next(iter(kinds))}}}")
    kind = str(values["kind"])
    if ":" not in kind and kind not in kinds:
        raise at(f"{where}.kind", unknown(f"kind of {family}", kind, [*kinds, "./file.py:Class", "package.module:Class"]))
    return build(load_class(kinds.get(kind, kind), base, folder), values, where)
