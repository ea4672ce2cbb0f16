"""A run as a retriever of LangChain: the ranking that was measured, with where each passage stands."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workbench import Experiment, Run
from workbench.errors import InputError, MissingExtraError
from workbench.langchain import _retriever_class, as_langchain_retriever
from workbench.pipeline import Pipeline
from workbench.store.progress import Progress

SETTINGS = {
    "experiment": "langchain",
    "dataset": {"name": "pydocs", "limit": 4},
    "components": {"retrievers": {"bm25": {"kind": "bm25"}, "short": {"kind": "bm25", "b": 0.2}}},
    "axes": {"chunking": [{"words": 160, "overlap": 0}], "retriever": ["bm25", "short"]},
    "depth": 20,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("langchain")
    (folder / "langchain.yaml").write_text(yaml.safe_dump(SETTINGS))
    return Experiment.load(folder / "langchain.yaml", folder / "runs", (), Progress()).compare()


def test_a_retriever_gives_the_measured_ranking_with_its_places(run: Run) -> None:
    pipeline = Pipeline.open(run, "short")
    measured = pipeline.session.read(pipeline.experiment.planner.stages(pipeline.configuration, "dev").ranking)
    passages = pipeline.session.read(pipeline.stages.artifacts()["passages"])
    query = pipeline.session.dataset.split("dev")[1]
    documents = as_langchain_retriever(run, "short", k=20).invoke(query.text)
    ids, scores = measured.row(measured.query_ids.index(query.id))
    assert [(d.metadata["doc_id"], d.metadata["start"], d.metadata["end"]) for d in documents] == [passages.place(n) for n in ids]
    assert [d.metadata["score"] for d in documents] == scores.tolist()
    assert [d.metadata["rank"] for d in documents] == list(range(1, len(ids) + 1))
    assert [d.page_content for d in documents] == [passages.shown(n).text for n in ids]
    assert {(d.metadata["run"], d.metadata["configuration"]) for d in documents} == {(run.folder.name, pipeline.configuration.id)}
    assert len({d.id for d in documents}) == len(documents)


def test_a_pipeline_or_a_folder_will_do_and_five_passages_are_given_where_none_are_shown(run: Run) -> None:
    pipeline = Pipeline.open(run)
    first = as_langchain_retriever(pipeline).invoke("What is a generator?")
    assert first == as_langchain_retriever(str(run.folder)).invoke("What is a generator?") and len(first) == 5
    assert first == asyncio.run(as_langchain_retriever(pipeline).ainvoke("What is a generator?"))
    assert [d.id for d in first] == [
        f"{s.place.doc_id}:{s.place.start}-{s.place.end}" for s in pipeline.ask("What is a generator?").sources
    ]


def test_what_does_not_fit_is_refused(run: Run) -> None:
    for k in (0, 21):
        with pytest.raises(InputError, match=f"k is {k}; allowed: 1 to 20, the depth of the run's rankings"):
            as_langchain_retriever(run, k=k)
    with pytest.raises(InputError, match="give the run instead"):
        as_langchain_retriever(Pipeline.open(run), "short")
    with pytest.raises(InputError, match="the question is empty"):
        as_langchain_retriever(run).invoke(" ")


def test_langchain_is_imported_by_who_asks_for_a_retriever_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import sys, workbench.langchain; print([name for name in sys.modules if name.startswith('langchain')])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    assert done.stdout.strip() == "[]"
    monkeypatch.setitem(sys.modules, "langchain_core.retrievers", None)
    _retriever_class.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'rag-workbench\[langchain\]'"):
        as_langchain_retriever("anywhere")
