"""How much the machine matters: two runs of one experiment, on two machines or in two precisions, held against each other.

Two precisions, or two machines, round sums differently. Now and then that decides which token a model writes, or which of two
passages stands first. What this changes in a run is shown beside what another sample of questions would change: the interval of
each mean.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from workbench.errors import InputError
from workbench.results import rendering, table_files, words
from workbench.results.compare import check_same_dataset
from workbench.results.rows import ConfigurationRow, LeaderboardRow
from workbench.results.run import ANSWERS, TABLES, Run
from workbench.results.verdict import UNCOMPARED, verdict

PLACES = tuple(
    f"dataset.{one}" for one in ("beir", "folder", "questions", "corpus", "qrels")
)  # where data lie; what they are is checked by their digests
# tables that time things, hold keys of artifacts, which name versions of libraries too, or are missing in older runs
UNHELD = ("timings", "latency", "indexes", "retrieval", "training")
HELD = (*(f"{name}.csv" for name in TABLES if name not in UNHELD), ANSWERS)
MOST = 6  # of a list in a sentence
ARROW = "\N{RIGHTWARDS ARROW}"

Measured = tuple[str, str, str]  # configuration, split, metric
Asked = tuple[str, str]  # configuration, split


class ShiftRow(NamedTuple):
    """One configuration on one split by one metric, in both runs; ids and labels are those of the first.

    Attributes:
        configuration: id.
        label: the values of the axes that vary.
        split: the split.
        metric: the metric.
        n: number of questions.
        before: its mean in the first run, in the metric's own unit.
        after: its mean in the second run.
        shift: `after` less `before`.
        half_width: half of the 95 % interval of the first mean; None where there are too few questions.
        share: size of the shift / `half_width`; None where that is missing or zero.
        scores_differing: questions whose score by this metric is not the same.
        queries_differing: questions whose score by any metric is not the same.
        answers: answers that both runs hold, of all seeds; 0 where only rankings are compared.
        answers_differing: those of which what the generator wrote, or the status, is not the same.
        passages_differing: those for which other passages were shown.
        verdict_before: the verdict of the first run on this configuration against the baseline of the first run; empty where it
            has none.
        verdict_after: the verdict of the second run on the same two.
    """

    configuration: str
    label: str
    split: str
    metric: str
    n: int
    before: float
    after: float
    shift: float
    half_width: float | None
    share: float | None
    scores_differing: int
    queries_differing: int
    answers: int
    answers_differing: int
    passages_differing: int
    verdict_before: str
    verdict_after: str

    @property
    def judged(self) -> bool:
        """Whether both runs have a verdict on it."""
        return bool(self.verdict_before and self.verdict_after)

    @property
    def flipped(self) -> bool:
        """Whether the two verdicts are other words."""
        return self.judged and self.verdict_before != self.verdict_after


class Change(NamedTuple):
    """Something that is not the same in both runs: a setting by its place in the file, the machine, a library, the code."""

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class Numerics:
    """Two runs of one experiment held against each other.

    Attributes:
        first: the run that the other is held against.
        second: the run that was computed again, or on another machine.
        partners: id of a configuration in the first run -> its id in the second.
        rows: what both measured, sorted by split, label and metric.
        settings: settings that are not the same.
        surroundings: what else is not the same: machine, libraries, code.
        unpaired: what only one of the runs measured, as phrases.
        differing: names of files that are not the same bytes, of those that hold what was measured.
    """

    first: Run
    second: Run
    partners: Mapping[str, str]
    rows: Sequence[ShiftRow]
    settings: Sequence[Change]
    surroundings: Sequence[Change]
    unpaired: Sequence[str]
    differing: Sequence[str]

    @property
    def same_machine(self) -> bool:
        """Whether both runs were computed in one precision on machines with one fingerprint, in inference and in training."""
        a, b = (run.manifest["machine"] for run in (self.first, self.second))
        return (a.get("arithmetic"), a.get("training")) == (b.get("arithmetic"), b.get("training"))

    @property
    def lines(self) -> list[str]:
        """What was found, in sentences: answers, means, verdicts and the choice first, then how the runs differ."""
        found = [self._answers, self._largest, self._share, self._verdicts, self._chosen, self._changes]
        if not self.settings:
            found.append(self._reproduced)
        if self.unpaired:
            found.append(f"Not compared: {_listed(self.unpaired)}.")
        return [line for line in found if line]

    @cached_property
    def _asked(self) -> Mapping[Asked, ShiftRow]:
        """One row of each configuration and split: what is counted in answers and rankings is the same in all of them."""
        return {(row.configuration, row.split): row for row in self.rows}

    @property
    def of_answers(self) -> bool:
        """Whether the runs answer questions, or rank passages only."""
        return any(row.answers for row in self.rows)

    @property
    def _answers(self) -> str:
        rows = self._asked.values()
        if not self.of_answers:
            n, differing = sum(row.n for row in rows), sum(row.queries_differing for row in rows)
            if not differing:
                return f"All {n:,} rankings score the same."
            return (
                f"{_of(differing, n)} rankings {'scores' if differing == 1 else 'score'} differently ({_percent(differing / n)})."
            )
        n, differing = sum(row.answers for row in rows), sum(row.answers_differing for row in rows)
        moved = sum(row.passages_differing for row in rows)
        other = f" Other passages were shown for {_of(moved, n)}." if moved else " The passages shown are the same."
        if not differing:
            return f"All {n:,} answers are the same.{other}"
        return f"{_of(differing, n)} answers {'differs' if differing == 1 else 'differ'} ({_percent(differing / n)}).{other}"

    @property
    def _largest(self) -> str:
        row = max(self.rows, key=lambda row: abs(row.shift))
        if not row.shift:
            return "No mean moves."
        sampling = (
            "there are too few questions for a sampling interval"
            if row.half_width is None
            else f"its sampling interval is ±{words.number(row.half_width)} points"
        )
        metric, shift = words.metric_name(row.metric), words.number(abs(row.shift), kept=True)
        return f"The largest shift of a mean is {shift} points ({metric} of {row.label} on {row.split}); {sampling}."

    @property
    def _share(self) -> str:
        largest = max((row.share for row in self.rows if row.share is not None), default=0.0)
        return f"No shift is larger than {_percent(largest)} of the half width (±) of its sampling interval." if largest else ""

    @property
    def _verdicts(self) -> str:
        judged, flipped = [row for row in self.rows if row.judged], [row for row in self.rows if row.flipped]
        if not judged:
            return "There are no verdicts to compare."
        if not flipped:
            return f"None of {len(judged):,} verdicts against the baseline changes."
        told = [
            f"{words.metric_name(row.metric)} of {row.label} on {row.split}, from {row.verdict_before!r} to {row.verdict_after!r}"
            for row in flipped
        ]
        verb = "changes" if len(flipped) == 1 else "change"
        return f"{len(flipped):,} of {len(judged):,} verdicts against the baseline {verb}: {_listed(told)}."

    @property
    def _chosen(self) -> str:
        before = self.first.labels[self.first.best]
        if self.partners.get(self.first.best) == self.second.best:
            return f"The chosen configuration is the same: {before}."
        known = next((one for one, other in self.partners.items() if other == self.second.best), None)
        after = self.first.labels[known] if known else self.second.labels[self.second.best]
        return f"Another configuration is chosen: {after} instead of {before}."

    @property
    def _changes(self) -> str:
        changes = [*self.settings, *self.surroundings]
        if not changes:
            return "Settings, machine, libraries and code of both runs are the same."
        return f"Between the runs changed: {_listed([f'{one.what} ({one.before} {ARROW} {one.after})' for one in changes])}."

    @property
    def _reproduced(self) -> str:
        if not self.differing:
            return "The run is reproduced: every table and every answer is the same, byte for byte."
        files = f"these files are not the same: {', '.join(self.differing)}"
        if self.same_machine:
            return f"The run is not reproduced: {files}."
        return f"Machines that compute other bits need not agree: {files}."


def numerics(first: Run, second: Run) -> Numerics:
    """Holds a run against another one of the same experiment.

    Configurations are partners where their ids are equal; machine settings are no part of an id. Where a setting that is part of
    it differs, such as the `precision` of a generator, partners are those with the same values of all axes.

    Args:
        first: the run that the other is held against; its baseline, labels and intervals count.
        second: the run that was computed again, or on another machine.

    Raises:
        InputError: runs of two experiments, on other data, or without a configuration in common.
    """
    a, b = first.manifest["experiment"], second.manifest["experiment"]
    way_out = f"`workbench compare {shlex.quote(str(first.folder))} {shlex.quote(str(second.folder))}` compares any two runs"
    if a != b:
        raise InputError(
            f"{first.folder} is a run of the experiment {a!r} and {second.folder} of {b!r}; allowed: two runs of one experiment. "
            f"{way_out} on one dataset"
        )
    for split in dict.fromkeys((first.select[0], first.report_split)):
        check_same_dataset(first, second, split)
    partners = _partners(first.configurations, second.configurations)
    rows = _rows(first, second, partners)
    if not rows:
        raise InputError(
            f"{first.folder} and {second.folder} measured no configuration in common by the same metric; allowed: two runs of "
            f"one experiment. {way_out} by one metric"
        )
    return Numerics(
        first,
        second,
        partners,
        rows,
        _settings(first, second),
        _surroundings(first, second),
        _unpaired(first, second, partners),
        [name for name in HELD if _bytes(first.folder / name) != _bytes(second.folder / name)],
    )


def _partners(first: Sequence[ConfigurationRow], second: Sequence[ConfigurationRow]) -> dict[str, str]:
    """Id in the first run -> id in the second: the same id, else the same values of all axes."""
    ids = {row.configuration for row in first} & {row.configuration for row in second}
    found = {one: one for one in ids}
    left = {tuple(sorted(row.values.items())): row.configuration for row in second if row.configuration not in ids}
    for row in first:
        other = left.get(tuple(sorted(row.values.items())))
        if row.configuration not in ids and other is not None:
            found[row.configuration] = other
    return found


def _measured(run: Run) -> dict[Measured, LeaderboardRow]:
    return {(row.configuration, row.split, row.metric): row for row in run.leaderboard}


class _Counts(NamedTuple):
    """Answers of one configuration on one split that both runs hold, and how many of them are not the same."""

    answers: int = 0
    differing: int = 0
    passages: int = 0


def _rows(first: Run, second: Run, partners: Mapping[str, str]) -> list[ShiftRow]:
    """What both runs measured."""
    theirs, answers, scores = _measured(second), _answer_counts(first, second, partners), _changed_scores(first, second, partners)
    by_any: dict[Asked, set[str]] = {}
    for (configuration, split, _), queries in scores.items():
        by_any.setdefault((configuration, split), set()).update(queries)
    found = []
    for (configuration, split, metric), before in _measured(first).items():
        after = theirs.get((partners.get(configuration, ""), split, metric))
        if after is None:
            continue
        shift, half = after.mean - before.mean, _half_width(before)
        found.append(
            ShiftRow(
                configuration,
                first.labels[configuration],
                split,
                metric,
                before.n,
                before.mean,
                after.mean,
                shift,
                half,
                abs(shift) / half if half else None,
                len(scores.get((configuration, split, metric), ())),
                len(by_any.get((configuration, split), ())),
                *answers.get((configuration, split), _Counts()),
                *_verdict_words(first, second, partners, configuration, split, metric),
            )
        )
    return sorted(found, key=lambda row: (row.split, row.label, row.metric))


def _half_width(row: LeaderboardRow) -> float | None:
    return None if row.ci_low is None or row.ci_high is None else (row.ci_high - row.ci_low) / 2


def _answer_counts(first: Run, second: Run, partners: Mapping[str, str]) -> dict[Asked, _Counts]:
    """Answers that both runs hold, counted by configuration and split."""
    theirs = {(row["configuration"], row["split"], row["seed"], row["query_id"]): row for row in second.answers}
    found: dict[Asked, _Counts] = {}
    for row in first.answers:
        other = theirs.get((partners.get(row["configuration"], ""), row["split"], row["seed"], row["query_id"]))
        if other is None:
            continue
        asked = row["configuration"], row["split"]
        counted = found.get(asked, _Counts())
        differs = (row["reply"], row["status"]) != (other["reply"], other["status"])
        moved = row["passages"] != other["passages"]
        found[asked] = _Counts(counted.answers + 1, counted.differing + differs, counted.passages + moved)
    return found


def _changed_scores(first: Run, second: Run, partners: Mapping[str, str]) -> dict[Measured, set[str]]:
    """Ids of the queries whose scores are not the same, by configuration, split and metric."""
    theirs = {(row.configuration, row.split, row.metric, row.query_id): (row.value, row.status) for row in second.results}
    found: dict[Measured, set[str]] = {}
    for row in first.results:
        other = theirs.get((partners.get(row.configuration, ""), row.split, row.metric, row.query_id))
        if other is not None and other != (row.value, row.status):
            found.setdefault((row.configuration, row.split, row.metric), set()).add(row.query_id)
    return found


def _verdict_words(
    first: Run, second: Run, partners: Mapping[str, str], configuration: str, split: str, metric: str
) -> tuple[str, str]:
    """Both verdicts on a configuration against the first run's baseline on its report split; empty where there is none."""
    baseline = first.manifest["baseline"]
    if split != first.report_split or configuration == baseline:
        return "", ""
    before = verdict(first, configuration, baseline, split, metric).word
    after = (
        verdict(second, partners[configuration], partners[baseline], split, metric).word if baseline in partners else UNCOMPARED
    )
    return "" if before == UNCOMPARED else before, "" if after == UNCOMPARED else after


