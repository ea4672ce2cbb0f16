"""The metrics of an experiment's file: which answers are measured by, one's own among them, and which of them chooses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import InputError, unknown
from workbench.evaluation import answers, rankings
from workbench.evaluation.answers import AnswerMetric
from workbench.experiment.config import ALWAYS, ExperimentSettings, at


def answer_metrics(settings: ExperimentSettings, folder: Path) -> dict[str, AnswerMetric]:
    """Name -> metric of answers, in the order of the file.

    Args:
        settings: of the experiment.
        folder: where a metric's own file is looked for, as in ``./mine.py:my_metric``.

    Raises:
        InputError: a metric of one's own cannot be loaded, or two have one name.
    """
    found: dict[str, AnswerMetric] = {}
    for spec in settings.metrics.answers:
        try:
            metric = answers.BUILTIN[spec] if spec in answers.BUILTIN else answers.own_metric(spec, folder)
        except InputError as error:
            raise at("metrics.answers", error) from error
        if metric.name in found:
            raise InputError(f"metrics.answers: two metrics are called {metric.name!r}; give one of the functions another name")
        found[metric.name] = metric
    return found


def check_metrics(settings: ExperimentSettings, axes: dict[str, list[Any]], measured: Mapping[str, AnswerMetric]) -> str:
    """The metric that selects, after refusing contradictory ones.

    Args:
        settings: of the experiment.
        axes: axis -> its values.
        measured: metrics of answers; empty where none are written.

    Raises:
        InputError: a metric that nothing computes here, `grounded` chosen to select, a race by a ranking metric, or `@k` metrics
            across chunkings.
    """
    names = [*settings.metrics.rankings, *measured]
    if not names:
        nothing = "" if "generator" in axes else ", and without the axis 'generator' nothing else is measured"
        raise InputError(f"metrics.rankings: the list is empty{nothing}; name at least one metric, e.g. ndcg@10")
    select_by = settings.metrics.select_by or ("f1" if "generator" in axes else settings.metrics.rankings[0])
    selecting = [name for name, metric in measured.items() if metric.selects]
    allowed = ", ".join(selecting or ("f1", "em", "contains"))
    if select_by in answers.BUILTIN and not answers.BUILTIN[select_by].selects:
        raise InputError(f"metrics.select_by: {select_by!r} would choose a generator that never answers; allowed: {allowed}")
    if select_by not in names:
        raise at("metrics.select_by", unknown("metric", select_by, [*settings.metrics.rankings, *selecting]))
    if settings.search.strategy == "racing" and select_by not in measured:
        raise InputError(
            f"search.strategy: 'racing' saves answers, but metrics.select_by is {select_by!r}, which needs none; use 'grid'"
        )
    retrieval = [*axes.get("retrieval", ()), settings.baseline.get("retrieval", ALWAYS)]
    if any(value != ALWAYS for value in retrieval) and select_by not in measured:
        raise InputError(
            f"metrics.select_by: {select_by!r} measures rankings, whether their passages are shown or not, but axes.retrieval "
            f"decides on showing them; allowed: {allowed}"
        )
    if len(axes["chunking"]) > 1:
        for name in settings.metrics.rankings:
            if not rankings.parse(name).in_words:
                raise InputError(
                    f"metrics.rankings: {name!r} cannot be compared across {len(axes['chunking'])} chunkings, since "
                    f"larger passages hold more of everything; allowed: cut-offs in words read, e.g. recall@300w"
                )
    return select_by
