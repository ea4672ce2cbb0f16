"""What the notebooks show of an experiment beside its run: indexes, rankings, trainings, prompts. Tables are lists of rows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from workbench.experiment.experiment import Experiment
from workbench.experiment.planner import closure
from workbench.models import prompts
from workbench.models.chat import Message
from workbench.models.lora import Example
from workbench.models.training import HELD_BACK
from workbench.results import tables
from workbench.results.tables import Result
from workbench.stages.indexes import DenseIndex, TextIndex
from workbench.stages.merging import SYSTEMS
from workbench.stages.passages import Passages
from workbench.stages.training import Adapter

PLANNED = ("distinct", "uses", "found", "missing", "tokens", "seconds")


def indexes(experiment: Experiment, stages: Sequence[TextIndex | DenseIndex]) -> list[dict[str, Any]]:
    """One row of facts for each index that `Experiment.index` returns."""
    rows = []
    for stage in stages:
        folder = experiment.session.ensure(stage)
        manifest = experiment.session.store.manifest(stage.name, stage.key)
        passages = stage.passages if isinstance(stage, TextIndex) else stage.embeddings.passages
        rows.append(
            {
                "index": type(stage.retriever if isinstance(stage, TextIndex) else stage.index).__name__,
                "chunking": passages.label,
                "passages": len(experiment.session.read(passages)),
                "megabytes": round(sum(f["bytes"] for f in manifest["files"].values()) / 1e6, 2),
                "seconds": manifest["seconds"],
                "key": stage.key[:12],
                "folder": str(folder),
            }
        )
    return rows


def rankings(experiment: Experiment) -> list[dict[str, Any]]:
    """Quality of every distinct ranking on the selection split: one row for each and metric, with intervals."""
    first = {one.ranking.key: one for one in reversed(experiment.selected_on) if one.ranking_scores}
    scored = {key: one.ranking_scores for key, one in first.items()}
    experiment.sweep.ensure(scored.values())
    split, space = experiment.settings.dataset.select, experiment.space
    rows = [Result(key, split, *score) for key, stage in scored.items() for score in experiment.session.read(stage)]
    axes = [axis for axis in ("chunking", "rewriting", "expansion", "retriever", "reranker") if axis in space.axes]
    named = {key: {axis: one.configuration.columns()[axis] for axis in axes} for key, one in first.items()}
    board = tables.leaderboard(tables.matrices(rows, experiment.sweep.groups))
    return [named[r["configuration"]] | {k: r[k] for k in ("split", "metric", "mean", "ci_low", "ci_high", "n")} for r in board]


def example(experiment: Experiment) -> tuple[str, list[dict[str, Any]]]:
    """The first judged question of the train (else selection) split, and its five best passages by the baseline's ranking."""
    data, dataset = experiment.settings.dataset, experiment.session.dataset
    split = data.train if data.train in dataset.splits else data.select
    judged = dataset.judged(split).judged
    query = next((q for q in dataset.split(split) if q.id in judged), dataset.split(split)[0])
    ranking = experiment.planner.ranking(experiment.space.baseline, split)
    passages = experiment.session.read(next(s for s in closure(ranking) if isinstance(s, Passages)))
    ids, scores = ranking.rank([query.text], experiment.session)[0]
    return query.text, [
        {"score": round(float(score), 3), "title": passages.shown(n).title, "text": " ".join(passages.shown(n).text.split())}
        for n, score in zip(ids[:5].tolist(), scores[:5], strict=True)
    ]


def training_curve(experiment: Experiment, adapter: Adapter) -> list[dict[str, Any]]:
    """Losses of a training: step, loss (nats per answer token), learning_rate, tokens."""
    return tables.read_table(experiment.session.ensure(adapter) / "training.csv")


def held_back_curve(experiment: Experiment, adapter: Adapter) -> list[dict[str, Any]]:
    """Losses on the examples held back: step, loss; empty where none were."""
    path = experiment.session.ensure(adapter) / HELD_BACK
    return tables.read_table(path) if path.is_file() else []


def training_facts(experiment: Experiment, adapter: Adapter) -> dict[str, Any]:
    """What a training was: base, rank, epochs, examples, tokens, seconds, first and last loss.

    Tokens, seconds and memory are those of the process that ended the training; memory is its peak until then, whatever
    else it did before.
    """
    curve = training_curve(experiment, adapter)
    manifest = experiment.session.store.manifest(adapter.name, adapter.key)
    facts, lora = manifest["facts"], adapter.generator.lora
    read = facts.get("tokens_read", facts["tokens"])
    return {
        "base": adapter.generator.model,
        "seed": adapter.seed,
        "rank": lora.rank,
        "epochs": lora.epochs,
        "examples": facts["examples"],
        "held back": facts.get("held_back", 0),
        "left out": len(facts.get("dropped", ())),
        "tokens": facts["tokens"],
        "padding": round(1 - read / facts["tokens"], 3) if facts["tokens"] else None,
        "seconds": manifest["seconds"],
        "tokens per second": round(read / manifest["seconds"], 1),
        "peak GB": facts.get("peak_gb"),
        "first loss": curve[0]["loss"],
        "last loss": curve[-1]["loss"],
        "key": adapter.key[:12],
    }


