"""Examples exported from tools that record what an application did: LangSmith and Phoenix.

What was asked lies below ``inputs`` or ``input``, the reference below ``outputs`` or ``output``, each in an object of one's own
keys or, in a table, in columns such as ``input_question``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from workbench.data.forms import named
from workbench.errors import InputError

SIDES = {"question": re.compile(r"inputs?[._](.+)"), "answers": re.compile(r"(?:outputs?|reference_outputs?)[._](.+)")}
MESSAGES = "messages"


def fits(columns: Collection[str]) -> str | None:
    """The tool whose export has such columns, or None."""
    if any(SIDES["question"].fullmatch(column) for column in columns):
        if "inputs{}" in columns or any(column.startswith(("inputs.", "inputs_")) for column in columns):
            return "langsmith"
        if "input{}" in columns or any(column.startswith("input.") for column in columns):
            return "phoenix"
        if any(SIDES["answers"].fullmatch(column) for column in columns):
            return "langsmith"  # its tables have input_NAME and output_NAME
    return None


def roles(columns: Collection[str], given: Mapping[str, str], where: str) -> dict[str, str]:
    """What is read of a question -> the column that says it, as `named.roles`.

    Args:
        columns: those that hold values.
        given: what the setting ``columns`` says.
        where: the set, for messages.

    Raises:
        InputError: more than one value may be the question or its answer.
    """
    found = dict(given)
    for role, pattern in SIDES.items():
        if role not in found and (column := _only(role, pattern, columns, where)):
            found[role] = column
    others = [column for column in columns if not any(pattern.fullmatch(column) for pattern in SIDES.values())]
    rest = [column for column in others if column not in ("inputs", "input", "outputs", "output")]
    return named.roles({*rest, *found.values()}, found, where)


def _only(role: str, pattern: re.Pattern[str], columns: Collection[str], where: str) -> str | None:
    """The only value of a side, or the only one that is called as such things are."""
    inside = {column: match[1] for column in columns if (match := pattern.fullmatch(column)) and "." not in match[1]}
    candidates = sorted(inside)
    called = [column for column in candidates if inside[column].lower() in (*named.ROLES[role], MESSAGES)]
    if len(candidates) > 1:
        candidates = called
    if len(candidates) == 1:
        return candidates[0]
    if not inside:
        return None
    among = called or sorted(inside)
    raise InputError(
        f"{where}: {' and '.join(map(repr, among))} may each be the {role}; say which one with `columns: {{{role}: {among[0]}}}` "
        f"below `dataset:`"
    )
