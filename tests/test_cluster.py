"""An experiment on a real Ray cluster of two nodes: the bytes of one process, whatever is killed; who differs is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Finished, toy_settings, workbench
from ray_nodes import Nodes
from ray_work import Digests
from test_run import same_bytes

from workbench import Experiment
from workbench.machine import record
from workbench.store.progress import Progress

# Ray reads its settings when it is imported, so nothing imports it before `Nodes` has set them
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("ray") is None and os.environ.get("CI") != "true", reason="the extra `distributed` is not installed"
    ),
]

RERANKER = """
from workbench.retrieval.rerankers.base import PairScorer


class Shortest(PairScorer):
    kind: str = "shortest"

    def score(self, pairs, machine, *args, **references):
        yield [(i, -float(len(passage))) for i, (_, passage) in enumerate(pairs)]
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    before = dict(os.environ)
    made = Nodes()
    yield made
    made.end()
    os.environ.clear()
    os.environ.update(before)


def started(config: Path, runs: Path, nodes: Nodes) -> subprocess.Popen[str]:
    args = ["run", str(config), "--runs", str(runs), "--no-notebooks", "--workers", f"ray:{nodes.address}"]
    return subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WORKBENCH_PROGRESS": "all"},
        cwd=ROOT,
    )


def until(process: subprocess.Popen[str], pattern: str) -> str:
    """What a process says on standard error up to a line that fits."""
    said = ""
    for line in process.stderr:
        said += line
        if re.search(pattern, line):
            return said
    raise AssertionError(f"{pattern!r} was never said:\n{said}")


def finished(process: subprocess.Popen[str]) -> tuple[Path, str]:
    out, said = process.communicate()
    assert process.returncode == 0, said
    return Path(out.splitlines()[-1].removeprefix("run: ")), said


def counts(folder: Path) -> dict[str, object]:
    plan = json.loads((folder / "plan.json").read_text())
    return {"stages": plan["stages"], "items": plan["items"], "totals": plan["totals"]}


def computed(folder: Path) -> dict[str, dict[str, int]]:
    return {name: node["computed"] for name, node in json.loads((folder / "manifest.json").read_text())["nodes"].items()}


@pytest.mark.parametrize("which", ["toy", pytest.param("smoke", marks=pytest.mark.soak)])
def test_two_nodes_give_the_bytes_and_counts_of_one_process(
    which: str, request: pytest.FixtureRequest, nodes: Nodes, tmp_path: Path
) -> None:
    whole: Finished = request.getfixturevalue(which)
    nodes.only(2)
    folder, said = finished(started(whole.config, tmp_path, nodes))
    same_bytes(folder, whole.run)
    assert counts(folder) == counts(whole.run)
    found = computed(folder)
    assert len(found) == 3 and found["driver"] == {"answers": 8, "embeddings": 8, "pairs": 8}
    assert all(node["answers"] > 0 for node in found.values())
    for kind, one in counts(folder)["items"].items():
        assert sum(node.get(kind, 0) for node in found.values()) == one["computed"]
    assert sum(node.get("stages", 0) for node in found.values()) == 5  # passages, terms, two indexes, an adapter
    assert "generating on 2 nodes: " in said


@pytest.mark.parametrize("moment", ["node", "actor"])
def test_what_a_killed_node_or_process_had_is_computed_by_others(
    toy: Finished, nodes: Nodes, tmp_path: Path, moment: str
) -> None:
    nodes.only(2)
    process = started(toy.config, tmp_path, nodes)
    if moment == "node":
        until(process, "embedding on 2 nodes: 0/")
        nodes.kill(nodes.others[-1])
    else:
        until(process, r"generating on 2 nodes: [1-9]")
        os.kill(nodes.actors()[0], signal.SIGKILL)
    folder, said = finished(process)
    assert "was lost (" in said and "its work is sent again" in said
    same_bytes(folder, toy.run)
    assert counts(folder) == counts(toy.run)


def test_after_the_driver_was_killed_the_same_command_comes_to_the_same(toy: Finished, nodes: Nodes, tmp_path: Path) -> None:
    nodes.only(2)
    process = started(toy.config, tmp_path, nodes)
    until(process, r"generating on 2 nodes: [1-9]")
    process.kill()
    process.communicate()
    folder, _ = finished(started(toy.config, tmp_path, nodes))
    same_bytes(folder, toy.run)
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["items"]["embeddings"]["computed"] == 0 < plan["items"]["answers"]["found"]