def _unpaired(first: Run, second: Run, partners: Mapping[str, str]) -> list[str]:
    """What only one run measured: configurations without a partner, and of the others those on a split or by a metric."""
    back = {other: one for one, other in partners.items()}
    sides = ((first, second, partners), (second, first, back))
    found = [
        f"{row.label}, which is in {run.folder.name} alone"
        for run, _, to in sides
        for row in sorted(run.configurations, key=lambda row: row.label)
        if row.configuration not in to
    ]
    for run, other, to in sides:
        theirs = _measured(other)
        alone = [
            (run.labels[c], split, metric)
            for c, split, metric in _measured(run)
            if c in to and (to[c], split, metric) not in theirs
        ]
        metrics: dict[tuple[str, str], list[str]] = {}
        for label, split, metric in alone:
            metrics.setdefault((label, split), []).append(words.metric_name(metric))
        found += [
            f"{label} on {split} by {', '.join(names)}, measured in {run.folder.name} alone"
            for (label, split), names in metrics.items()
        ]
    return found


def _settings(first: Run, second: Run) -> list[Change]:
    a, b = (dict(_flat("", dict(run.settings))) for run in (first, second))
    places = dict.fromkeys([*a, *b])
    missing = "not set"
    return [
        Change(place, a.get(place, missing), b.get(place, missing))
        for place in places
        if place not in PLACES and a.get(place, missing) != b.get(place, missing)
    ]


