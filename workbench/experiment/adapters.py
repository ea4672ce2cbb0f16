"""Adapters of a finished experiment: held against merged weights, and written to a folder that other programs open."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from workbench import weights
from workbench.component import file_digest
from workbench.errors import InputError, unknown
from workbench.experiment.experiment import Experiment
from workbench.models.adapters import CONFIG, EXPORTED, WEIGHTS, Exported
from workbench.results import tables
from workbench.results.rows import ResultRow, SystemRow
from workbench.stages.merging import SYSTEMS
from workbench.stages.training import Adapter

BASE = "base"  # folder of the base weights in an exported adapter


class MergingFacts(NamedTuple):
    """The same prompts answered by the base, by the adapter beside the weights, and by the merged weights.

    Attributes:
        generator: name of the tuned generator in the experiment's file.
        seed: of the adapter's training.
        scores: mean of the selecting metric of each, with its 95 % interval.
        replies: for each prompt the query's id and the reply of each.
        different_answers: share of the prompts that merging answers otherwise.
        largest: largest absolute difference of a logit of the first answer token between the adapter and the merged weights.
        mean: mean of these differences.
        spread: standard deviation of the logits, to read the differences by.
    """

    generator: str
    seed: int
    scores: list[SystemRow]
    replies: list[dict[str, str]]
    different_answers: float
    largest: float
    mean: float
    spread: float


def adapters(experiment: Experiment) -> dict[str, Adapter]:
    """Generator -> its adapter of the first seed, which is the one served; in the order of the file, none without lora."""
    space, seed = experiment.space, experiment.settings.seed
    named = {name: space.components.generators[name] for name in space.axes.get("generator", ())}
    trained = {name: experiment.planner.adapter(generator, seed) for name, generator in named.items()}
    return {name: adapter for name, adapter in trained.items() if adapter}


def check(experiment: Experiment, name: str, adapter: Adapter) -> MergingFacts | None:
    """Answers some prompts by base, adapter and merged weights, where that was not done before; None where that cannot be.

    Args:
        experiment: of the adapter.
        name: the tuned generator's.
        adapter: its adapter.
    """
    stage = experiment.planner.merging(adapter)
    if stage is None:
        return None
    found, split, space = experiment.session.read(stage), experiment.settings.dataset.select, experiment.space
    metric = space.select_by if space.select_by in space.answer_metrics else next(iter(space.answer_metrics))
    scored = [
        ResultRow(system, split, row.query_id, metric, reply.scores[metric], reply.status)
        for row in found.rows
        for system, reply in row.replies.items()
    ]
    board = {row.configuration: row for row in tables.leaderboard(tables.matrices(scored, experiment.sweep.groups))}
    systems = [board[system] for system in SYSTEMS]
    different = sum(row.replies["adapter"].reply != row.replies["merged"].reply for row in found.rows)
    return MergingFacts(
        name,
        adapter.seed,
        [SystemRow(row.configuration, row.split, row.metric, row.mean, row.ci_low, row.ci_high, row.n) for row in systems],
        [{"query_id": row.query_id} | {system: row.replies[system].reply for system in SYSTEMS} for row in found.rows],
        different / len(found.rows),
        found.largest,
        found.mean,
        found.spread,
    )


def checked(experiment: Experiment) -> list[MergingFacts]:
    """What `check` found of the adapters it was called for; computes nothing."""
    found = []
    for name, adapter in adapters(experiment).items():
        stage = experiment.planner.merging(adapter)
        if stage and experiment.session.has(stage) and (facts := check(experiment, name, adapter)):
            found.append(facts)
    return found


def report(experiment: Experiment) -> Iterator[str]:
    """What merging changes, a sentence for each adapter; computed where it was not before.

    Raises:
        InputError: the experiment tunes no generator.
    """
    for name, adapter in _some(experiment).items():
        if facts := check(experiment, name, adapter):
            yield sentence(facts)
        elif adapter.lora.method != "lora":
            yield f"{name}: method {adapter.lora.method} is not kept beside the weights, so there is nothing to compare"
        else:
            yield f"{name}: no configuration shows passages to every question, so nothing was asked"


def sentence(facts: MergingFacts) -> str:
    """What merging an adapter changes, in words."""
    first = facts.scores[0]
    means = ", ".join(f"{row.system} {row.mean:.3f}" for row in facts.scores)
    return (
        f"{facts.generator}, seed {facts.seed}: mean {first.metric} on the first {first.n} questions of {first.split}: {means}; "
        f"merging answers {facts.different_answers:.0%} of them otherwise, and moves the logits of the first answer token by "
        f"{facts.mean:.2g} on average, {facts.largest:.2g} at most (their standard deviation is {facts.spread:.2g})"
    )


def export(experiment: Experiment, folder: Path, name: str | None = None) -> Adapter:
    """Writes an adapter with its base weights beside it into a new folder; the stored adapter stays as it is.

    The folder holds what peft reads, ``base/`` with weights and tokenizer as transformers reads them, the prompt template that
    the adapter was trained in (``prompt.json``), and a README that shows how to open it. It is complete or absent.

    Args:
        experiment: with the adapter in its store.
        folder: the new folder.
        name: of the tuned generator; default: the only one.

    Raises:
        InputError: the folder exists, several generators are tuned and none is named, or the store no longer holds the adapter.
    """
    if folder.exists():
        raise InputError(f"{folder} exists already; name a new folder")
    chosen, adapter = _chosen(_some(experiment), name)
    if not experiment.session.has(adapter):
        raise InputError(
            f"the store holds no adapter of {chosen!r} ({adapter.key[:12]}) as this machine and this file train it; "
            f"run the experiment again"
        )
    base = weights.folder(adapter.generator.model)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}); name a folder in one that can be written") from error
    try:
        shutil.copytree(base, temporary / BASE, ignore=shutil.ignore_patterns(weights.READY))
        shutil.copytree(experiment.session.ensure(adapter), temporary, dirs_exist_ok=True)
        _name_base(temporary, adapter, folder.resolve())
        temporary.chmod(0o755)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return adapter


def _some(experiment: Experiment) -> dict[str, Adapter]:
    found = adapters(experiment)
    if not found:
        raise InputError(f"experiment {experiment.settings.experiment}: none of its generators has lora, so there is no adapter")
    return found


def _chosen(found: dict[str, Adapter], name: str | None) -> tuple[str, Adapter]:
    if name is not None and name not in found:
        raise unknown("tuned generator", name, found)
    if name is None and len(found) > 1:
        raise InputError(f"several generators are tuned: {', '.join(found)}; name one with --generator")
    chosen = name or next(iter(found))
    return chosen, found[chosen]


def _name_base(folder: Path, adapter: Adapter, place: Path) -> None:
    """Names the base weights by their place, as peft wants it, and keeps by which digest they are known here."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    exported: Exported = {
        "format": 1,
        "base": BASE,
        "base_digest": weights.digest(str(folder / BASE)),
        "trained_on": config["base_model_name_or_path"],
        "max_new_tokens": adapter.generator.max_new_tokens,
        "weights_digest": file_digest(folder / WEIGHTS),
    }
    (folder / EXPORTED).write_text(json.dumps(exported, indent=1) + "\n", encoding="utf-8")
    path.write_text(json.dumps(config | {"base_model_name_or_path": str(place / BASE)}, indent=1, sort_keys=True))
    (folder / "README.md").write_text(_readme(adapter, place), encoding="utf-8")
    (folder / "manifest.json").unlink(missing_ok=True)  # the store's own


