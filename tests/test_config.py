"""Experiment files: whatever is misspelt, contradictory or unknown is refused before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from workbench.errors import InputError
from workbench.experiment.config import read_settings
from workbench.experiment.configuration import Space
from workbench.experiment.planner import Planner
from workbench.machine import resolve

ROOT = Path(__file__).parent.parent


def values() -> dict[str, Any]:
    """The quickstart, with a second retriever that is fused."""
    content = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    content["components"]["retrievers"] |= {
        "dense": {"kind": "dense", "embedder": "minilm"},
        "hybrid": {"kind": "fusion", "of": ["bm25", "dense"]},
    }
    content["axes"] |= {"retriever": ["bm25", "hybrid"], "reranker": ["none", "maxsim"]}
    return content


def test_labels_differ_where_the_baseline_lies_outside_the_axes(tmp_path: Path) -> None:
    content = values()
    content["axes"] |= {"retriever": ["bm25"], "reranker": ["maxsim"]}
    space = planner(tmp_path, content).space
    assert {one.label for one in space.configurations} == {"none/base", "maxsim/base", "maxsim/tuned"}
    assert space.baseline.label == "none/base"


def planner(folder: Path, content: dict[str, Any], *overrides: str) -> Planner:
    (folder / "e.yaml").write_text(yaml.safe_dump(content))
    settings = read_settings(folder / "e.yaml", overrides)
    return Planner(Space(settings, settings.dataset.load(), folder), settings.machine.resolve())


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_project_is_accepted(path: Path) -> None:
    settings = read_settings(path)
    if settings.dataset.beir and not settings.dataset.beir.exists():
        pytest.skip(f"{settings.dataset.beir} is absent")
    made = Planner(Space(settings, settings.dataset.load(), path.parent), resolve(device="cpu"))
    assert made.space.baseline in made.space.configurations


@pytest.mark.parametrize(
    "override,message",
    [
        ("depht=5", "unknown key 'depht'.*Did you mean 'depth'"),
        ("names.bm52=words", "names: unknown value of an axis 'bm52'.*Did you mean 'bm25'"),
        ("names.bm25=' '", "names.bm25: words in one line are needed"),
        ("names.bm25=3", "names.bm25: received 3; allowed: a text"),
        ("metrics.matters=0", "metrics.matters: .*greater than 0"),
        ("dataset.nam=pydocs", "dataset.nam: unknown key 'nam'.*Did you mean 'name'"),
        ("dataset.name=pydoc", "unknown dataset 'pydoc'; allowed: pydocs"),
        ("dataset.select=test", "select and report are both 'test'"),
        ("dataset.train=test", "dataset.train and dataset.report are both 'test'"),
        ("dataset.select=deb", "has no split 'deb'; allowed: train, dev, test"),
        ("axes.retriver=[bm25]", "axes: unknown axis 'retriver'.*Did you mean 'retriever'"),
        ("axes.retriever=[bm52]", "axes.retriever: unknown retriever 'bm52'.*Did you mean 'bm25'"),
        ("axes.reranker=[maxsin]", "unknown reranker 'maxsin'; allowed: maxsim, none"),
        ("axes.passages=[0]", "axes.passages: received 0; allowed: a whole number from 1"),
        ("axes.retriever=[]", "axes.retriever: the list is empty"),
        ("axes.retriever=[[bm25]]", "axes.retriever: unknown retriever .*bm25.*; allowed: bm25, dense, hybrid"),
        ("baseline.generator={base: 1}", "baseline.generator: unknown generator .*; allowed: base, tuned"),
        ("1=2", "1: "),
        (
            "components.rerankers.maxsim.kind=workbench.retrieval.rerankers.base:PairScorer",
            r"lacks what every Reranker has to define: score\(\)",
        ),
        ("axes.retriever=[bm25, bm25]", "a value is given twice"),
        ("axes.prompt=[trese]", "unknown prompt template 'trese'.*Did you mean 'terse'"),
        ("axes.chunking=[{words: 10, overlap: 10}]", "overlap of 10 words must be shorter"),
        ("components.retrievers.bm25.k2=1", "components.retrievers.bm25.k2: unknown key 'k2'"),
        ("components.retrievers.bm25.kind=bm26", "unknown kind of retriever 'bm26'"),
        ("components.rerankers.maxsim.kind=colbert", "unknown kind of reranker 'colbert'"),
        ("components.rerankers.maxsim.embedder=mini", "unknown embedder 'mini'; allowed: minilm"),
        ("components.retrievers.hybrid.of=[bm25, hybrid]", "'hybrid' is fused with itself"),
        ("components.generators.tuned.lora.rnak=2", "lora.rnak: unknown key 'rnak'.*Did you mean 'rank'"),
        ("components.generators.tuned.lora.distractors=nothing", "unknown retriever 'nothing'"),
        ("metrics.select_by=grounded", "would choose a generator that never answers"),
        ("metrics.select_by=f2", "unknown metric 'f2'"),
        ("metrics.rankings=[ndgc@10]", "unknown ranking metric 'ndgc@10'"),
        ("axes.chunking=[whole, {words: 80}]", "cannot be compared across 2 chunkings"),
        ("machine.device=tpu", "machine.device: received 'tpu'; allowed: auto, cpu, cuda"),
        ("seed=-1", "seed"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made = planner(tmp_path, values(), override)
        made.settings.machine.resolve()


def test_generation_axes_without_a_generator_are_refused(tmp_path: Path) -> None:
    content = values()
    del content["axes"]["generator"], content["baseline"]["generator"]
    with pytest.raises(InputError, match="was given without 'generator'"):
        planner(tmp_path, content)


def test_a_file_that_is_no_yaml_mapping_is_refused(tmp_path: Path) -> None:
    for text, message in (("- a", "received a list"), ("# only this\n", "the file is empty"), ("a: [", "no readable YAML")):
        (tmp_path / "e.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            read_settings(tmp_path / "e.yaml")
    with pytest.raises(InputError, match=r"does not exist; in .*: e\.yaml"):
        read_settings(tmp_path / "absent.yaml")


def test_an_experiment_that_measures_nothing_is_refused(tmp_path: Path) -> None:
    content = values() | {"axes": {"retriever": ["bm25"]}, "baseline": {}, "metrics": {"rankings": []}}
    with pytest.raises(InputError, match=r"metrics\.rankings: the list is empty, and without the axis 'generator'"):
        planner(tmp_path, content)


def test_the_order_of_axes_and_names_of_components_change_no_configuration(tmp_path: Path) -> None:
    one = planner(tmp_path, values())
    content = values()
    content["axes"] = {axis: options[::-1] for axis, options in reversed(content["axes"].items())}
    text = yaml.safe_dump(content).replace("hybrid", "mixture")
    two = planner(tmp_path, yaml.safe_load(text))
    assert [c.id for c in one.space.configurations] == [c.id for c in two.space.configurations]
    keys = [{s.key for c in p.space.configurations for s in p.stages(c, "dev").stages()} for p in (one, two)]
    assert keys[0] == keys[1]


def test_every_setting_that_changes_results_changes_keys(tmp_path: Path) -> None:
    def answers(*overrides: str) -> set[str]:
        made = planner(tmp_path, values(), *overrides)
        return {made.stages(c, "dev").answers.key for c in made.space.configurations}

    base = answers()
    assert base == answers("machine.batch_size=4", "experiment=other", "components.generators.tuned.lora.checkpoint_every=2")
    for override in (
        "components.retrievers.bm25.k1=1.0",
        "components.generators.base.max_new_tokens=9",
        "components.rerankers.maxsim.top=7",
        "depth=40",
        "axes.passages=[3]",
        "axes.chunking=[{words: 40, overlap: 5}]",
        "dataset.limit=7",
    ):
        assert answers(override) - base, override
    # which of the two a machine takes by itself depends on the machine
    assert answers("machine.precision=float32") != answers("machine.precision=bfloat16")
    assert answers("seed=1") - base  # the adapter's answers


def test_prompt_mismatch_marks_adapters_under_another_prompt(tmp_path: Path) -> None:
    made = planner(tmp_path, values(), "axes.prompt=[terse, cited]").space.configurations
    assert any(c.prompt_mismatch for c in made)
    for c in made:
        assert c.prompt_mismatch == (c["generator"] == "tuned" and c["prompt"] == "cited")


def test_a_class_of_ones_own_is_named_in_the_file_and_its_source_is_in_the_key(tmp_path: Path) -> None:
    source = """
