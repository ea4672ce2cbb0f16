"""An adapter opens elsewhere: in plain peft, and in the prompt it was trained in; merging is checked on demand."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import workbench

from workbench import Experiment, Run
from workbench.component import file_digest
from workbench.data.passages import Shown
from workbench.errors import InputError
from workbench.experiment import adapters
from workbench.machine import resolve
from workbench.models.generator import Generator
from workbench.pipeline import Pipeline
from workbench.store.progress import Progress

# what somebody without the workbench would run: peft and transformers alone
PLAIN = """
import json, sys
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, moved, text = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(f"{moved}/base")
base = AutoModelForCausalLM.from_pretrained(f"{moved}/base")
for model in (AutoPeftModelForCausalLM.from_pretrained(folder), PeftModel.from_pretrained(base, moved)):
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    out = model.generate(**ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    print(json.dumps(tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True).strip()))
assert not any(name.startswith("workbench") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, toy_model: str) -> Run:
    folder = tmp_path_factory.mktemp("adapters")
    generators = {"base": {"model": toy_model, "max_new_tokens": 3}}
    generators["tuned"] = generators["base"] | {"lora": {"rank": 2, "learning_rate": 0.02, "prompt": "cited"}}
    values = {
        "experiment": "toy",
        "dataset": {"name": "pydocs", "limit": {"train": 24, "dev": 5, "test": 4}},
        "components": {"retrievers": {"bm25": {"kind": "bm25"}}, "generators": generators},
        "baseline": {"generator": "base"},
        "axes": {"generator": ["base", "tuned"], "passages": [2], "prompt": ["cited"]},
        "metrics": {"rankings": ["mrr@10"]},
        "machine": {"device": "cpu", "precision": "float32"},
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(values))
    return Experiment.load(folder / "e.yaml", folder / "runs", (), Progress()).compare()


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def stored(run: Run) -> Path:
    experiment = Experiment.load(run.folder / "config.yaml", run.folder.parent.parent, progress=Progress())
    return experiment.session.ensure(adapters.adapters(experiment)["tuned"])


def test_an_exported_adapter_opens_in_plain_peft_and_in_its_own_prompt(run: Run, tmp_path: Path) -> None:
    before = contents(stored(run))
    done = workbench("adapter", "export", run.folder, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert contents(stored(run)) == before  # the store's copy keeps its bytes
    there = contents(tmp_path / "out")
    assert all(there[name] == before[name] for name in ("adapter_model.safetensors", "prompt.json", "origin.json"))
    moved = tmp_path / "elsewhere" / "adapter"
    moved.parent.mkdir()
    subprocess.run(["cp", "-r", str(tmp_path / "out"), str(moved)], check=True)

    answers = [json.loads(line) for line in (run.folder / "answers.jsonl").read_text().splitlines()]
    tuned = run.find("tuned")
    pipeline = Pipeline.open(run, tuned)
    generator = Generator.from_adapter(moved, machine=resolve(device="cpu", precision="float32"))
    assert generator.template.citations  # the prompt it was trained in, not the default one
    for row in [row for row in answers if row["configuration"] == tuned][:3]:
        query = next(q for q in pipeline.session.dataset.split(row["split"]) if q.id == row["query_id"])
        shown = [Shown(source.title, source.text) for source in pipeline.ask(query.text).sources]
        reply = generator.ask(query.text, shown)
        assert (reply.text, generator.template.read(reply.text)) == (row["reply"], row["answer"])
        asked = generator.tokenizer.decode(generator.encode(generator.template.fill(query.text, shown)))
        plain = [sys.executable, "-c", PLAIN, str(tmp_path / "out"), str(moved), asked]
        found = subprocess.run(plain, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        assert [json.loads(line) for line in found.stdout.splitlines()] == [row["reply"]] * 2


def test_an_adapter_refuses_what_it_was_not_trained_on(run: Run, tmp_path: Path) -> None:
    experiment = Experiment.load(run.folder / "config.yaml", run.folder.parent.parent, progress=Progress())
    adapters.export(experiment, tmp_path / "out")
    with pytest.raises(InputError, match="exists already; name a new folder"):
        adapters.export(experiment, tmp_path / "out")
    with pytest.raises(InputError, match="unknown tuned generator 'base'; allowed: tuned"):
        adapters.export(experiment, tmp_path / "other", "base")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]  # a refusal leaves nothing behind
    with pytest.raises(InputError, match="has no base weights beside it; name them with model="):
        Generator.from_adapter(stored(run))
    with pytest.raises(InputError, match=r"holds no adapter_config\.json"):
        Generator.from_adapter(tmp_path)
    assert Generator.from_adapter(stored(run), run_model(run)).template == Generator.from_adapter(tmp_path / "out").template
    changed = shutil.copytree(tmp_path / "out", tmp_path / "changed") / "base" / "config.json"
    changed.write_text(changed.read_text().replace("{", "{ ", 1))
    with pytest.raises(InputError, match="was trained on sha256:"):
        Generator.from_adapter(tmp_path / "changed")


@pytest.mark.parametrize("how", ["missing", "cut off", "changed"])
@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "adapter_config.json", "base/tokenizer.json", "base/model.safetensors"]
)
def test_a_damaged_export_is_said(run: Run, tmp_path: Path, name: str, how: str) -> None:
    experiment = Experiment.load(run.folder / "config.yaml", run.folder.parent.parent, progress=Progress())
    adapters.export(experiment, tmp_path / "out")
    file = tmp_path / "out" / name
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if how == "cut off" else b"{}" + content[2:-3] + bytes([content[-3] ^ 1]))
    with pytest.raises(
        InputError, match=r"(adapter|weights) .*(cannot be read|can be read|is missing|holds no|names no|was trained on)"
    ):
        Generator.from_adapter(tmp_path / "out")


