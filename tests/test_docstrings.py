"""What ruff's rules do not hold of docstrings: many parameters are described, and arrays have their shape and dtype."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "workbench"
MANY = 4  # parameters, from which on each is described
ARRAY = re.compile(r"\b(ndarray|NDArray|memmap|Tensor|ArrayLike|Floats|Indexes)\b")
NESTED = r"(?:[^()]|\([^()]*\))*"
SHAPE = re.compile(rf"\((?!\s){NESTED},{NESTED}\)|\(\*shape\)|\bscalar\b")  # (n, d), (n,), (len(texts), d)
DTYPE = re.compile(r"\b(bfloat16|float(16|32|64)?|u?int(8|16|32|64)|bool|integers|the model's precision)\b")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(source: str) -> Iterator[tuple[str, Function, str]]:
    """Name, definition and docstring of public functions and methods; a class's own docstring may describe `__init__`.

    Methods without a docstring are verbs of a base class, which describes them; commands describe their options as typer wants.
    """
    for node in ast.parse(source).body:
        if isinstance(node, Function) and not node.name.startswith("_") and not is_command(node):
            yield node.name, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in (part for part in node.body if isinstance(part, Function)):
                said = ast.get_docstring(method)
                if method.name == "__init__":
                    yield f"{node.name}.__init__", method, said or ast.get_docstring(node) or ""
                elif said and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", method, said


def is_command(function: Function) -> bool:
    return any("command" in ast.unparse(decorator) for decorator in function.decorator_list)


def parameters(function: Function) -> list[ast.arg]:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.kwarg]
    return [one for one in named if one and one.arg not in ("self", "cls") and not one.arg.startswith("_")]


def entries(docstring: str) -> dict[str, str]:
    """What the sections Args and Attributes say of each name."""
    found: dict[str, str] = {}
    for section in re.findall(r"^(?:Args|Attributes):\n((?:(?: .*)?\n?)+)", docstring, re.MULTILINE):
        for name, said in re.findall(r"^ {4}\*{0,2}(\w+): ((?:.*\n?)(?: {8}.*\n?)*)", section, re.MULTILINE):
            found[name] = said
    return found


def shaped(text: str) -> bool:
    return bool(SHAPE.search(text) and DTYPE.search(text))


def undescribed(source: str) -> list[str]:
    """Public functions with many parameters, of which some are not described."""
    return [
        name
        for name, function, docstring in public(source)
        if len(parameters(function)) >= MANY and {one.arg for one in parameters(function)} - entries(docstring).keys()
    ]


def unshaped(source: str) -> list[str]:
    """Public functions with an array whose shape or dtype is not said: in its own entry, or where there is none, anywhere."""
    found = []
    for name, function, docstring in public(source):
        described = entries(docstring)
        taken = [one.arg for one in parameters(function) if one.annotation and ARRAY.search(ast.unparse(one.annotation))]
        gives = function.returns is not None and ARRAY.search(ast.unparse(function.returns))
        if not all(shaped(described.get(one, docstring)) for one in taken) or (gives and not shaped(docstring)):
            found.append(name)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_many_parameters_are_described_and_arrays_have_shape_and_dtype(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert (undescribed(source), unshaped(source)) == ([], [])


def test_the_rules_find_what_breaks_them() -> None:
    said = 'def f(a: int, b: int, c: int, d: int) -> None:\n    """Adds.\n\n    Args:\n        a: one.\n        b: two.\n'
    assert undescribed(f'{said}        c: three.\n    """') == ["f"]
    assert undescribed(f'{said}        c: three.\n        d: four.\n    """') == []
    assert unshaped('def f(a: np.ndarray) -> None:\n    """Adds float32 vectors."""') == ["f"]
    assert unshaped('def f(a: np.ndarray) -> None:\n    """Adds vectors float32 (n, d)."""') == []
    assert unshaped('def f(a: int) -> Floats:\n    """The numbers."""') == ["f"]
