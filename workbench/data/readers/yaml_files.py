"""YAML files, each key once, read as YAML 1.2: `on`, `1:30`, `1_000` and dates are texts, `010` is ten and `1e-4` a number."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from workbench.data.readers.text import check_writable, short, whole
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
                if not isinstance(key, yaml.ScalarNode):
                    raise InputError(f"line {line}: a key is a list or has keys of its own; keys are texts")
                said = key.value
                raise InputError(f'line {line}: the key {said!r} is read as no text; write it in quotation marks: "{said}"')
            if key.value in first:
                before = first[key.value]
                raise InputError(f"line {line}: the key {key.value!r} is given twice, first in line {before}; give it once")
            first[key.value] = line
        return super().construct_mapping(node, deep)


# what YAML 1.1 reads as truth, a number or a date is that only where YAML 1.2 says so too
TAG = "tag:yaml.org,2002:"
LONGEST = 100  # digits of a whole number
FORMS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
_Loader.yaml_implicit_resolvers = {
    sign: [(tag, pattern) for tag, pattern in resolvers if tag.removeprefix(TAG) not in (*FORMS, "timestamp", "value")]
    for sign, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Puts into quotation marks what YAML 1.1 or 1.2 would read as no text."""


for _name, (_form, _signs) in FORMS.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(f"{TAG}{_name}", re.compile(f"^(?:{_form})$"), list(_signs))


def _whole_number(loader: _Loader, node: yaml.ScalarNode) -> int:
    text: str = loader.construct_scalar(node)
    if len(text) > LONGEST:
        raise InputError(
            f"line {node.start_mark.line + 1}: the number {short(text)} has too many digits; at most {LONGEST} are read"
        )
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _number(loader: _Loader, node: yaml.ScalarNode) -> float:
    text: str = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor(f"{TAG}int", _whole_number)
_Loader.add_constructor(f"{TAG}float", _number)


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
        node = yaml.compose(text, _Loader)  # a SafeLoader
        if node is not None and (line := _holds_itself(node, set(), set())):
            raise InputError(f"line {line}: what stands there is part of itself (by & and *); write it out")
        value = yaml.load(text, _Loader)
    except InputError as error:
        raise InputError(f"{where}, {error}") from error
    except RecursionError as error:
        raise InputError(f"{where}: the YAML is nested too deeply") from error
    except yaml.YAMLError as error:
        raise InputError(f"{where}{_told(error, text)}") from error
    except (ValueError, LookupError, AttributeError) as error:  # such as !!bool x
        raise InputError(
            f"{where}: no readable YAML: {error}; write a text that looks like a number in quotation marks, and no tags"
        ) from error
    if "\\" in text:
        check_writable(value, where)
        _check_nul(value, where)
    return value


def dumped(value: object) -> str:
    """A YAML text that reads back as the same value, here and in readers of YAML 1.1."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _holds_itself(node: yaml.Node, above: set[int], seen: set[int]) -> int | None:
    """The line of a list or an object that stands inside itself, or None; `seen` are those that do not."""
    if isinstance(node, yaml.ScalarNode) or id(node) in seen:
        return None
    if id(node) in above:
        return int(node.start_mark.line) + 1
    above.add(id(node))
    parts = node.value if isinstance(node, yaml.SequenceNode) else [value for _, value in node.value]
    found = next((line for part in parts if (line := _holds_itself(part, above, seen))), None)
    above.remove(id(node))
    seen.add(id(node))
    return found


def _check_nul(value: object, where: str) -> None:
    """Refuses NUL in a text, which ends it for other programs and in names of files."""
    if isinstance(value, dict):
        for key, one in value.items():
            _check_nul(one, f"{where}: {key}")
    elif isinstance(value, list):
        for one in value:
            _check_nul(one, where)
    elif isinstance(value, str) and "\0" in value:
        raise InputError(f"{where}: NUL stands in {short(value)}, which ends a text for other programs; leave it out")


def _code(character: str | int) -> int:
    return ord(character) if isinstance(character, str) else character


def _told(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if isinstance(error, yaml.reader.ReaderError) and isinstance(error.position, int):
        at, sign = text.count("\n", 0, error.position) + 1, f"U+{_code(error.character):04X}"
        return f", line {at}: the character {sign} stands in it, which YAML does not allow; leave it out"
    problem = getattr(error, "problem", None) or getattr(error, "context", None) or "it cannot be read"
    opened = getattr(error, "context_mark", None)
    if opened and problem.startswith("found unexpected"):  # the end of the file, or `---`, inside quotation marks
        return f", line {opened.line + 1}: no readable YAML: a quotation mark opens there and none closes it"
    if mark is None:
        return f": no readable YAML: {' '.join(str(error).split())}"
    given = text.split("\n")
    line = given[mark.line] if mark.line < len(given) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f", line {mark.line + 1} begins with a tab; indent with spaces"
    return f", line {mark.line + 1}: no readable YAML: {problem}; the line is {line.strip()[:80]!r}"