def test_an_adapter_is_not_exported_to_where_nothing_can_be_written(run: Run) -> None:
    experiment = Experiment.load(run.folder / "config.yaml", run.folder.parent.parent, progress=Progress())
    with pytest.raises(InputError, match=r"/proc/adapter cannot be made .* name a folder in one that can be written"):
        adapters.export(experiment, Path("/proc/adapter"))


def run_model(run: Run) -> str:
    return yaml.safe_load((run.folder / "config.yaml").read_text())["components"]["generators"]["base"]["model"]


def test_merging_is_checked_on_demand_and_costs_a_run_nothing(run: Run) -> None:
    stages = {stage["stage"] for stage in json.loads((run.folder / "plan.json").read_text())["stages"]}
    assert "merging" not in stages
    experiment = Experiment.load(run.folder / "config.yaml", run.folder.parent.parent, progress=Progress())
    assert adapters.checked(experiment) == []
    done = workbench("adapter", "check", run.folder)
    assert done.returncode == 0, done.stderr
    (facts,) = adapters.checked(experiment)
    assert done.stdout.strip() == adapters.sentence(facts)
    assert [row.system for row in facts.scores] == ["base", "adapter", "merged"] and len(facts.replies) == 5
    assert 0 < facts.largest < 1e-3 and facts.mean <= facts.largest < facts.spread
    differing = sum(row["adapter"] != row["merged"] for row in facts.replies)
    assert facts.different_answers == differing / len(facts.replies)
    answers = [json.loads(line) for line in (run.folder / "answers.jsonl").read_text().splitlines()]
    for label, system in (("base", "base"), ("tuned", "merged")):
        measured = {row["query_id"]: row["reply"] for row in answers if row["configuration"] == run.find(label)}
        assert [row[system] for row in facts.replies] == [measured[row["query_id"]] for row in facts.replies]


def test_an_experiment_without_lora_has_no_adapter(run: Run, tmp_path: Path) -> None:
    only = ["axes.generator=[base]"]
    experiment = Experiment.load(run.folder / "config.yaml", run.folder.parent.parent, only, Progress())
    assert adapters.adapters(experiment) == {} and adapters.checked(experiment) == []
    with pytest.raises(InputError, match="none of its generators has lora"):
        adapters.export(experiment, tmp_path / "out")