def training_example(experiment: Experiment, adapter: Adapter) -> Example:
    """The first example an adapter learned from."""
    return adapter.examples(experiment.session)[0]


def merging(experiment: Experiment, adapter: Adapter) -> dict[str, Any]:
    """The same prompts answered by the base, by the adapter beside the weights, and by the merged weights.

    Returns:
        ``scores``: mean of the selecting metric of each, with its 95 % interval; ``replies``: a row for each prompt;
        ``different answers``: share of the prompts that merging answers otherwise; ``largest`` and ``mean`` difference of
        a logit of the first answer token, and their ``spread`` (standard deviation of the logits) to read it by. Empty
        where no configuration of the experiment shows it.
    """
    shown = [one.merging for one in experiment.selected_on if one.merging]
    stage = next((one for one in shown if one.answers.writer.adapter.key == adapter.key), None)
    if stage is None:
        return {}
    found, split, space = experiment.session.read(stage), experiment.settings.dataset.select, experiment.space
    metric = space.select_by if space.select_by in space.answer_metrics else space.answer_metrics[0]
    scored = [
        Result(name, split, row["query_id"], metric, row[name][metric], row[name]["status"])
        for row in found["rows"]
        for name in SYSTEMS
    ]
    board = {row["configuration"]: row for row in tables.leaderboard(tables.matrices(scored, experiment.sweep.groups))}
    columns = ("split", "metric", "mean", "ci_low", "ci_high", "n")
    return {
        "scores": [{"system": name} | {key: board[name][key] for key in columns} for name in SYSTEMS],
        "replies": [{"query_id": row["query_id"]} | {name: row[name]["reply"] for name in SYSTEMS} for row in found["rows"]],
        "different answers": sum(r["adapter"]["reply"] != r["merged"]["reply"] for r in found["rows"]) / len(found["rows"]),
    } | {key: found[key] for key in ("largest", "mean", "spread")}


def gallery(experiment: Experiment, shown: int = 2) -> list[tuple[str, list[Message]]]:
    """Every template of the package and of the experiment, filled in on one question: name and conversation.

    A template with solved questions shows them only where the experiment asks with it. Empty without a generator.
    """
    space, session = experiment.space, experiment.session
    if not space.generating:
        return []
    ranking = experiment.planner.measured(space.baseline, experiment.settings.dataset.select).ranking
    query = ranking.queries(session)[0]
    ids, _ = session.read(ranking).row(0)
    asked = {one.configuration["prompt"]: one.answers for one in experiment.selected_on if one.answers}
    passages = session.read(next(s for s in closure(ranking) if isinstance(s, Passages)))
    found = []
    for name in dict.fromkeys([*prompts.names(), *asked]):
        template, few_shot = space.template(name), asked[name].few_shot if name in asked else None
        shots = few_shot.of_split(session)[0] if few_shot else ()
        found.append((name, template.fill(query.text, [passages.shown(int(n)) for n in ids[:shown]], shots)))
    return found


def plan_html(experiment: Experiment) -> str:
    """What a run would compute, as a table: the distinct stages, and what the store lacks of them."""
    rows, total = experiment.planned_costs()
    names = ("stage", "distinct", "uses", "in store", "to compute", "tokens", "seconds")
    lines = [_line("th", names), *(_line("td", [row["stage"], *(f"{row[key]:,.0f}" for key in PLANNED)]) for row in rows)]
    cost = f"To compute: {total['missing']} stages, at most {total['tokens']:,} tokens, about {total['seconds']:,.0f} s at most."
    table = f"<div style='overflow-x: auto'><table>{''.join(lines)}</table></div>"
    return f"<p>{escape(repr(experiment))}</p>{table}<p>{cost}</p>"


def _line(tag: str, cells: Sequence[str]) -> str:
    """A row of a table: the first cell at the left, numbers at the right."""
    sides = ["left", *["right"] * (len(cells) - 1)]
    styled = [f"<{tag} style='text-align: {side}; padding: 2px 10px'>" for side in sides]
    return f"<tr>{''.join(f'{start}{escape(cell)}</{tag}>' for start, cell in zip(styled, cells, strict=True))}</tr>"
