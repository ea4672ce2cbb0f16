"""What notebook 02 shows: the losses of trainings, what was learned from, and what that changed."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.experiment import adapters as checks
from workbench.experiment import notebook_tables
from workbench.experiment.experiment import Experiment
from workbench.results import words
from workbench.results.rows import TrainingRow
from workbench.stages.training import Adapter
from workbench.views.curves import losses
from workbench.views.html import foreign, table, text
from workbench.views.notebook import Shown, styled

NOTHING = "<p>This experiment trains nothing.</p>"
REPLIES = 8  # prompts of which the replies are shown


def _name(experiment: Experiment, adapter: Adapter) -> str:
    found = checks.adapters(experiment)
    return next((name for name, one in found.items() if one.key == adapter.key), adapter.key[:12])


def curves(experiment: Experiment, adapters: Sequence[Adapter]) -> Shown:
    """The loss of each step of each training."""
    parts = []
    for adapter in adapters:
        name = _name(experiment, adapter)
        rows = {row.step: row.loss for row in notebook_tables.training_curve(experiment, adapter)}
        held = {row.step: row.loss for row in notebook_tables.held_back_curve(experiment, adapter)}
        steps = sorted(rows.keys() | held.keys())
        parts.append(losses([TrainingRow(name, adapter.seed, step, rows.get(step), held.get(step)) for step in steps]))
        facts = notebook_tables.training_facts(experiment, adapter)
        said = f"{name}: the loss went from {facts.first_loss:.2f} to {facts.last_loss:.2f} nats per token of the answer."
        parts.append(f"<p>{text(said)}</p>")
    return Shown(styled("".join(parts) or NOTHING))


def facts(experiment: Experiment, adapters: Sequence[Adapter]) -> Shown:
    """What each training took."""
    head = ("adapter", "seed", "examples", "held back", "epochs", "rank", "seconds", "tokens a second", "peak GB")
    lines = []
    for adapter in adapters:
        one = notebook_tables.training_facts(experiment, adapter)
        shown = (one.seed, one.examples, one.held_back, one.epochs, one.rank)
        times = (f"{one.seconds:,.0f}", f"{one.tokens_per_second:,.0f}", f"{one.peak_gb:.1f}")
        lines.append((foreign(_name(experiment, adapter)), *map(str, shown), *times))
    return Shown(styled(table("Trainings, when they were computed", head, lines, right=range(1, 9)) if lines else NOTHING))


def examples(experiment: Experiment, adapters: Sequence[Adapter]) -> Shown:
    """The first example that each training learned from."""
    parts = []
    for adapter in adapters:
        one = notebook_tables.training_example(experiment, adapter)
        turns = "".join(f"<p class=wb-quiet>{text(turn['role'])}</p><pre>{text(turn['content'])}</pre>" for turn in one.messages)
        parts.append(f"{turns}<p class=wb-quiet>reply wanted</p><pre>{text(one.answer)}</pre>")
    return Shown(styled("".join(parts) or NOTHING))


def changed(experiment: Experiment) -> Shown:
    """What base, adapter and merged weights answer to the same prompts."""
    parts = [_changed(one) for one in checks.checked(experiment)]
    nothing = "<p>These prompts were not asked; <code>workbench adapter check RUN</code> asks them.</p>"
    return Shown(styled("".join(parts) or nothing))


def _changed(one: checks.MergingFacts) -> str:
    means = [(foreign(row.system), words.number(row.mean), words.between(row.ci_low, row.ci_high) or "–") for row in one.scores]
    first = one.scores[0]
    about = f"{one.generator}: {words.metric_name(first.metric)} of 100 on {first.n:,} questions of {first.split}"
    head = ("question", *(row.system for row in one.scores))
    replies = [
        (foreign(row["query_id"]), *(foreign(row[system.system]) for system in one.scores)) for row in one.replies[:REPLIES]
    ]
    return (
        table(about, ("answered by", "mean", "plausibly"), means, right=(1, 2))
        + f"<p>{text(checks.sentence(one))}.</p>"
        + table("Replies to the first prompts", head, replies)
    )
