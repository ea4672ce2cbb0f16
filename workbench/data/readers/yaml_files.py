"""YAML files: each key once, and `on`, `off`, `yes`, `no` are texts, as in YAML 1.2."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from workbench.data.readers.text import check_writable, whole
from workbench.errors import InputError


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, and a key that is no text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                said = getattr(key, "value", "")
                raise InputError(f'line {line}: the key {said!r} is read as no text; write it in quotation marks: "{said}"')
            if key.value in first:
                before = first[key.value]
                raise InputError(f"line {line}: the key {key.value!r} is given twice, first in line {before}; give it once")
            first[key.value] = line
        return super().construct_mapping(node, deep)


# YAML 1.1 reads `on` and `no` as true and false; here only true and false are
_Loader.yaml_implicit_resolvers = {
    sign: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read(path: Path) -> Any:
    """The value of a YAML file.

    Raises:
        InputError: no YAML, a key given twice, a tab as indentation, or as `workbench.data.readers.text.lines`; the message names
            the line.
    """
    return parsed(whole(path), str(path))


def parsed(text: str, where: str) -> Any:
    """The value of a YAML text.

    Args:
        text: the text.
        where: where it stands, for messages.

    Raises:
        InputError: as `read`.
    """
    try:
        value = yaml.load(text, _Loader)  # a SafeLoader
        if "\\" in text:
            check_writable(value, where)
        return value
    except InputError as error:
        raise InputError(f"{where}, {error}") from error
    except RecursionError as error:
        raise InputError(f"{where}: the YAML is nested too deeply") from error
    except yaml.YAMLError as error:
        raise InputError(f"{where}{_told(error, text)}") from error
    except ValueError as error:  # such as 2026-99-99, which looks like a date
        said = f"{where}: no readable YAML: {error}; write a text that looks like a date or a number in quotation marks"
        raise InputError(said) from error


def _told(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return f": no readable YAML: {' '.join(str(error).split())}"
    given = text.split("\n")
    line = given[mark.line] if mark.line < len(given) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f", line {mark.line + 1} begins with a tab; indent with spaces"
    problem = getattr(error, "problem", None) or getattr(error, "context", None) or "it cannot be read"
    return f", line {mark.line + 1}: no readable YAML: {problem}; the line is {line.strip()[:80]!r}"
