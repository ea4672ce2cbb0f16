"""A run's conclusions as sentences, each backed by a row of its tables."""

from __future__ import annotations

from typing import Any

from workbench.experiment.run import Run

SIGNIFICANT = 0.05  # of the Holm-adjusted p


def conclusions(run: Run) -> list[str]:
    """What the run shows: the winner, its margin over the others measured on the report split, and the axes' effects."""
    split, metric = run.select
    best = run.best
    lines = [_standing(run, best, split, metric)]
    for other, what in _rivals(run, best):
        row = run.comparison(best, other, run.report_split, metric)
        if row:
            lines.append(f"{run.labels[best]} against {what} {run.labels[other]}: {difference(row, metric)}")
    effects = [row for row in run.effects if row["metric"] == metric]
    if effects:
        lines.append(f"What each choice brings, averaged over the others ({split}, {metric}):")
        lines += [f"  {row['axis']}: {row['a']} against {row['b']}: {difference(row, metric)}" for row in effects]
    return lines


def _standing(run: Run, best: str, split: str, metric: str) -> str:
    chosen = run.row(best, split, metric)
    reported = run.row(best, run.report_split, metric)
    text = f"best of {len(run.configurations)} by {metric} on {split}: {run.labels[best]} ({best})"
    if reported is None:
        return f"{text}, {figure(chosen)}"
    return f"{text}; on {run.report_split} its {metric} is {figure(reported)} (on {split} it was {chosen['mean']:.3f})"


def _rivals(run: Run, best: str) -> list[tuple[str, str]]:
    baseline = run.manifest["baseline"]
    mine = next(row for row in run.configurations if row["configuration"] == best)
    found = [(baseline, "the baseline")] if baseline != best else []
    for row in run.configurations:
        same = all(row[axis] == mine[axis] for axis in ("chunking", "retriever", "reranker", "passages", "prompt") if axis in row)
        if same and row["configuration"] not in (best, baseline):
            found.append((row["configuration"], "the same with the generator of"))
    return found


def figure(row: dict[str, Any]) -> str:
    """A mean with its interval and n: ``0.412 (95 % interval 0.335 to 0.489, n = 129)``."""
    failed = f", {row['failed']} failed" if row["failed"] else ""
    if row["ci_low"] is None:
        return f"{row['mean']:.3f} (n = {row['n']}{failed})"
    return f"{row['mean']:.3f} (95 % interval {row['ci_low']:.3f} to {row['ci_high']:.3f}, n = {row['n']}{failed})"


def difference(row: dict[str, Any], metric: str) -> str:
    """A difference with interval, adjusted p and what follows from it."""
    text = f"{row['difference']:+.3f} {metric}"
    if row["ci_low"] is None or row["p_holm"] is None:
        return f"{text} (n = {row['n']}: too few for an interval)"
    verdict = "supported" if row["p_holm"] < SIGNIFICANT else "not supported by this data"
    interval = f"95 % interval {row['ci_low']:+.3f} to {row['ci_high']:+.3f}"
    return f"{text} ({interval}, Holm p {row['p_holm']:.3g}, n = {row['n']}): {verdict}"