import numpy as np
from workbench.retrieval.rerankers.base import Reranker

class Shortest(Reranker):
    kind: str = "mine"

    def rerank(self, query, passages, scores, machine):
        return -np.array([len(p) for p in passages], float){tail}
"""
    content = values()
    content["components"]["rerankers"]["short"] = {"kind": "./mine.py:Shortest", "top": 5}
    content["axes"]["reranker"] = ["short"]
    keys = []
    for tail in ("", "  # changed"):
        (tmp_path / "mine.py").write_text(source.format(tail=tail))
        made = planner(tmp_path, content)
        short = next(c for c in made.space.configurations if c["reranker"] == "short")
        keys.append(made.stages(short, "dev").ranking.key)
    assert keys[0] != keys[1]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other.py").write_text((tmp_path / "mine.py").read_text())
    ids = [one.id for one in made.space.configurations]
    content["components"]["rerankers"]["short"]["kind"] = "./elsewhere/other.py:Shortest"
    assert [one.id for one in planner(tmp_path, content).space.configurations] == ids, "the file's place decides nothing"
    (tmp_path / "elsewhere" / "other.py").unlink()
    short = next(c for c in made.space.configurations if c["reranker"] == "short")
    assert made.stages(short, "dev").ranking.key == keys[1], "what was imported is asked, not what the file holds since"
    content["components"]["rerankers"]["short"]["kind"] = "__main__:Shortest"
    with pytest.raises(InputError, match="exists only in this notebook or script; save"):
        planner(tmp_path, content)
    content["components"]["rerankers"]["short"]["kind"] = "./mine.py:Longest"
    with pytest.raises(InputError, match=r"unknown class in .*'Longest'"):
        planner(tmp_path, content)


def test_import_help_and_refusal_load_no_heavy_library(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(values() | {"depht": 1}))
    heavy = "{'torch', 'transformers', 'faiss', 'matplotlib', 'gradio', 'scipy'}"
    for code in (
        "import workbench",
        "import workbench.cli",
        "from workbench.experiment import config, planner",
        "from workbench.experiment.config import read_settings as read\n"
        f"try: read({str(tmp_path / 'e.yaml')!r})\nexcept ValueError: pass",
    ):
        script = f"import sys, pathlib\n{code}\nprint(sorted({heavy} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
        assert done.stdout.strip() == "[]", (code, done.stdout)


def test_groundedness_never_stands_without_the_abstention_rate() -> None:
    from workbench.experiment.config import Metrics

    assert "abstained" in Metrics().answers
    assert "abstained" in Metrics(answers=("grounded",)).answers
    assert "abstained" not in Metrics(answers=("f1",)).answers