@contextmanager
def crew_of(experiment: Experiment, nodes: Nodes) -> Iterator[object]:
    from workbench.cluster.connecting import connected

    with connected(f"ray:{nodes.address}", experiment.session) as crew:
        yield crew


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The experiment's file alone, of which no run is needed."""
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(toy_settings(), sort_keys=False))
    return tmp_path / "smoke.yaml"


def test_a_node_that_comes_late_joins_while_items_are_computed(config: Path, nodes: Nodes, tmp_path: Path) -> None:
    nodes.only(1)
    (tmp_path / "processes").mkdir()
    texts = [f"text {i}" for i in range(60)]
    one = Experiment.load(config, tmp_path / "runs", progress=Progress())
    with crew_of(one, nodes) as crew:
        assert crew.label == "on 1 node"
        nodes.add()
        # the first batch waits until a second process computes
        work = Digests(str(tmp_path / "processes"), os.getpid(), seconds=0.1, processes=2, name="late")
        assert one.session.items(work, texts) == [sha256(text.encode()).hexdigest() for text in texts]
        assert crew.label == "on 2 nodes"
        found = crew.record()
    assert len(found) == 3 and sum(node["computed"]["digests"] for node in found.values()) == len(texts)
    assert all(node["threads"] == 1 for name, node in found.items() if name != "driver")


def test_a_node_with_another_fingerprint_is_refused_with_the_first_difference(config: Path, nodes: Nodes, tmp_path: Path) -> None:
    nodes.only(1)
    assert Experiment.load(config, tmp_path / "runs", progress=Progress()).session.machine.arithmetic  # now it is in the record
    falsified = json.loads(record.path().read_text())
    for machine in falsified.values():
        for name in machine["measured"]:
            if name.startswith("fingerprint"):
                machine["measured"][name] = "0" * 16
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "machine.json").write_text(json.dumps(falsified))
    nodes.add(WORKBENCH_HOME=str(tmp_path / "home"))
    nodes.wait(lambda: nodes.alive() == 2)
    said = workbench("plan", config, "--runs", tmp_path / "runs", "--workers", f"ray:{nodes.address}", env=dict(os.environ))
    nodes.kill(nodes.others[-1])
    assert said.returncode == 0, said.stderr
    *_, joined, refused = said.stdout.splitlines()
    assert re.match(r"on 1 node with 1 threads in all: about .+, where this machine alone would take about .+ with \d+;", joined)
    assert re.fullmatch(r"node .* is refused: arithmetic is cpu/.*/0{16} there and cpu/.* here", refused)


def test_a_component_of_ones_own_file_travels_with_its_source(nodes: Nodes, tmp_path: Path) -> None:
    nodes.only(2)
    (tmp_path / "mine.py").write_text(RERANKER)
    settings = toy_settings()
    settings["components"] = {
        "retrievers": {"bm25": {"kind": "bm25"}},
        "rerankers": {"short": {"kind": "./mine.py:Shortest", "top": 5}},
    }
    settings |= {"baseline": {"retriever": "bm25", "reranker": "none"}, "axes": {"reranker": ["none", "short"]}}
    settings["metrics"] = {"select_by": "ndcg@10", "rankings": ["ndcg@10"]}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(settings))
    folder, _ = finished(started(tmp_path / "own.yaml", tmp_path / "many", nodes))
    alone = Experiment.load(tmp_path / "own.yaml", tmp_path / "one", progress=Progress())
    alone.index()
    same_bytes(folder, alone.compare().folder)
    assert sum(node.get("pairs", 0) for name, node in computed(folder).items() if name != "driver") > 0


def test_a_cluster_without_a_token_is_refused(config: Path, tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"HOME": str(tmp_path)}
    args = ["plan", config, "--runs", tmp_path / "runs", "--workers", "ray:127.0.0.1:1"]
    found = workbench(*args, env=bare | {"PYTHONPATH": str(ROOT)})
    assert found.returncode == 2
    assert "a cluster without a token computes for whoever reaches its ports; make one" in found.stderr
