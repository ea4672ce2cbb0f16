"""What an experiment's dataset looks like, and what of its passages the embedders would not read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from workbench import weights
from workbench.data.checks import Finding, findings
from workbench.data.dataset import Dataset
from workbench.data.documents.proposed import proposals
from workbench.data.forms import reading
from workbench.data.passages import PassageTable
from workbench.data.readers.text import counted
from workbench.experiment.config import DatasetSettings, ExperimentSettings
from workbench.experiment.configuration import Space
from workbench.retrieval.embedders.embedder import Embedder

FEW = 100  # values of a column that can be slices


def described(dataset: Dataset, found: Sequence[Finding] = ()) -> list[str]:
    """A dataset in a few lines: its size, its splits, and what loading it dropped.

    Args:
        dataset: the dataset.
        found: what is shown behind it, and not said twice.
    """
    lines = [f"{dataset.name}: {counted(dataset.documents.num_rows, 'document')}, judged by {dataset.kind}"]
    for split, n in dataset.splits.items():
        queries = dataset.split(split)
        unanswerable = sum(query.answers == () for query in queries)
        lines.append(
            f"  {split:6} {counted(n, 'query')}, {len(dataset.judged(split).judged)} judged, {unanswerable} without an answer"
        )
    said = {one.said for one in found}
    lines += [f"  note: {note}" for note in dataset.notes if note.removeprefix("CAUTION: ") not in said]
    return lines + [f"  not read: {row['file']}: {row['reason']}: {row['said']}" for row in dataset.unread.to_pylist()]


def understood(settings: DatasetSettings) -> list[str]:
    """How a question set in a form of somebody else's was understood: its form, its columns, and those that are not read."""
    if settings.own_form:
        return []
    read = reading.asked(settings.source)
    lines = [f"questions: read as {read.about} (form: {read.form})"]
    lines += [f"  {role:8} from the column {column!r}" for role, column in read.roles.items()]
    further = [f"{name} ({n})" for name, n in read.further.items() if n <= FEW]
    if further:
        lines.append(f"  columns that are not read and can be slices, with their number of values: {', '.join(further)}")
    if many := [name for name, n in read.further.items() if n > FEW]:
        lines.append(f"  columns that are not read: {', '.join(many)}")
    return lines


def loaded(settings: ExperimentSettings) -> Dataset:
    """The dataset of an experiment's file, also where so much of its evidence is missing that a run would refuse it.

    Raises:
        InputError: it cannot be read.
    """
    return settings.dataset.model_copy(update={"missing": "drop"}).load(settings.metrics.slices or ())


def checked(settings: ExperimentSettings, dataset: Dataset) -> list[Finding]:
    """Whatever is wrong with a dataset, or weakens what an experiment on it can show; what is serious first.

    Args:
        settings: the experiment's file.
        dataset: its dataset.

    Raises:
        InputError: the file does not fit the dataset.
    """
    said = [*_unnamed(settings.dataset), *_unread(settings, dataset)]
    found = [*findings(dataset), *(Finding(False, one) for one in said)]
    return sorted(found, key=lambda one: not one.serious)


def _unnamed(data: DatasetSettings) -> Iterator[str]:
    """For each ending whose files are not read because no parser is named, one that would read them."""
    if data.folder is None:
        return
    for one in proposals(data.folder, data.question_files, data.parsers, data.limits):
        wanted = json.dumps({one.ending: one.parser}, ensure_ascii=False)
        yield (
            f"{counted(one.files, 'file')} in .{one.ending} {'is' if one.files == 1 else 'are'} not read, since no parser is "
            f"named for that; `parsers: {wanted}` below `dataset:` would do: {one.said}"
        )


def _unread(settings: ExperimentSettings, dataset: Dataset) -> Iterator[str]:
    """For each embedder whose weights are here, and each chunking, how much of the passages it does not read."""
    space = Space(settings, dataset, Path())
    machine = settings.machine.resolve()
    chunkings = {dict(one.values)["chunking"] for one in space.configurations}
    for name, embedder in space.components.embedders.items():
        if not isinstance(embedder, Embedder):
            continue  # what a server reads of a text is not known here
        if not weights.on_disk(embedder.model):
            yield f"the weights of the embedder {name} are not on disk, so what it reads of the passages was not measured"
            continue
        loaded = embedder.load(machine)
        for chunking in sorted(chunkings, key=lambda one: one.label):
            passages = PassageTable(chunking.cut(dataset.documents, dataset.structure))
            texts = [embedder.passage(text) for text in passages.full_texts()]
            with loaded.reading(texts) as cut:
                if cut is not None and cut.texts:
                    yield (
                        f"{cut.texts} of {counted(len(texts), 'passage')} (chunking {chunking.label}) "
                        f"{'is' if cut.texts == 1 else 'are'} longer than the {cut.reads} tokens that the embedder {name} reads; "
                        f"{counted(cut.tokens, 'token', 'is', 'are')} not read, and the longest passage has {cut.longest}"
                    )
