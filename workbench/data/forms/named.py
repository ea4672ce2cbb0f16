"""Question sets of one's own: what a column means is known by its name, or said by the setting ``columns``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from workbench.data.conversation import read_history
from workbench.data.forms.form import split_named
from workbench.data.forms.question import Asked, Quote
from workbench.data.readers.json_lines import Read, shown
from workbench.data.readers.text import check_writable, composed, short, whole_number
from workbench.errors import InputError, unknown

# what is read of a question -> names of columns that say it; compared without case, blanks and hyphens
ROLES: dict[str, tuple[str, ...]] = {
    "id": ("id", "_id", "qid", "question_id", "query_id", "example_id"),
    "question": ("question", "query", "user_input", "input", "prompt", "question_text"),
    "answers": (
        "answers",
        "answer",
        "ground_truth",
        "ground_truths",
        "reference",
        "reference_answer",
        "expected",
        "expected_answer",
        "expected_output",
        "gold_answer",
        "golden_answers",
        "target",
        "output",
    ),
    "evidence": ("evidence", "evidence_text", "evidences", "quote", "quotes", "supporting_text", "reference_contexts"),
    "document": ("document", "doc", "doc_name", "document_name", "doc_id", "document_id", "file", "filename", "file_name"),
    "page": ("page", "page_number", "page_num"),
    "group": ("group", "conversation", "conversation_id", "session_id", "thread_id"),
    "split": ("split", "subset"),
    "history": ("history", "chat_history"),
}
TEXTS = "a text, a list of texts, or null"


def roles(columns: Collection[str], given: Mapping[str, str], where: str) -> dict[str, str]:
    """What is read of a question -> the column that says it.

    Args:
        columns: of the set, those in objects as ``inputs.question``.
        given: what the setting ``columns`` says; it comes before the names.
        where: the set, for messages.

    Raises:
        InputError: `given` names what is not read or not there, two columns may say the same, or none is the question.
    """
    found = {}
    for role, column in given.items():
        if role not in ROLES:
            raise InputError(f"dataset.columns: {unknown('part of a question', role, ROLES)}")
        if column not in columns:
            raise InputError(f"dataset.columns: {role}: {where}: {unknown('column', column, columns)}")
        found[role] = column
    for role, names in ROLES.items():
        if role in found:
            continue
        candidates = sorted(column for column in columns if _plain(column) in names and column not in given.values())
        if len(candidates) > 1:
            raise InputError(
                f"{where}: the columns {' and '.join(map(repr, candidates))} may both be the {role}; say which one with "
                f"`columns: {{{role}: {candidates[0]}}}` below `dataset:`"
            )
        if candidates:
            found[role] = candidates[0]
    if "question" not in found:
        listed = ", ".join(sorted(columns)) or "none"
        raise InputError(
            f"{where}: no column is known to be the question; found: {listed}; known names: {', '.join(ROLES['question'])}; or "
            f"say which one with `columns: {{question: NAME}}` below `dataset:`"
        )
    return found


def _plain(name: str) -> str:
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


def asked(rows: Sequence[Read], columns: Mapping[str, str]) -> Iterator[Asked]:
    """The questions of rows.

    Args:
        rows: objects, each with its place.
        columns: as `roles` gives them.

    Raises:
        InputError: a value that is not what its column says.
    """
    for where, row in rows:
        if not isinstance(row, dict):
            raise InputError(f"{where}: received {shown(row)}; allowed: an object with the key {columns['question']!r}")
        yield _asked({role: value(row, column) for role, column in columns.items()}, columns, where)


def value(row: Mapping[str, Any], column: str) -> Any:
    """What stands in a column, which may lie in an object: ``inputs.question``; None where nothing does."""
    if column in row:
        return row[column]
    first, _, rest = column.partition(".")
    inside = row.get(first)
    return value(inside, rest) if rest and isinstance(inside, dict) else None


def _asked(given: Mapping[str, Any], columns: Mapping[str, str], where: str) -> Asked:
    def place(role: str) -> str:
        return f"{where}: {columns.get(role, role)}"

    question, history = given["question"], given.get("history")
    if isinstance(question, list):  # a conversation, whose last turn is the question
        *history, last = question or [None]
        question = last.get("content") if isinstance(last, dict) else last
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{place('question')}: received {shown(question)}; allowed: a text that is not empty")
    document, page = _text(given.get("document"), place("document")), _page(given.get("page"), place("page"))
    quotes = [(Quote(text, document, page),) for text in texts(given.get("evidence"), place("evidence")) or ()]
    split = _text(given.get("split"), place("split"))
    check_writable(question, place("question"))
    return Asked(
        _text(given.get("id"), place("id")),
        composed(question),
        texts(given.get("answers"), place("answers"), empty=()),
        where,
        split=split_named(split, place("split")),
        evidence=quotes,
        relevant={document: 1} if document and not quotes else {},
        group=_text(given.get("group"), place("group")),
        history=read_history(history or None, place("history")),
    )


def texts(given: Any, where: str, empty: tuple[str, ...] | None = None) -> tuple[str, ...] | None:
    """Distinct texts from one or a list of them; None for nothing.

    Args:
        given: a text, a number, a list of them, or None.
        where: its place, for messages.
        empty: what an empty list means.

    Raises:
        InputError: anything else.
    """
    if given is None or (isinstance(given, str) and not given.strip()):
        return None
    if not isinstance(given, list):
        given = [given]
    found = tuple(dict.fromkeys(one for each in given if (one := _text(each, where, TEXTS))))
    return found or (empty if not given else None)


def _text(given: Any, where: str, allowed: str = "a text, a number or null") -> str | None:
    if given is None or isinstance(given, bool):
        found = None if given is None else str(given).lower()
    elif isinstance(given, str | int | float):
        found = str(given).strip() or None
    else:
        raise InputError(f"{where}: received {shown(given)}; allowed: {allowed}")
    check_writable(found, where)
    return composed(found) if found is not None else None


def _page(given: Any, where: str) -> int | None:
    if given is None or (isinstance(given, str) and not given.strip()):
        return None
    number = whole_number(str(given).strip().removesuffix(".0"))
    if isinstance(given, bool) or number is None or number < 1:
        raise InputError(f"{where}: received {short(str(given))}; allowed: the number of a page, counted from 1")
    return number
