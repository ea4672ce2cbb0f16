"""What is known when a budget, an outage or a person ends a run before all servers have answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from workbench.experiment.observed import spent, unanswered
from workbench.experiment.planner import ConfigurationStages
from workbench.experiment.sweep import Sweep, in_turn
from workbench.experiment.writer import new_folder
from workbench.results import table_files, tables
from workbench.results.rows import ComparisonRow, LeaderboardRow, ResultRow
from workbench.stages.answers import Answers

STOPPED = "stopped.json"


def write_partial(sweep: Sweep, runs: Path, started: datetime, reason: str) -> Path | None:
    """Tables of the questions that all configurations have answered, in a folder without a manifest.

    The questions are the first in an order that has nothing to do with them, so that intervals mean what they say.

    Args:
        sweep: was ended.
        runs: folder of all runs.
        started: when the run began.
        reason: why it was ended.

    Returns:
        The folder; None where there are no two such questions, or no server was being asked.
    """
    answered = _answered(sweep)
    if not any(len(ids) > 1 for ids in answered.values()):
        return None
    rows = [row for one in sweep.measuring for row in _rows(one, answered[one.split], sweep)]
    rows.sort(key=lambda row: tuple(map(str, row)))
    scores = tables.matrices(rows, sweep.groups)
    folder = new_folder(runs / sweep.settings.experiment, started, sweep.settings)
    table_files.write(folder / "results.csv", ResultRow, rows)
    table_files.write(folder / "leaderboard.csv", LeaderboardRow, tables.leaderboard(scores))
    table_files.write(folder / "comparisons.csv", ComparisonRow, tables.comparisons(scores, sweep.settings.seed))
    said = {
        "reason": reason,
        "answered": {split: len(ids) for split, ids in answered.items()},
        "questions": {split: len(sweep.session.dataset.split(split)) for split in answered},
        "spent": spent(sweep.session),
    }
    (folder / STOPPED).write_text(json.dumps(said, indent=1), encoding="utf-8")
    return folder


def _answered(sweep: Sweep) -> dict[str, set[str]]:
    """Split -> the first questions in their turn that every configuration has answered."""
    stages = [(one.split, answers) for one in sweep.measuring for answers in one.all_answers()]
    if not any(answers.writer.served for _, answers in stages):
        return {}
    found: dict[str, set[str]] = {}
    for split in dict.fromkeys(split for split, _ in stages):
        missing = set().union(*(unanswered(answers, sweep.session) for other, answers in stages if other == split))
        ids = in_turn(query.id for query in sweep.session.dataset.split(split))
        end = next((i for i, query_id in enumerate(ids) if query_id in missing), len(ids))
        found[split] = set(ids[:end])
    return found


def _rows(one: ConfigurationStages, ids: set[str], sweep: Sweep) -> Iterator[ResultRow]:
    session = sweep.session
    if one.ranking_scores and session.has(one.ranking_scores):
        for score in session.read(one.ranking_scores):
            if score.query_id in ids:
                yield ResultRow(one.configuration.id, one.split, *score)
    seeds = [list(_answer_rows(one, answers, ids, sweep)) for answers in one.all_answers()]
    if len(seeds) == 1:
        yield from seeds[0]
        return
    for same in zip(*seeds, strict=True):
        values = [row.value for row in same if row.value is not None]
        yield same[0]._replace(value=sum(values) / len(same) if values else None)


def _answer_rows(one: ConfigurationStages, stage: Answers, ids: set[str], sweep: Sweep) -> Iterator[ResultRow]:
    session = sweep.session
    asked = [prompt for prompt in stage.prompts(session) if prompt.query_id in ids]
    accepted = {query.id: query.answers for query in session.dataset.split(one.split)}
    for prompt, generation in zip(asked, stage.writer.written([prompt.text for prompt in asked], session), strict=True):
        answer = stage.answer(prompt, generation)
        for metric in sweep.space.answer_metrics.values():
            value = stage.score(metric, answer, accepted[prompt.query_id], session)
            yield ResultRow(one.configuration.id, one.split, prompt.query_id, metric.name, value, answer.status)