def _readme(adapter: Adapter, place: Path) -> str:
    method, rank = adapter.lora.method, f"Rank {adapter.lora.rank}, trained"
    what, how = ("All weights", "Trained") if method == "full" else ({"lora": "LoRA", "dora": "DoRA"}[method] + " adapter", rank)
    lines: Sequence[str] = (
        f"# {what} for {adapter.generator.model}",
        "",
        f"{how} with seed {adapter.seed}; `origin.json` has the digests of what it was made from.",
        "`base/` holds the base weights and the tokenizer. In the workbench, in the prompt it was trained in (`prompt.json`):",
        "",
        "    from workbench.models.generator import Generator",
        f'    generator = Generator.from_adapter("{place.name}")',
        '    generator.ask("What ends a loop?", ["The break statement ends the loop around it."])',
        "",
    )
    with_peft: Sequence[str] = (
        "With peft alone, wherever the folder lies:",
        "",
        "    from peft import PeftModel",
        "    from transformers import AutoModelForCausalLM, AutoTokenizer",
        f'    base = AutoModelForCausalLM.from_pretrained("{place.name}/{BASE}")',
        f'    model = PeftModel.from_pretrained(base, "{place.name}")',
        f'    tokenizer = AutoTokenizer.from_pretrained("{place.name}/{BASE}")',
        "",
    )
    return "\n".join(lines if method == "full" else [*lines, *with_peft])
