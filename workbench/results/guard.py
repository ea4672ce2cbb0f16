"""Whether a new setup is shown to be worse than an old one: a guard for somebody's own tests, on runs or tables of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workbench.errors import InputError, unknown
from workbench.evaluation.families import FEW_GROUPS
from workbench.results import foreign, words
from workbench.results.compare import Compared, check_same_dataset
from workbench.results.foreign import Scale
from workbench.results.rows import ComparisonRow
from workbench.results.run import Run
from workbench.results.tables import Scores
from workbench.results.verdict import graded, phrase

OLD, NEW = "old", "new"  # systems


class Guard(NamedTuple):
    """New less old on the same questions, one test.

    Attributes:
        compared: both systems.
        names: of old and new, for people.
        margin: how much worse is allowed, in the metric's own unit.
    """

    compared: Compared
    names: tuple[str, str]
    margin: float

    @property
    def row(self) -> ComparisonRow:
        """The difference new - old."""
        return self.compared.against_baseline[NEW]

    @property
    def worse(self) -> bool:
        """Whether new is shown to be worse by more than the margin: its whole interval lies below."""
        return self.row.high is not None and self.row.high < -self.margin

    @property
    def lines(self) -> list[str]:
        """What was found, as sentences."""
        row, unit = self.row, self.compared.unit
        noun = f" {unit.noun}" if unit.noun else ""
        margin = f" by more than {words.number(self.margin, unit)}{noun}" if self.margin else ""
        where = f" on {row.split}" if row.split else ""
        found = [
            f"{self.names[1]} less {self.names[0]}, {words.metric_name(row.metric)}{where}, n = {row.n}: "
            f"{phrase(row, graded(row), unit)}"
        ]
        if self.worse:
            return [*found, f"worse{margin}: shown"]
        if row.low is None:
            few = f"fewer than {FEW_GROUPS} independent groups of questions, or too unequal ones, cannot show anything"
            return [*found, f"worse{margin}: not shown; {few}"]
        if row.low < -self.margin:
            fits = f"; up to {words.number(-row.low, unit, kept=True)}{noun} worse fits these questions as well"
            return [*found, f"worse{margin}: not shown{fits}"]
        return [*found, f"worse{margin}: ruled out"]


def guard(
    sources: Sequence[Path],
    margin: float,
    split: str | None = None,
    metric: str | None = None,
    scale: Scale | None = None,
    systems: Sequence[str] = (),
) -> Guard:
    """Compares an old setup with a new one.

    Args:
        sources: old and new: two folders of runs, of which what was promoted counts, else the best; or two CSV files of scores.
        margin: how much worse is allowed, in the metric's own unit; 0 or more.
        split: of runs; default: the report split of the old one.
        metric: default: the one that the old run selected by, or the only one of a table.
        scale: of tables, the metric's worst and best value; a failure counts as the worst.
        systems: of tables with several, the one that counts in the old and in the new one; one name where it is the same.

    Raises:
        InputError: not two sources of one kind, a negative margin, other questions, or several systems to choose from.
    """
    if len(sources) != 2:
        raise InputError(f"--fail-if compares two sources, the old one and the new one; {len(sources)} were given")
    if not margin >= 0:
        raise InputError(f"--margin {margin:g} is negative; it says how much worse is allowed, such as 0.02")
    old, new = sources
    if old.is_dir() and new.is_dir():
        return _of_runs(Run.open(old), Run.open(new), margin, split, metric)
    if old.is_dir() or new.is_dir():
        raise InputError(f"{old} and {new}: one is a run and the other a table; give two of one kind")
    names = (systems[0], systems[-1]) if systems else (None, None)
    parts = [_of_table(path, metric, scale, name) for path, name in zip(sources, names, strict=True)]
    return _paired(parts[0], parts[1], (str(old), str(new)), margin)


def _of_runs(old: Run, new: Run, margin: float, split: str | None, metric: str | None) -> Guard:
    split, metric = split or old.report_split, metric or old.select[1]
    check_same_dataset(old, new, split)
    parts, names = [], []
    for run in (old, new):
        promoted = run.promoted
        chosen = promoted["configuration"] if promoted else run.best
        scores = run.scores(split, metric)
        if chosen not in scores.systems:
            raise unknown(f"configuration of {run.folder} on {split}", chosen, scores.systems)
        parts.append(_one(scores, chosen))
        names.append(f"{run.labels[chosen]} ({run.folder.name})")
    return _paired(parts[0], parts[1], (names[0], names[1]), margin, old.manifest["seed"])


def _of_table(path: Path, metric: str | None, scale: Scale | None, system: str | None) -> Scores:
    found = foreign.read_table(path, metric, scale, (system,) if system else ())
    if len(found) > 1:
        raise InputError(f"{path} holds {len(found)} metrics or splits; name one metric with --metric")
    if len(found[0].systems) > 1:
        raise InputError(f"{path} holds {', '.join(found[0].systems)}; name the one that counts with --systems")
    return found[0]


def _one(scores: Scores, system: str) -> Scores:
    """The same of one system."""
    j = scores.systems.index(system)
    seeds = None if scores.by_seed is None else scores.by_seed[:, [j]]
    return replace(scores, systems=(system,), values=scores.values[:, [j]], failed=scores.failed[:, [j]], by_seed=seeds)


def _paired(old: Scores, new: Scores, names: tuple[str, str], margin: float, seed: int = 0) -> Guard:
    """Both systems on the questions of both, which must be the same."""
    if missing := sorted(set(old.queries) ^ set(new.queries)):
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        raise InputError(f"{names[0]} and {names[1]} were not asked the same questions: {shown}; paired scores need both")
    if old.groups != new.groups:
        raise InputError(f"{names[0]} and {names[1]} put questions into different groups; give both the same")
    if old.metric != new.metric:
        raise InputError(f"{names[0]} holds {old.metric!r} and {names[1]} {new.metric!r}; name one metric with --metric")
    failed, worst = np.hstack((old.failed, new.failed)), min(old.worst, new.worst)
    values = np.where(failed, worst, np.hstack((old.values, new.values)))
    perfect = max(old.perfect, new.perfect)
    seeds = _seeds(old, new)
    both = replace(old, systems=(OLD, NEW), values=values, failed=failed, worst=worst, perfect=perfect, by_seed=seeds)
    return Guard(Compared(both, baseline=OLD, seed=seed), names, margin)


def _seeds(old: Scores, new: Scores) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    """Means under each seed (S, 2), where a system was measured with several."""
    given = [one.by_seed for one in (old, new) if one.by_seed is not None]
    if not given:
        return None
    counts = {len(one) for one in given}
    if len(counts) > 1:
        raise InputError(
            f"the runs repeat their trainings with different numbers of seeds ({sorted(counts)}); give both equal ones"
        )
    n = counts.pop()
    return np.hstack([np.full((n, 1), one.values.mean()) if one.by_seed is None else one.by_seed for one in (old, new)])