def _flat(place: str, value: object) -> Iterable[tuple[str, str]]:
    """Single settings by their place in the file, as texts; a list is one of them."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _flat(f"{place}.{key}" if place else str(key), one)
    else:
        yield place, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _surroundings(first: Run, second: Run) -> list[Change]:
    """What is not the same of machine, libraries and code."""
    a, b = (_about(run) for run in (first, second))
    return [
        Change(what, a.get(what, "none"), b.get(what, "none")) for what in dict.fromkeys([*a, *b]) if a.get(what) != b.get(what)
    ]


def _about(run: Run) -> dict[str, str]:
    machine, code = run.manifest["machine"], run.manifest.get("code")
    found = {
        "processor": machine.get("processor", ""),
        "arithmetic": machine.get("arithmetic", ""),
        "arithmetic of training": machine.get("training", ""),
        **run.manifest["libraries"],
    }
    if code:
        commit = f", commit {code['commit'][:8]}" if code["commit"] else ""
        found["code"] = f"version {code['version']}{commit}{', changed since' if code['changed'] else ''}"
    return {what: said for what, said in found.items() if said}


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


# --- As sentences and tables -------------------------------------------------------------------------------------------


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}"


def _percent(share: float) -> str:
    """A share of one for reading: ``0.7 %``, ``12 %``."""
    if 0 < share < 0.0005:
        return "less than 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:,.0f} %"


def _listed(parts: Sequence[str]) -> str:
    """The first of some phrases, and how many are left."""
    rest = len(parts) - MOST
    return "; ".join(parts[:MOST]) + (f"; and {rest} more" if rest > 0 else "")


RIGHT = (2, 4, 5, 6, 7, 8)  # columns of numbers


def head(found: Numerics) -> tuple[str, ...]:
    """Names of the columns of `table`."""
    differing = "answers that differ" if found.of_answers else "rankings that score differently"
    return ("split", "configuration", differing, "metric", "before", "after", "shift", "sampling ±", "share of it", "verdict")


def table(found: Numerics, details: bool = False) -> list[tuple[str, ...]]:
    """One line of texts for each configuration on each split by the metric that chooses, and for each verdict that changes.

    Args:
        found: the two runs.
        details: whether all other metrics have their lines too.
    """
    shown = [row for row in found.rows if details or row.metric == found.first.select[1] or row.flipped]
    lines: list[tuple[str, ...]] = []
    for row in shown:
        differing = (row.answers_differing, row.answers) if found.of_answers else (row.queries_differing, row.n)
        verdicts = dict.fromkeys(filter(None, (row.verdict_before, row.verdict_after)))
        lines.append(
            (
                row.split,
                row.label,
                _of(*differing),
                words.metric_name(row.metric),
                words.number(row.before),
                words.number(row.after),
                words.number(row.shift, signed=True, kept=True),
                words.number(row.half_width),
                "–" if row.share is None else _percent(row.share),
                f" {ARROW} ".join(verdicts) if row.judged else "",
            )
        )
    return lines


def caption(found: Numerics) -> str:
    """What the table shows, so that it can stand alone."""
    first, second = found.first, found.second
    return (
        f"Before: run {first.folder.name}; after: run {second.folder.name}. Means and shifts in points of 100. Sampling ±: half "
        "of the 95 % interval of the mean before, which says how far other questions of the same kind might move it. Share of "
        f"it: size of the shift / sampling ±. Verdict: against {first.labels[first.manifest['baseline']]}."
    )


def as_markdown(found: Numerics, details: bool = False) -> str:
    """The sentences, the table and its caption, for a document."""
    sentences = "".join(f"- {line}\n" for line in found.lines)
    return f"{sentences}\n{rendering.markdown(head(found), table(found, details), RIGHT)}\n{caption(found)}\n"


FORMS: dict[str, Callable[[Numerics, Path], object]] = {
    ".csv": lambda found, path: table_files.write(path, ShiftRow, found.rows),
    ".md": lambda found, path: path.write_text(as_markdown(found, details=True), encoding="utf-8"),
}
