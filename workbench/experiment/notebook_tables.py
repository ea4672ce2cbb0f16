"""What the notebooks show of an experiment beside its run: indexes, rankings, trainings, prompts.

Tables are lists of rows; `workbench.results.table_files.frame` makes them pandas frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from workbench.experiment.asking import Ranked, Search, lost
from workbench.experiment.config import BASELINE
from workbench.experiment.experiment import Experiment
from workbench.experiment.planner import ConfigurationStages, passages_of
from workbench.models import prompts
from workbench.models.chat import Message
from workbench.models.lora import Example
from workbench.models.training import HELD_BACK, LOSSES, Evaluation, Step, read_held_back, read_losses
from workbench.results import tables
from workbench.results.rows import ResultRow
from workbench.results.words import TODAY
from workbench.stages.indexes import DenseIndex, TextIndex
from workbench.stages.scores import RankingScores
from workbench.stages.training import Adapter
from workbench.views.html import foreign, table, text
from workbench.views.marking import marked, short
from workbench.views.notebook import Shown, styled

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


def prompts_shown(experiment: Experiment) -> Shown:
    """The templates of `gallery`, folded."""
    parts = []
    for name, turns in gallery(experiment):
        body = "".join(f"<p class=wb-quiet>{text(turn['role'])}</p><pre>{text(turn['content'])}</pre>" for turn in turns)
        parts.append(f"<details><summary>{foreign(name)}</summary>{body}</details>")
    return Shown(styled("".join(parts) or "<p>This experiment ranks passages and asks no model.</p>"))


def experiment_html(experiment: Experiment) -> str:
    """An experiment before it runs: its axes, what is asked, what is left out, and what computing it costs."""
    space, dataset, data = experiment.space, experiment.session.dataset, experiment.settings.dataset
    base, today = space.baseline.columns(), experiment.settings.names.get(BASELINE, TODAY)
    axes = [(text(axis), _values(axis, experiment), text(base[axis])) for axis in space.axes]
    roles = {data.report: "report the result"} | {data.select: "choose the setup"}
    asked = " and ".join(f"{len(dataset.split(split)):,} questions of {split} {role}" for split, role in roles.items())
    rows, total = experiment.planned_costs()
    names = ["stage", "distinct", "uses", "in store", "to compute", "tokens", "seconds", *filter(None, [total.currency])]
    stages = [
        [text(row.stage), *(f"{figure:,.0f}" for figure in row[1:-1]), *([f"{row.money:,.4g}"] if total.currency else [])]
        for row in rows
    ]
    memory = f", in {total.memory_gb:.1f} GB of memory, as earlier runs showed" if total.memory_gb else ""
    said = f"To compute: {total.sentence(experiment.searched)}{memory}." if total.missing else "The store holds everything."
    notes = "".join(f"<li>{text(note)}</li>" for note in experiment.notes)
    left_out = f"<h3>What is left out or missed</h3><ul class=wb-list>{notes}</ul>" if notes else ""
    return styled(
        f"<h2>{text(experiment.settings.experiment)}</h2>"
        f"<p>{text(f'{len(experiment.configurations):,} setups are compared on {dataset.name}: {asked}.')}</p>"
        + table("Axes: setups are combinations of these values", ("axis", "values", today), axes)
        + f"<p><strong>{text(said)}</strong></p>"
        + table("Distinct work, stage by stage", names, stages, right=range(1, len(names)))
        + left_out
    )


def search_html(found: Search) -> str:
    """What each ranking finds for a question, side by side, with the evidence marked where it is known."""
    columns = "".join(_ranking_html(one, found) for one in found.rankings)
    return styled(f"<h3>{foreign(found.question)}</h3><div class=wb-pair>{columns}</div>")


def _ranking_html(one: Ranked, found: Search) -> str:
    answers = (found.query.answers or ()) if found.query else ()
    shown = ""
    for row in one.passages:
        holds = " · <strong>holds evidence</strong>" if row.holds else ""
        about = f"<small>{row.rank} · {row.score:g} · {foreign(row.title)}{holds}</small>"
        shown += f"<blockquote>{about}<br>{marked(short(row.text, 400), answers)}</blockquote>"
    said = lost(one, found.query)
    return f"<div><strong>{foreign(one.name)}</strong><p class=wb-quiet>{said[0].upper()}{said[1:]}.</p>{shown}</div>"


def _values(axis: str, experiment: Experiment) -> str:
    return text(", ".join(dict.fromkeys(one.columns()[axis] for one in experiment.configurations)))
