"""A measured configuration as a retriever of LangChain: it finds what the run measured, by the functions that measured it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError, MissingExtraError
from workbench.pipeline import Pipeline, Source
from workbench.results.run import Run

if TYPE_CHECKING:
    from langchain_core.retrievers import BaseRetriever


def as_langchain_retriever(
    source: Pipeline | Run | str | Path, configuration: str | None = None, k: int | None = None
) -> BaseRetriever:
    """A retriever for LangChain.

    Its documents hold a passage's text, and as metadata ``doc_id``, ``start``, ``end``, ``title``, ``rank`` from 1, ``score``,
    ``run`` and ``configuration``.

    Args:
        source: a pipeline, or a finished run or its folder.
        configuration: of a run: id, beginning of one, or label; default: the promoted one, else the best.
        k: passages returned, at most the experiment's `depth`; default: as many as the generator is shown, else 5.

    Raises:
        MissingExtraError: langchain-core is not installed.
        InputError: a `k` that rankings do not reach, or what `Pipeline.open` refuses.
    """
    made = _retriever_class()
    if isinstance(source, Pipeline) and configuration is not None:
        raise InputError(f"configuration {configuration!r} was given with a pipeline, which has one; give the run instead")
    pipeline = source if isinstance(source, Pipeline) else Pipeline.open(source, configuration)
    if pipeline.ranking is None:
        raise InputError(f"{pipeline.configuration.label} never shows passages, so it retrieves none; name another configuration")
    k = pipeline.shown if k is None else k
    if not 1 <= k <= pipeline.ranking.depth:
        raise InputError(f"k is {k}; allowed: 1 to {pipeline.ranking.depth}, the depth of the run's rankings")
    return made(pipeline=pipeline, k=k)


@cache
def _retriever_class() -> Callable[..., BaseRetriever]:
    try:
        from langchain_core.documents import Document
        from langchain_core.retrievers import BaseRetriever
    except ModuleNotFoundError as error:
        raise MissingExtraError("langchain-core", "langchain", "a retriever for LangChain") from error

    class WorkbenchRetriever(BaseRetriever):
        """The k best passages of a pipeline."""

        pipeline: Any
        k: int

        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            origin = {"run": self.pipeline.run.folder.name, "configuration": self.pipeline.configuration.id}
            return [
                Document(one.text, id=_id(one), metadata=_metadata(one) | origin) for one in self.pipeline.search(query, self.k)
            ]

    return WorkbenchRetriever


def _id(source: Source) -> str:
    return f"{source.place.doc_id}:{source.place.start}-{source.place.end}"


def _metadata(source: Source) -> dict[str, Any]:
    return {**source.place._asdict(), "title": source.title, "rank": source.rank, "score": source.score}
