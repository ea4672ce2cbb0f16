"""Where datasets come from: the built-in `pydocs`; a folder in BEIR layout and a folder of documents are read beside it.

A source is read once, turned into Arrow files under `workbench.weights.home()`, and opened memory-mapped afterwards.
What is stored is found by the digest of the source's content, never by its name. Texts are stored in Unicode's normal form C.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from workbench.component import digest, file_digest
from workbench.data.beir import beir, beir_file
from workbench.data.dataset import Dataset
from workbench.data.documents.folder import text_folder
from workbench.data.evidence import read_questions, with_evidence
from workbench.data.prepared import PREPARATION, prepared

__all__ = ["BUILTIN", "PYDOCS_QUESTIONS", "beir", "beir_file", "contained", "pydocs", "text_folder"]

PYDOCS_QUESTIONS = Path(__file__).parent / "pydocs" / "questions.jsonl"
CONTAINED = 0.9  # a topic is dropped when a larger one holds more than this share of it
SHINGLE_WORDS = 5

BUILTIN = {"pydocs": "the Python language reference of the running interpreter, with questions written for it"}


def pydocs(columns: Sequence[str] = ()) -> Dataset:
    """The Python language reference that the interpreter carries, with the project's questions.

    Topics that are contained in larger ones are dropped and listed in the notes.

    Args:
        columns: further columns of the questions that are kept; there is ``kind``.

    Raises:
        InputError: there is no such column.
    """
    from pydoc_data.topics import topics

    source = {"topics": topics, "questions": file_digest(PYDOCS_QUESTIONS)}
    return prepared(digest(["pydocs", PREPARATION, source, *columns]), lambda: _read_pydocs(topics, columns))


def _read_pydocs(topics: dict[str, str], columns: Sequence[str]) -> Dataset:
    dropped = contained(topics)
    documents = [
        {"id": name, "title": text.strip().splitlines()[0].replace("*", "").strip(), "text": text}
        for name, text in topics.items()
        if name not in dropped
    ]
    listed = ", ".join(f"{name} (in {dropped[name]})" for name in sorted(dropped))
    notes = [f"{len(dropped)} of {len(topics)} topics dropped, more than {CONTAINED:.0%} contained in a larger one: {listed}"]
    return with_evidence("pydocs", documents, read_questions(PYDOCS_QUESTIONS, columns), notes, columns)


def contained(texts: dict[str, str]) -> dict[str, str]:
    """Texts that are nearly part of another: name -> the larger text, kept itself, that holds most of it.

    Measured on distinct shingles of `SHINGLE_WORDS` words: dropped when more than `CONTAINED` of a text's stand in
    one larger text that is not dropped.
    """
    shingles = {name: _shingles(text) for name, text in texts.items()}
    kept: list[str] = []
    dropped: dict[str, str] = {}
    for name in sorted(texts, key=lambda n: (-len(texts[n]), n)):
        shares = {other: len(shingles[name] & shingles[other]) / len(shingles[name]) for other in kept}
        best = max(shares, key=shares.__getitem__, default=None)
        if best is not None and shares[best] > CONTAINED:
            dropped[name] = best
        else:
            kept.append(name)
    return dropped


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}
