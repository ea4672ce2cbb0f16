"""What the notebooks show of an experiment beside its run: indexes, rankings, trainings, prompts.

Tables are lists of rows; `workbench.results.table_files.frame` makes them pandas frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from workbench.experiment.experiment import Experiment
from workbench.experiment.planner import ConfigurationStages, passages_of
from workbench.models import prompts
from workbench.models.chat import Message
from workbench.models.lora import Example
from workbench.models.training import HELD_BACK, LOSSES, Evaluation, Step, read_held_back, read_losses
from workbench.results import tables
from workbench.results.rows import ResultRow
from workbench.stages.indexes import DenseIndex, TextIndex
from workbench.stages.scores import RankingScores
from workbench.stages.training import Adapter

RANKING_AXES = ("chunking", "rewriting", "expansion", "retriever", "reranker")


class IndexFacts(NamedTuple):
    """One index of an experiment.

    Attributes:
        kind: the class of its retriever, or of the index of its vectors.
        chunking: of its passages.
        passages: how many it holds.
        megabytes: on disk.
        seconds: that building it took.
        key: beginning of its key in the store.
        folder: where it lies.
    """

    kind: str
    chunking: str
    passages: int
    megabytes: float
    seconds: float
    key: str
    folder: str


class RankingFacts(NamedTuple):
    """Quality of one ranking by one metric; `values` are its axes, columns of a frame."""

    values: dict[str, str]
    split: str
    metric: str
    mean: float
    ci_low: float | None
    ci_high: float | None
    n: int


class RankedPassage(NamedTuple):
    """A passage of a ranking: its score, title and text."""

    score: float
    title: str
    text: str


class TrainingFacts(NamedTuple):
    """What the training of an adapter was.

    Tokens, seconds and memory are those of the process that ended the training; memory is its peak until then, whatever else it
    did before.

    Attributes:
        base: weights source of the generator.
        seed: of the training.
        rank: of the LoRA matrices.
        epochs: passes over the examples.
        examples: how many there were.
        held_back: how many of them were held back to watch the loss on.
        left_out: train questions that the evaluation asks too.
        tokens: read, padding included.
        padding: share of them that was padding; None where no token was read.
        seconds: that it took.
        tokens_per_second: without padding.
        peak_gb: peak memory of the process, GB.
        first_loss: of the first step, nats per answer token.
        last_loss: of the last step.
        key: beginning of the adapter's key in the store.
    """

    base: str
    seed: int
    rank: int
    epochs: int
    examples: int
    held_back: int
    left_out: int
    tokens: int
    padding: float | None
    seconds: float
    tokens_per_second: float
    peak_gb: float
    first_loss: float
    last_loss: float
    key: str


def indexes(experiment: Experiment, stages: Sequence[TextIndex | DenseIndex]) -> list[IndexFacts]:
    """One row of facts for each index that `Experiment.index` returns."""
    rows = []
    for stage in stages:
        folder = experiment.session.ensure(stage)
        manifest = experiment.session.store.manifest(stage.name, stage.key)
        passages = stage.passages if isinstance(stage, TextIndex) else stage.embeddings.passages
        kind = type(stage.retriever if isinstance(stage, TextIndex) else stage.index).__name__
        megabytes = round(sum(file["bytes"] for file in manifest["files"].values()) / 1e6, 2)
        n = len(experiment.session.read(passages))
        rows.append(IndexFacts(kind, passages.label, n, megabytes, manifest["seconds"], stage.key[:12], str(folder)))
    return rows


def rankings(experiment: Experiment) -> list[RankingFacts]:
    """Quality of every distinct ranking on the selection split: one row for each and metric, with intervals."""
    first: dict[str, ConfigurationStages] = {}
    scored: dict[str, RankingScores] = {}
    for one in experiment.selected_on:
        if one.ranking and one.ranking_scores and one.ranking.key not in first:
            first[one.ranking.key], scored[one.ranking.key] = one, one.ranking_scores
    experiment.sweep.ensure(scored.values())
    split, space = experiment.settings.dataset.select, experiment.space
    rows = [ResultRow(key, split, *score) for key, stage in scored.items() for score in experiment.session.read(stage)]
    axes = [axis for axis in RANKING_AXES if axis in space.axes]
    named = {key: {axis: one.configuration.columns()[axis] for axis in axes} for key, one in first.items()}
    board = tables.leaderboard(tables.matrices(rows, experiment.sweep.groups))
    return [RankingFacts(named[r.configuration], r.split, r.metric, r.mean, r.ci_low, r.ci_high, r.n) for r in board]


def example(experiment: Experiment) -> tuple[str, list[RankedPassage]]:
    """The first judged question of the train (else selection) split, and its five best passages by the baseline's ranking."""
    data, dataset = experiment.settings.dataset, experiment.session.dataset
    split = data.train if data.train in dataset.splits else data.select
    judged = dataset.judged(split).judged
    query = next((q for q in dataset.split(split) if q.id in judged), dataset.split(split)[0])
    ranking = experiment.planner.ranking(experiment.space.baseline, split)
    passages = experiment.session.read(passages_of(ranking))
    ids, scores = ranking.rank([query.text], experiment.session)[0]
    return query.text, [
        RankedPassage(round(float(score), 3), passages.shown(n).title, " ".join(passages.shown(n).text.split()))
        for n, score in zip(ids[:5].tolist(), scores[:5], strict=True)
    ]


