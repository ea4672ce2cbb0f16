"""Looking after the store: listing, checking, removing only what no finished run points to; plans and their costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import toys
from conftest import ROOT, Finished, workbench

from workbench.errors import InputError
from workbench.experiment.keeping import collect, find, kept, verify
from workbench.store.store import Store


def artifact(store: Store, key: str, content: str = "x") -> None:
    store.create("s", key, {"k": key}, lambda folder: (folder / "a").write_text(content) and {})


def finished_run(runs: Path, *keys: str) -> None:
    folder = runs / "e" / "20260101T000000Z-abc"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"stages": [{"key": key} for key in keys]}))
    (folder / "manifest.json").write_text("{}")


def test_gc_keeps_what_a_finished_run_points_to_unless_told(tmp_path: Path) -> None:
    store = Store(tmp_path / ".store")
    for key in ("aa", "bb"):
        artifact(store, key)
    finished_run(tmp_path, "aa")
    assert [one.key for one in collect(store, tmp_path, max_gb=0)] == ["bb"]
    assert [one.key for one in kept(store, tmp_path)] == ["aa"]
    assert [one.key for one in collect(store, tmp_path, max_gb=0, pointed=True)] == ["aa"]


@pytest.mark.parametrize("plan", ["", "{}", "[]", '{"stages": [1]}', None])
def test_a_run_whose_plan_is_damaged_keeps_the_store_as_it_is(tmp_path: Path, plan: str | None) -> None:
    store = Store(tmp_path / ".store")
    artifact(store, "aa")
    finished_run(tmp_path, "aa")
    path = tmp_path / "e" / "20260101T000000Z-abc" / "plan.json"
    path.unlink()
    if plan is not None:
        path.write_text(plan)
    with pytest.raises(InputError, match=r"plan\.json.* needs of the store is not known; remove that folder, or move it out of"):
        collect(store, tmp_path, max_gb=0)
    assert store.has("s", "aa")


def test_gc_needs_a_limit_and_keeps_the_young(tmp_path: Path) -> None:
    store = Store(tmp_path / ".store")
    artifact(store, "aa")
    with pytest.raises(InputError, match="--keep-days N, --max-gb N"):
        collect(store, tmp_path)
    assert collect(store, tmp_path, keep_days=1) == []
    assert [one.key for one in collect(store, tmp_path, keep_days=0)] == ["aa"]


def test_verify_names_damage_in_artifacts_and_items(tmp_path: Path) -> None:
    store = Store(tmp_path / ".store")
    artifact(store, "aa")
    store.items.put("00" * 32, {b"k": b"v"})
    assert verify(store) == []
    (store.path("s", "aa") / "a").write_text("y")
    store.items.connection.execute("UPDATE items SET value = x'00'")
    assert [(stage, key) for stage, key, _ in verify(store)] == [("s", "aa"), ("items", "-")]


def test_the_command_that_finds_damage_exits_with_one(tmp_path: Path) -> None:
    artifact(Store(tmp_path / ".store"), "aa")
    assert workbench("store", "verify", "--runs", tmp_path).returncode == 0
    (tmp_path / ".store" / "artifacts" / "s" / "aa" / "a").write_text("y")
    found = workbench("store", "verify", "--runs", tmp_path)
    assert (found.returncode, found.stdout.splitlines()[-1]) == (1, "1 damaged")


def test_a_key_is_found_by_its_beginning(tmp_path: Path) -> None:
    store = Store(tmp_path / ".store")
    artifact(store, "abcd")
    artifact(store, "abff")
    assert find(store, "abc") == ("s", "abcd")
    for key in ("ab", "zz"):
        with pytest.raises(InputError, match="allowed: abcd"):
            find(store, key)


def test_the_store_commands_show_a_run_s_artifacts(toy: Finished) -> None:
    listed = workbench("store", "ls", "--runs", toy.runs).stdout
    assert f"smoke/{toy.run.name}" in listed and "adapter" in listed
    key = json.loads((toy.run / "plan.json").read_text())["stages"][0]["key"]
    assert json.loads(workbench("store", "show", key[:16], "--runs", toy.runs).stdout)["key"] == key
    assert workbench("store", "verify", "--runs", toy.runs).stdout.strip().endswith("are what was written")
    assert workbench("store", "ls", "--runs", toy.runs / "none").returncode == 2


def test_a_plan_says_what_is_in_the_store_and_what_is_not(toy: Finished, tmp_path: Path) -> None:
    warm = workbench("plan", toy.config, "--runs", toy.runs).stdout
    cold = workbench("plan", toy.config, "--runs", tmp_path).stdout
    assert "16 configurations" in warm and "16 configurations" in cold
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in cold.splitlines() if line.startswith("│")]
    stages = {name: [int(number.replace(",", "")) for number in numbers] for name, *numbers in cells}
    distinct, uses, found, missing, tokens, seconds = stages["answers"]
    assert uses >= distinct == missing > 0 == found
    assert tokens > 0 < seconds
    assert "peak memory of earlier runs" in warm


def test_planning_many_configurations_is_quick_and_small(tmp_path: Path) -> None:
    """200 configurations on 1,000 questions; the time is for benchmarks, the memory is checked here."""
    rows = [{"_id": f"d{i}", "title": "t", "text": f"word{i} " * 40} for i in range(1000)]
    queries = [{"_id": f"q{i}", "text": f"what is word{i}?", "answers": [f"word{i}"]} for i in range(1000)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)))
    (tmp_path / "qrels").mkdir()
    for split, chosen in (("dev", range(900)), ("test", range(900, 1000))):
        lines = [f"q{i}\td{i}\t1" for i in chosen]
        (tmp_path / "qrels" / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(lines))
    config = {
        "experiment": "many",
        "dataset": {"beir": str(tmp_path)},
        "components": {
            "retrievers": {f"bm25-{k}": {"kind": "bm25", "k1": 0.5 + k / 10} for k in range(10)},
            "generators": {"base": {"model": toys.made(toys.language_model)}},
        },
        "axes": {
            "retriever": [f"bm25-{k}" for k in range(10)],
            "passages": list(range(1, 11)),
            "prompt": ["terse", "cited"],
            "generator": ["base"],
        },
    }
    (tmp_path / "many.yaml").write_text(json.dumps(config))
    code = (
        "import re; from workbench.experiment.experiment import Experiment\n"
        "from workbench.store.progress import Progress\n"
        f"e = Experiment.load({str(tmp_path / 'many.yaml')!r}, {str(tmp_path / 'runs')!r}, progress=Progress())\n"
        # not ru_maxrss, which begins with the memory of the process that started this one
        "peak = re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]\n"
        "e.planned_costs(); print(len(e.configurations), len(e.plan()), peak)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    configurations, stages, kilobytes = map(int, done.stdout.split())
    assert configurations == 200 and kilobytes < 1_000_000
    # passages, indexes, rankings, their scores, answers, their scores, some answers again
    assert stages == 1 + 1 + 10 + 10 + 10 + 200 + 200 + 1
