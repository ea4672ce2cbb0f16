"""What a run writes into config.yaml gives, read again, the experiment that was measured: for all settings of all components."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import toys
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from workbench import Experiment
from workbench.component import Component, load_class
from workbench.data.chunking import Chunking
from workbench.errors import InputError
from workbench.experiment.components import KINDS
from workbench.experiment.writer import resolved
from workbench.models.generator import Generator
from workbench.retrieval.analyzer import LANGUAGES
from workbench.retrieval.embedders.embedder import Embedder
from workbench.retrieval.embedders.endpoint import EndpointEmbedder
from workbench.retrieval.gate import Gate
from workbench.store.progress import Progress

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-9, 9), TEXTS)


def classes() -> dict[str, list[type[Component]]]:
    """Section of the file -> the classes of its components."""
    found: dict[str, list[type[Component]]] = {"embedders": [Embedder, EndpointEmbedder], "generators": [Generator]}
    return found | {f"{family}s": [load_class(kind, base) for kind in kinds.values()] for family, (base, kinds) in KINDS.items()}


def named(field: str) -> st.SearchStrategy[Any] | None:
    """Values of a field that names something, and of one that not every text fits."""
    values: dict[str, list[Any]] = {
        "model": [toys.made(toys.embedder)],
        "name": [toys.made(toys.embedder)],
        "endpoint": ["http://localhost:1/v1", "https://localhost/v1"],
        "embedder": ["fixed"],
        "generator": ["fixed"],
        "stopwords": [None, *LANGUAGES],
        "stemmer": [None, *LANGUAGES],
        "negatives_from": [None, "fixed", "other"],
        "distractors": [None, "fixed", "other"],
        "prompt": [None, "terse", "cited"],
        "of": [["fixed", "other"], ["other", "fixed"], ["fixed", "other", "third"]],
        "api_key_env": [None, "A_KEY", "_x1"],
        "url": [None, "http://localhost:1"],
        "prefix": ["workbench", "a.b_c-1"],
        "model_type": ["cross-encoder", "t5"],
        "revision": [None, 0, 1, "", "1", "main"],
    }
    return st.sampled_from(values[field]) if field in values else None


def values_of(annotation: Any, field: FieldInfo | None = None) -> st.SearchStrategy[Any]:
    """Values that a type allows, as they stand in a file; bounds are the field's."""
    bounds = {
        key: getattr(one, key)
        for one in (field.metadata if field else ())
        for key in ("ge", "gt", "le", "lt", "multiple_of")
        if hasattr(one, key)
    }
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        return st.one_of([values_of(part, field) for part in get_args(annotation)])
    if annotation is type(None):
        return st.none()
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        step = bounds.get("multiple_of", 1)
        low = bounds.get("ge", bounds.get("gt", -1) + 1)
        return st.integers(-(-low // step), bounds.get("le", 500) // step).map(lambda n: n * step)
    if annotation is float:
        low, high = bounds.get("ge", bounds.get("gt", 0)), bounds.get("le", bounds.get("lt", 1000))
        drawn = st.floats(low, high, exclude_min="gt" in bounds, exclude_max="lt" in bounds)
        return st.one_of(drawn, st.integers(int(low) + ("gt" in bounds), int(high) - ("lt" in bounds))) if high > 1 else drawn
    if get_origin(annotation) is tuple:
        return st.lists(values_of(get_args(annotation)[0]), min_size=2, max_size=3)
    if get_origin(annotation) is dict:
        return st.dictionaries(TEXTS.filter(lambda key: key not in ("model", "name", "kind")), PLAIN, max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return settings_of(annotation)
    assert annotation is str, annotation
    return TEXTS


@st.composite
def settings_of(draw: st.DrawFn, cls: type[BaseModel]) -> dict[str, Any]:
    """Settings that a class takes: every field that is needed, and some of the others."""
    found = {}
    for name, field in cls.model_fields.items():
        if field.is_required() or name == "kind" or draw(st.booleans()):
            known = named(name)
            found[name] = draw(values_of(field.annotation, field) if known is None else known)
    return found


def accepted(cls: type[Component]) -> st.SearchStrategy[dict[str, Any]]:
    """Settings that a class does not refuse."""

    def fits(values: dict[str, Any]) -> bool:
        try:
            cls(**values)
        except ValueError:
            return False
        return True

    return settings_of(cls).filter(fits)


FIXED: dict[str, dict[str, Any]] = {
    "embedders": {"fixed": {"model": ""}},
    "generators": {"fixed": {"model": ""}},
    "retrievers": {"fixed": {"kind": "bm25"}, "other": {"kind": "bm25", "b": 0.5}, "third": {"kind": "bm25", "k1": 2}},
}
AXES = {"retrievers": "retriever", "rewriters": "rewriting", "expanders": "expansion", "rerankers": "reranker"}
AXES |= {"generators": "generator"}


def files(section: str, cls: type[Component]) -> st.SearchStrategy[dict[str, Any]]:
    """Experiments in which a component of this class is used."""

    def file(values: dict[str, Any], depth: int, seed: int, limit: Any) -> dict[str, Any]:
        components = {name: dict(those) for name, those in FIXED.items()}
        components["embedders"] = {"fixed": {"model": toys.made(toys.embedder)}}
        components["generators"] = {"fixed": {"model": toys.made(toys.language_model)}}
        if section == "generators":
            values = values | {"model": toys.made(toys.language_model)}
        components[section] = components.get(section, {}) | {"drawn": values}
        axes: dict[str, list[Any]] = {"chunking": ["whole"], "retriever": ["fixed"]}
        if section == "embedders":
            components["retrievers"] = components["retrievers"] | {"dense": {"kind": "dense", "embedder": "drawn"}}
            axes["retriever"] = ["dense"]
        else:
            axes[AXES[section]] = ["drawn"]
        facts = Path(toys.made(toys.facts))
        dataset = {"folder": str(facts / "documents"), "questions": str(facts / "questions.jsonl"), "limit": limit}
        file = {"experiment": "e", "dataset": dataset, "components": components, "axes": axes, "depth": depth, "seed": seed}
        return file | {"metrics": {"rankings": ["ndcg@10"]}}

    limits = st.sampled_from([None, 3, {"dev": 2}, {"dev": 2, "test": 1}])
    return st.builds(file, accepted(cls), st.integers(1, 200), st.integers(0, 9), limits)


def everything(experiment: Experiment) -> tuple[list[str], list[tuple[str, str]]]:
    """Configuration ids, and the stages of both splits with their keys."""
    splits = experiment.settings.dataset.select, experiment.settings.dataset.report
    stages = [one for c in experiment.configurations for split in splits for one in experiment.planner.stages(c, split).stages()]
    return [c.id for c in experiment.configurations], sorted({(stage.name, stage.key) for stage in stages})


def cases() -> Iterator[Any]:
    for section, those in classes().items():
        yield from (pytest.param(section, cls, id=f"{section}-{cls.__name__}") for cls in those)


@pytest.fixture(scope="module", autouse=True)
def made() -> None:
    """The models are made before anything is drawn."""
    for kind in (toys.embedder, toys.language_model, toys.facts):
        toys.made(kind)


def check(values: dict[str, Any], folder: Path) -> None:
    """Loads an experiment, writes its file as a run does, and loads that."""
    (folder / "e.yaml").write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    try:
        experiment = Experiment.load(folder / "e.yaml", folder / "runs", (), Progress())
        found = everything(experiment)
    except InputError:
        return  # what is refused is not measured
    stated = resolved(experiment.space, experiment.session.machine)
    (folder / "config.yaml").write_text(yaml.safe_dump(stated, sort_keys=False, allow_unicode=True), encoding="utf-8")
    again = Experiment.load(folder / "config.yaml", folder / "runs", (), Progress())
    assert everything(again) == found
    assert again.settings.dataset == experiment.settings.dataset
    assert resolved(again.space, again.session.machine) == stated


@pytest.mark.parametrize("section,cls", list(cases()))
@settings(max_examples=25)
@given(data=st.data())
def test_what_a_run_writes_reads_back_as_what_was_measured(tmp_path: Path, section: str, cls: type, data: st.DataObject) -> None:
    check(data.draw(files(section, cls)), tmp_path)


ODD = ["no", "on", "~", "null", "1", "1e3", "0x1", "2026-01-01", "a: b", "# a", "-", "=", "<<"]
NAMES = st.one_of(TEXTS.filter(bool), st.sampled_from(ODD))
SHOWN = st.one_of(st.sampled_from(["always", "never"]), settings_of(Gate))
WINDOWS = settings_of(Chunking).filter(lambda values: values.get("overlap", 10) < (values.get("words", 80) or 0))


@settings(max_examples=100)
@given(
    names=st.lists(NAMES.filter(lambda name: name != "none"), min_size=3, max_size=3, unique=True),
    axes=st.fixed_dictionaries(
        {},
        optional={
            "chunking": st.lists(st.one_of(st.just("whole"), WINDOWS), min_size=1, max_size=2, unique_by=str),
            "retrieval": st.lists(SHOWN, min_size=1, max_size=2, unique_by=str),
            "passages": st.lists(st.integers(1, 5), min_size=1, max_size=2, unique=True),
            "prompt": st.lists(st.sampled_from(["terse", "cited", "mine.yaml"]), min_size=1, max_size=2, unique=True),
            "rewriting": st.just([None]),
            "reranker": st.sampled_from([["none"], [None]]),
        },
    ),
    rest=st.fixed_dictionaries(
        {},
        optional={
            "depth": st.integers(1, 200),
            "search": st.fixed_dictionaries({}, optional={"strategy": st.sampled_from(["grid", "greedy", "racing"])}),
            "report": st.sampled_from([{"of": "all"}, {}]),
            "metrics": st.fixed_dictionaries(
                {"rankings": st.sampled_from([[], ["recall@9w"], ["success@20w", "recall@300w"]])},
                optional={"answers": st.sampled_from([["f1"], ["em", "grounded"]]), "select_by": st.sampled_from([None, "em"])},
            ),
            "seed": st.integers(0, 9),
            "seeds": st.sampled_from([1, 3]),
            "machine": st.sampled_from([{}, {"precision": "float32"}, {"batch_size": 4, "device": "cpu"}]),
        },
    ),
)
def test_axes_names_and_sections_read_back_too(
    tmp_path: Path, names: list[str], axes: dict[str, Any], rest: dict[str, Any]
) -> None:
    one, other, asking = names
    facts = Path(toys.made(toys.facts))
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"user": "{passages}\n{question}", "abstention": "no", "system": "\u2028é"})
    )
    retrievers = {
        one: {"kind": "bm25"},
        other: {"kind": "fusion", "of": [one, "plain"]},
        "plain": {"kind": "bm25", "stemmer": None},
    }
    values = {
        "experiment": "e",
        "dataset": {"folder": str(facts / "documents"), "questions": str(facts / "questions.jsonl")},
        "components": {"retrievers": retrievers, "generators": {asking: {"model": toys.made(toys.language_model)}}},
        "axes": axes | {"retriever": [one, other], "generator": [asking]},
        "baseline": {"retriever": other},
        "metrics": {"rankings": ["recall@9w"]},
    }
    check(values | rest, tmp_path)