def training_curve(experiment: Experiment, adapter: Adapter) -> list[Step]:
    """The steps of a training."""
    return read_losses(experiment.session.ensure(adapter) / LOSSES)


def held_back_curve(experiment: Experiment, adapter: Adapter) -> list[Evaluation]:
    """Losses on the examples held back; empty where none were."""
    return read_held_back(experiment.session.ensure(adapter) / HELD_BACK)


def training_facts(experiment: Experiment, adapter: Adapter) -> TrainingFacts:
    """What a training was: base, rank, epochs, examples, tokens, seconds, first and last loss."""
    curve = training_curve(experiment, adapter)
    manifest = experiment.session.store.manifest(adapter.name, adapter.key)
    facts, seconds = manifest["facts"], manifest["seconds"]
    tokens, read = facts["tokens"], facts["tokens_read"]
    return TrainingFacts(
        base=adapter.generator.model,
        seed=adapter.seed,
        rank=adapter.lora.rank,
        epochs=adapter.lora.epochs,
        examples=facts["examples"],
        held_back=facts.get("held_back", 0),
        left_out=len(facts.get("dropped", ())),
        tokens=tokens,
        padding=round(1 - read / tokens, 3) if tokens else None,
        seconds=seconds,
        tokens_per_second=round(read / seconds, 1),
        peak_gb=facts["peak_gb"],
        first_loss=curve[0].loss,
        last_loss=curve[-1].loss,
        key=adapter.key[:12],
    )


def training_example(experiment: Experiment, adapter: Adapter) -> Example:
    """The first example an adapter learned from."""
    return adapter.examples(experiment.session)[0]


def gallery(experiment: Experiment, shown: int = 2) -> list[tuple[str, list[Message]]]:
    """Every template of the package and of the experiment, filled in on one question: name and conversation.

    A template with solved questions shows them only where the experiment asks with it. Empty without a generator.
    """
    space, session = experiment.space, experiment.session
    if not space.generating:
        return []
    ranking = experiment.planner.ranking(space.baseline, experiment.settings.dataset.select)
    query = ranking.queries(session)[0]
    ids, _ = session.read(ranking).row(0)
    asked = {one.configuration["prompt"]: one.answers for one in experiment.selected_on if one.answers}
    passages = session.read(passages_of(ranking))
    found = []
    for name in dict.fromkeys([*prompts.names(), *asked]):
        template, few_shot = space.template(name), asked[name].few_shot if name in asked else None
        shots = few_shot.of_split(session)[0] if few_shot else ()
        found.append((name, template.fill(query.text, [passages.shown(int(n)) for n in ids[:shown]], shots)))
    return found


def plan_html(experiment: Experiment) -> str:
    """What a run would compute, as a table: the distinct stages, and what the store lacks of them."""
    rows, total = experiment.planned_costs()
    names = ["stage", "distinct", "uses", "in store", "to compute", "tokens", "seconds", *filter(None, [total.currency])]
    lines = [_line("th", names)]
    for row in rows:
        money = [f"{row.money:,.4g}"] if total.currency else []
        lines.append(_line("td", [row.stage, *(f"{figure:,.0f}" for figure in row[1:-1]), *money]))
    cost = f"To compute: {total.sentence(experiment.searched)}."
    table = f"<div style='overflow-x: auto'><table>{''.join(lines)}</table></div>"
    return f"<p>{escape(repr(experiment))}</p>{table}<p>{cost}</p>"


def _line(tag: str, cells: Sequence[str]) -> str:
    """A row of a table: the first cell at the left, numbers at the right."""
    sides = ["left", *["right"] * (len(cells) - 1)]
    styled = [f"<{tag} style='text-align: {side}; padding: 2px 10px'>" for side in sides]
    return f"<tr>{''.join(f'{start}{escape(cell)}</{tag}>' for start, cell in zip(styled, cells, strict=True))}</tr>"
