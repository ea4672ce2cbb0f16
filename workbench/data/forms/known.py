"""All forms of question sets, and how one is recognised: by its columns alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from workbench.data import columns as further
from workbench.data.forms import (
    clapnq,
    crag,
    financebench,
    named,
    natural_questions,
    ragbench,
    rgb,
    several_documents,
    shape,
    squad,
    tools,
    traces,
    triviaqa,
)
from workbench.data.forms.form import Documents, Form
from workbench.data.forms.question import Asked, Corpus
from workbench.data.readers.json_lines import Read, record, shown
from workbench.errors import InputError, unknown

PUBLISHED: tuple[Form, ...] = (
    *squad.FORMS,
    *natural_questions.FORMS,
    *triviaqa.FORMS,
    *several_documents.FORMS,
    *financebench.FORMS,
    *ragbench.FORMS,
    *crag.FORMS,
    *clapnq.FORMS,
    *rgb.FORMS,
    *tools.FORMS,
)
BY_NAME = {form.name: form for form in PUBLISHED}
TRACES = {"langsmith": "examples exported from LangSmith", "phoenix": "examples exported from Phoenix"}
NAMED = "columns"  # what the setting `form` calls a set whose columns say by their names what they are
NAMES = (*BY_NAME, *TRACES, NAMED)


@dataclass(frozen=True)
class Questions:
    """The questions of a set, read.

    Attributes:
        form: its name.
        about: whose form it is, for people.
        asked: the questions.
        corpus: documents that came with them.
        documents: where the documents of such a set are.
        roles: what is read of a question -> the column that says it; empty for published forms, which fix that.
        notes: what is to be told, one sentence each.
    """

    form: str
    about: str
    asked: list[Asked]
    corpus: Corpus
    documents: Documents
    roles: Mapping[str, str]
    notes: list[str]

    @property
    def further(self) -> dict[str, int]:
        """Columns that are not read as anything, and can make slices: name -> number of distinct values."""
        found: dict[str, set[str]] = {}
        for one in self.asked:
            for name, value in one.columns.items():
                found.setdefault(name, set()).add(value)
        return {name: len(values) for name, values in sorted(found.items())}


def recognised(columns: Collection[str], where: str) -> str | None:
    """The name of the published form that has such columns, or None.

    Where the columns of one form are among those of another, the one that needs more counts.

    Args:
        columns: as `shape.columns` gives them.
        where: the set, for messages.

    Raises:
        InputError: it may be of two forms; both are named.
    """
    there = set(columns)
    fitting = {form.name: needed for form in PUBLISHED if (needed := form.fits(there)) is not None}
    if tool := traces.fits(there):
        fitting[tool] = frozenset()
    strictest = [name for name, needed in fitting.items() if not any(needed < other for other in fitting.values())]
    if len(strictest) > 1:
        raise InputError(
            f"{where}: the columns fit the forms {' and '.join(strictest)}; say which one with `form: {strictest[0]}` below "
            f"`dataset:`"
        )
    return strictest[0] if strictest else None


def questions(
    rows: Sequence[Read],
    where: str,
    form: str | None,
    given: Mapping[str, str],
    slices: Sequence[str] = (),
    corpus: Corpus | None = None,
    before: int = 0,
) -> Questions:
    """The questions of rows, in whatever form they are.

    Args:
        rows: of the set, each with its place.
        where: the set, for messages.
        form: its name; None: recognised by the columns.
        given: the setting ``columns``, which names columns of a set of no published form.
        slices: further columns that are kept.
        corpus: what the documents of the questions are put into; None: a new one.
        before: how many questions come before these, from which on questions without an id are numbered.

    Raises:
        InputError: the form is unknown or cannot be told, a row is not of it, or no question has one of the `slices`.
    """
    columns = shape.columns(row for _, row in rows)
    if not columns and (strange := next((one for one in rows if not isinstance(one.value, dict)), None)):
        raise InputError(f"{strange.where}: received {shown(strange.value)}; allowed: an object with the question and its answer")
    if form is not None and form not in NAMES:
        raise InputError(f"dataset.form: {unknown('form', form, NAMES)}")
    name = form or (NAMED if given else recognised(columns, where)) or NAMED
    if given and not form and (tool := traces.fits(columns)):
        name = tool
    if name in BY_NAME:
        if given:
            raise InputError(f"dataset.columns: the form {name} has columns of its own, which cannot be named; leave it away")
        found = _published(rows, where, BY_NAME[name], slices, Corpus() if corpus is None else corpus)
    else:
        found = _by_name(rows, where, name, given, slices)
    return replace(found, asked=_numbered(found.asked, before))


def _published(rows: Sequence[Read], where: str, form: Form, slices: Sequence[str], corpus: Corpus) -> Questions:
    asked, kept = [], []
    model = further.with_columns(form.model, slices)
    for place, row in rows:
        one = record(row, model, place)
        kept.append(one)
        asked += [replace(question, columns=_cells(row, form.keys)) for question in form.read(one, place, corpus)]
    further.refuse_missing(kept, slices, where)
    notes = [form.note] if form.note else []
    return Questions(form.name, form.about, asked, corpus, form.documents, {}, notes)


def _by_name(rows: Sequence[Read], where: str, name: str, given: Mapping[str, str], slices: Sequence[str]) -> Questions:
    columns = shape.columns(row for _, row in rows)
    values = {column for column in columns if not column.endswith(("{}", "[]")) and "[]." not in column}
    if name == NAMED:
        roles = named.roles({column for column in values if "." not in column or column in given.values()}, given, where)
    else:
        roles = traces.roles(values, given, where)
    model = further.with_columns(further.Open, slices)
    further.refuse_missing([record(row, model, place) for place, row in rows], slices, where)
    read = named.asked(rows, roles)
    asked = [replace(one, columns=_cells(row, set(roles.values()))) for one, (_, row) in zip(read, rows, strict=True)]
    about = TRACES.get(name, "columns known by their names")
    return Questions(name, about, asked, Corpus(), "folder", roles, [])


def _cells(row: dict[str, object], read: Collection[str]) -> dict[str, str]:
    """Columns of plain values, also in ``metadata``, that are not read as something else."""
    return {name: text for name, text in further.cells(row).items() if name not in read}


def _numbered(asked: Sequence[Asked], before: int) -> list[Asked]:
    """Questions that have no id, with their number for one."""
    return [one if one.id is not None else replace(one, id=str(number)) for number, one in enumerate(asked, before + 1)]
