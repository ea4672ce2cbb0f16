"""Scores measured elsewhere: tables with one line per score, or one column per system; rankings in TREC format.

Every reader gives `Scores`, complete: each system has a score, or a failure, on each query.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workbench.data.readers import trec
from workbench.data.readers.csv_tables import table
from workbench.data.readers.text import counted, number, short
from workbench.errors import InputError, unknown
from workbench.evaluation import rankings
from workbench.results.tables import Scores

COLUMNS = ("configuration", "query_id", "value", "metric", "split", "group")
LONG = ("configuration", "query_id", "value")
METRIC = "score"  # of a table that names none
DEEPEST = 1_000_000  # passages of a ranking
LARGEST = 1e100  # score, so that its square is a number too
SHOWN = 5  # faults named in a message


class Scale(NamedTuple):
    """The worst and the best value a metric can take; higher is better."""

    worst: float
    best: float


class _Row(NamedTuple):
    split: str
    metric: str
    query_id: str
    system: str
    value: float | None
    group: str
    line: int


def read_table(path: Path, metric: str | None = None, scale: Scale | None = None, systems: Sequence[str] = ()) -> list[Scores]:
    """Scores from a CSV file, one `Scores` for each split and metric in it.

    Long form: columns ``configuration,query_id,value``, and ``metric``, ``split`` and ``group`` where they matter; other
    columns are not read. Wide form: ``query_id``, ``group`` where it matters, and one column per system. An empty value
    is a failure. Queries of one group (a document, a conversation) depend on each other; without the column each stands alone.

    Args:
        path: the file.
        metric: only this one; in the wide form, the name of what the file holds.
        scale: range of the metric; a failure counts as its worst. Default: the smallest and largest value seen.
        systems: only these; default: all.

    Raises:
        InputError: unreadable, unknown columns or metric, a value that is no number or out of range, a score given twice,
            a query that is not scored for every system; the line or the query is named.
    """
    columns, lines = table(path)
    _check_names(path, columns)
    if twice := [name for i, name in enumerate(systems) if name in systems[:i]]:
        raise InputError(f"the system {twice[0]!r} is named twice; name each once")
    if scale and not (np.isfinite(scale).all() and scale.worst < scale.best):
        raise InputError(f"the range {scale.worst:g} to {scale.best:g} is none; the worst value comes first, then a higher one")
    rows = list(_long(path, columns, lines) if "configuration" in columns else _wide(path, columns, lines, metric, systems))
    if systems and "configuration" in columns:
        if strangers := [name for name in systems if name not in {row.system for row in rows}]:
            raise unknown(f"system in {path}", strangers[0], {row.system for row in rows})
        rows = [row for row in rows if row.system in systems]
    if not rows:
        raise InputError(f"{path} holds no scores, only a header; one line for each score or query is needed")
    found = {row.metric for row in rows}
    if metric is not None and metric not in found:
        raise unknown(f"metric in {path}", metric, found)
    together: dict[tuple[str, str], list[_Row]] = {}
    for row in rows:
        if metric in (None, row.metric):
            together.setdefault((row.split, row.metric), []).append(row)
    return [_scores(path, same, scale) for _, same in sorted(together.items())]


def _check_names(path: Path, columns: Sequence[str]) -> None:
    """Refuses columns whose names are nearly those that are read: they would be taken for systems."""
    for name in columns:
        meant = name.strip().casefold()
        if meant != name and meant in COLUMNS and meant not in columns:
            raise InputError(f"{path}: the column {name!r} is not read; write {meant!r}, or name it otherwise")


def _check_looks(path: Path, systems: Sequence[str]) -> None:
    """Refuses two names of systems that nobody can tell apart."""
    looks: dict[str, str] = {}
    for name in systems:
        seen = "".join(sign for sign in unicodedata.normalize("NFC", name) if unicodedata.category(sign) != "Cf").strip()
        if (other := looks.setdefault(seen, name)) != name:
            raise InputError(f"{path}: the systems {other!a} and {name!a} look alike; give one of them another name")


def _long(path: Path, columns: Sequence[str], lines: Sequence[tuple[int, Mapping[str, str]]]) -> Iterator[_Row]:
    missing = [name for name in LONG if name not in columns]
    if missing:
        raise InputError(
            f"{path} lacks the columns {', '.join(missing)}; the long form has {', '.join(LONG)} (and metric, split, group)"
        )
    for at, line in lines:
        query_id = _named(path, at, "query_id", line["query_id"])
        yield _Row(
            split=line.get("split") or "",
            metric=line.get("metric") or METRIC,
            query_id=query_id,
            system=_named(path, at, "configuration", line["configuration"]),
            value=_number(path, at, line["value"]),
            group=line.get("group") or query_id,
            line=at,
        )


def _wide(
    path: Path,
    columns: Sequence[str],
    lines: Sequence[tuple[int, Mapping[str, str]]],
    metric: str | None,
    systems: Sequence[str],
) -> Iterator[_Row]:
    there = [name for name in columns if name not in ("query_id", "group")]
    if "query_id" not in columns or not there:
        raise InputError(
            f"{path} has the columns {', '.join(map(repr, columns))}; needed: {', '.join(LONG)}, "
            "or query_id and one column per system"
        )
    if strangers := [name for name in systems if name not in there]:
        raise unknown(f"system in {path}", strangers[0], there)
    for at, line in lines:
        query_id = _named(path, at, "query_id", line["query_id"])
        for system in systems or there:
            value = _number(path, at, line[system], f". Is {short(system)} no system? Name those that are with --systems")
            yield _Row("", metric or METRIC, query_id, system, value, line.get("group") or query_id, at)


def _named(path: Path, line: int, column: str, value: str | None) -> str:
    if not value:
        raise InputError(f"{path}, line {line}: {column} is empty; every line names its {column}")
    return value


def _number(path: Path, line: int, text: str | None, way_out: str = "") -> float | None:
    """A score; None for a failure. The way out is added to a message."""
    if text is None or not text.strip():
        return None
    value = number(text)
    if value is None or abs(value) > LARGEST:
        raise InputError(
            f"{path}, line {line}: {short(text)} is no score; a finite number is needed, or nothing where the system failed"
            f"{way_out}"
        )
    return value


def _scores(path: Path, rows: Sequence[_Row], scale: Scale | None) -> Scores:
    """One matrix from the rows of one split and metric."""
    cells: dict[tuple[str, str], float | None] = {}
    groups: dict[str, str] = {}
    for row in rows:
        at = f"{path}, line {row.line}"
        if (row.query_id, row.system) in cells:
            raise InputError(f"{at}: {row.system!r} has a second score by {row.metric!r} on {row.query_id!r}; one is needed")
        cells[row.query_id, row.system] = row.value
        if groups.setdefault(row.query_id, row.group) != row.group:
            raise InputError(f"{at}: query {row.query_id!r} has two groups, {groups[row.query_id]!r} and {row.group!r}")
    queries, systems = tuple(sorted(groups)), tuple(dict.fromkeys(row.system for row in rows))
    _check_looks(path, systems)
    _check_complete(path, cells, queries, systems)
    seen = [value for value in cells.values() if value is not None]
    if not seen:
        raise InputError(f"{path}: every score by {rows[0].metric!r} is empty; at least one is needed")
    worst, best = scale or Scale(min(seen), max(seen))
    for row in rows:
        if row.value is not None and not worst <= row.value <= best:
            raise InputError(
                f"{path}, line {row.line}: {row.value:g} lies outside the range {worst:g} to {best:g}; name the metric's own"
            )
    table = np.array([[cells[q, s] if cells[q, s] is not None else np.nan for s in systems] for q in queries], float)
    failed = np.isnan(table)
    named = tuple(groups[q] for q in queries)
    filled = np.where(failed, worst, table)
    known = scale is not None
    return Scores(rows[0].metric, rows[0].split, systems, queries, named, filled, failed, worst, best, scaled=known)


def _check_complete(path: Path, cells: Mapping[tuple[str, str], object], queries: Sequence[str], systems: Sequence[str]) -> None:
    lacking = [
        f"{q!r} (not by {', '.join(map(repr, absent))})"
        for q in queries
        if (absent := [s for s in systems if (q, s) not in cells])
    ]
    if lacking:
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        said = counted(len(lacking), "query", "is", "are")
        raise InputError(
            f"{path}: {said} not scored by every system: {', '.join(lacking[:SHOWN])}{more}. Differences "
            "are paired: leave such a query out of all systems, or give an empty value where a system failed"
        )


def read_rankings(paths: Sequence[Path], qrels: Path, metrics: Sequence[str]) -> list[Scores]:
    """Ranking metrics of TREC runs on the judged queries; a system is named after its file.

    Args:
        paths: files of lines ``query Q0 document rank score tag``.
        qrels: file of lines ``query 0 document grade``.
        metrics: such as ``ndcg@10``.

    Raises:
        InputError: an unreadable file, an unknown metric, files of one name, or no query of a file is judged.
    """
    import ir_measures

    wanted = [rankings.parse(name) for name in metrics]
    in_words = [metric.name for metric in wanted if metric.in_words]
    if in_words:
        raise InputError(
            f"metric {in_words[0]!r}: a TREC run names documents, not their words; use a cut-off in documents, like ndcg@10"
        )
    if endless := [metric.name for metric in wanted if metric.cutoff > DEEPEST]:
        raise InputError(f"metric {endless[0]!r} looks further down than any ranking goes; allowed: cut-offs up to {DEEPEST:,}")
    names = [path.name.removesuffix(".gz").rpartition(".")[0] or path.name.removesuffix(".gz") for path in paths]
    if len(set(names)) < len(names):
        raise InputError(f"several files have one name: {', '.join(map(str, paths))}; systems are named after their files")
    judged = trec.qrels(qrels)
    queries = tuple(sorted({row.query for row in judged if row.grade > 0}))
    if not queries:
        raise InputError(f"{qrels}: no line has a grade above 0, so nothing is relevant and nothing can be measured")
    known = set(queries)
    grades = [ir_measures.Qrel(row.query, row.document, row.grade) for row in judged if row.query in known]
    measures = {rankings.measure(metric): metric.name for metric in wanted}
    values = {name: np.zeros((len(queries), len(paths))) for name in measures.values()}
    position = {query: i for i, query in enumerate(queries)}
    for column, path in enumerate(paths):
        run = trec.ranking(path)
        if not known & {row.query for row in run}:
            raise InputError(f"{path} ranks none of the queries judged in {qrels} ({len(queries)}); do the two belong together?")
        scored = [ir_measures.ScoredDoc(row.query, row.document, row.score) for row in run]
        for result in ir_measures.iter_calc(list(measures), grades, scored):
            values[measures[result.measure]][position[result.query_id], column] = result.value
    nothing = np.zeros((len(queries), len(paths)), dtype=bool)
    return [Scores(name, "", tuple(names), queries, queries, table, nothing) for name, table in values.items()]


def oddities(path: Path, qrels: Path) -> list[str]:
    """What is worth knowing of a TREC run before its scores are read, one sentence each; a system's order is that of its scores.

    Args:
        path: lines ``query Q0 document rank score tag``.
        qrels: lines ``query 0 document grade``.
    """
    run, grades = trec.ranking(path), trec.qrels(qrels)
    judged = {row.query for row in grades if row.grade > 0}
    by_query: dict[str, list[trec.Found]] = {}
    for row in run:
        by_query.setdefault(row.query, []).append(row)
    tied = [query for query, rows in by_query.items() if len({row.score for row in rows}) < len(rows)]
    turned = [query for query, rows in by_query.items() if _contradicts(rows)]
    missing = sorted(judged - by_query.keys())
    said = []
    if missing:
        said.append(f"{path} ranks nothing for {counted(len(missing), 'judged query')}, such as {missing[0]!r}; each counts as 0")
    if strange := sorted(by_query.keys() - {row.query for row in grades}):
        said.append(
            f"{path} ranks {counted(len(strange), 'query')} that {qrels} does not judge, such as {strange[0]!r}; left out here"
        )
    if tied:
        said.append(
            f"{path}: scores tie in {counted(len(tied), 'query')}, such as {tied[0]!r}; tied documents are ordered by id, "
            f"not by rank"
        )
    if turned:
        said.append(
            f"{path}: ranks and scores contradict each other in {counted(len(turned), 'query')}, such as {turned[0]!r}; the "
            f"scores count, as in trec_eval"
        )
    return said


def _contradicts(rows: Sequence[trec.Found]) -> bool:
    """Whether a document of a lower rank number has a lower score than one after it."""
    ordered = sorted(rows, key=lambda row: row.rank)
    return any(a.rank < b.rank and a.score < b.score for a, b in pairwise(ordered))
