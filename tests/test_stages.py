"""Every kind of stage: what goes into its key has the shape it had when today's stores were written.

A changed shape is another key, so that everything stored would be computed again. Where that is meant, raise `version` of the
stage and write tests/stage_shapes.json anew with `python tests/test_stages.py`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import toys
import yaml

from workbench import Experiment
from workbench.experiment.adapters import adapters
from workbench.store.progress import Progress

SHAPES = Path(__file__).with_name("stage_shapes.json")


def wide(folder: Path) -> list[Path]:
    """Two experiments that need every kind of stage; their files."""
    facts, embedder, parrot = (toys.made(kind) for kind in (toys.facts, toys.embedder, toys.parrot))
    rows = [json.loads(line) for line in (Path(facts) / "questions.jsonl").read_text().splitlines()]
    for row in rows[::3]:
        row["history"] = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "At the gate."}]
    (folder / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shots = {"user": "{passages}\n{question}", "abstention": "unknown", "shots": {"count": 2, "retriever": "dense"}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(shots))
    training = {"examples": 8, "negatives_from": "bm25"}
    common = {
        "dataset": {"folder": f"{facts}/documents", "questions": "talk.jsonl"},
        "components": {
            "embedders": {"minilm": {"model": embedder}, "mine": {"model": embedder, "train": training}},
            "retrievers": {
                "bm25": {"kind": "bm25"},
                "dense": {"kind": "dense", "embedder": "minilm", "index": "hnsw"},
                "tuned": {"kind": "dense", "embedder": "mine"},
                "hybrid": {"kind": "fusion", "of": ["bm25", "tuned"]},
            },
            "rerankers": {
                "maxsim": {"kind": "maxsim", "embedder": "minilm"},
                "cross": {"kind": "cross_encoder", "model": embedder, "train": training},
                "mmr": {"kind": "mmr", "embedder": "mine"},
                "likely": {"kind": "likelihood", "generator": "base"},
            },
            "rewriters": {"alone": {"kind": "standalone", "generator": "base"}},
            "expanders": {"reworded": {"kind": "multi_query", "generator": "base"}},
            "generators": {"base": {"model": parrot}, "tuned": {"model": parrot, "lora": {"prompt": "mine.yaml"}}},
        },
    }
    asking = {"rewriting": ["none", "alone"], "retriever": ["dense", "hybrid"]}
    gated = ["always", "never", {"when": "margin"}]
    axes = {
        "ranks": asking | {"expansion": ["none", "reworded"], "reranker": ["none", "maxsim", "cross", "mmr", "likely"]},
        "answers": asking | {"retrieval": gated, "prompt": ["terse", "mine.yaml"], "generator": ["base", "tuned"]},
    }
    for name, chosen in axes.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"experiment": name, "axes": chosen} | common))
    return [folder / f"{name}.yaml" for name in axes]


def shape(value: Any) -> Any:
    """A value without what differs between machines: the keys of its dictionaries, and the types of the rest."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    return type(value).__name__


def shapes(folder: Path) -> dict[str, list[Any]]:
    """Class -> all that there is of: name, version, shape of the settings, names of the stages read."""
    found: dict[str, set[str]] = {}
    for path in wide(folder):
        experiment = Experiment.load(path, folder / "runs", (), Progress())
        merging = [experiment.planner.merging(adapter) for adapter in adapters(experiment).values()]  # no run computes it
        for stage in (stage for one in experiment.selected_on for stage in (*one.stages(), *merging)):
            says = [stage.name, stage.version, shape(stage.definition["settings"]), [part.name for part in stage.inputs()]]
            assert list(stage.definition) == ["stage", "version", "settings", "inputs"]
            found.setdefault(type(stage).__name__, set()).add(json.dumps(says))
    return {name: [json.loads(text) for text in sorted(found[name])] for name in sorted(found)}


def test_what_goes_into_the_keys_of_stages_has_kept_its_shape(tmp_path: Path) -> None:
    assert shapes(tmp_path) == json.loads(SHAPES.read_text())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        SHAPES.write_text(json.dumps(shapes(Path(folder)), indent=1) + "\n")
