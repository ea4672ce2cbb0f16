"""What documents are like: how many, how long, in which languages, with what structure, which equal or empty."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from pathlib import PurePosixPath
from statistics import median_low
from typing import NamedTuple

from workbench.data.dataset import Row
from workbench.data.readers.text import counted
from workbench.data.scripts import unspaced

LANGUAGES = {
    "english": "EN",
    "german": "GERMAN",
    "dutch": "DUTCH",
    "french": "FRENCH",
    "spanish": "SPANISH",
    "portuguese": "PORTUGUESE",
    "italian": "ITALIAN",
    "russian": "RUSSIAN",
    "swedish": "SWEDISH",
    "norwegian": "NORWEGIAN",
    "danish": "DANISH",
    "turkish": "TURKISH",
}  # name -> bm25s's name of its stop words
UNKNOWN = "unknown"
READ = 3000  # words of a document that its language is told by
LEAST = 0.08  # share of stop words from which a language is told; in prose it is .3 to .5
FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?^---[ \t]*$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(?:#{1,6} \S|[=\-]{3,}\s*$)", re.MULTILINE)
PARAGRAPHS = re.compile(r"\n[ \t]*\n")
SHOWN = 5


class Survey(NamedTuple):
    """What documents are like.

    Attributes:
        documents: how many.
        endings: ending of the file's name -> how many documents.
        words: of each document.
        languages: name, `UNKNOWN`, or a script without spaces -> how many documents.
        paragraphs: in the middle one of the documents, ordered by their numbers of paragraphs.
        headed: how many documents have a heading.
        empty: ids of documents without a text.
        equal: ids of documents with one text, by text.
        notes: what was not read, and what else reading told, one sentence each.
    """

    documents: int
    endings: dict[str, int]
    words: list[int]
    languages: dict[str, int]
    paragraphs: int
    headed: int
    empty: list[str]
    equal: list[list[str]]
    notes: list[str]

    @property
    def language(self) -> str:
        """That of most documents."""
        return max(self.languages, key=lambda name: (self.languages[name], name))

    @property
    def typical(self) -> int:
        """Words of the middle one of the documents, ordered by their length."""
        return median_low(self.words)

    @property
    def lines(self) -> list[str]:
        """The survey for people."""
        if not self.documents:
            return ["documents: none that can be read", *(f"  {note}" for note in self.notes)]
        kinds = ", ".join(f"{n} {ending}" for ending, n in self.endings.items())
        languages = ", ".join(f"{name} {n}" for name, n in self.languages.items())
        lines = [
            f"documents: {self.documents} ({kinds})",
            f"  words: {min(self.words):,} to {max(self.words):,}, half at most {self.typical:,}; together {sum(self.words):,}",
            f"  languages, told by frequent words: {languages}",
            f"  structure: {self.headed} {'has' if self.headed == 1 else 'have'} headings; half have at most "
            f"{counted(self.paragraphs, 'paragraph')}",
        ]
        if self.empty:
            lines.append(f"  without a text: {_few(self.empty)}")
        lines += [f"  equal: {_few(names)}" for names in self.equal[:SHOWN]]
        if len(self.equal) > SHOWN:
            lines.append(
                f"  and {counted(len(self.equal) - SHOWN, 'more text', 'that stands', 'that stand')} in several documents"
            )
        return [*lines, *(f"  note: {note}" for note in self.notes)]


def nothing(notes: Sequence[str]) -> Survey:
    """The survey where no document can be read.

    Args:
        notes: why.
    """
    return Survey(0, {}, [0], {UNKNOWN: 0}, 0, 0, [], [], list(notes))


def survey(rows: Sequence[Row], notes: Sequence[str] = (), headed: Collection[str] = ()) -> Survey:
    """A survey of documents.

    Args:
        rows: of `workbench.data.dataset.DOCUMENTS`, at least one.
        notes: what was not read.
        headed: ids of documents whose parser found a heading; in the others, lines that look like one are.
    """
    texts = defaultdict(list)
    for row in rows:
        texts[" ".join(row["text"].split())].append(row["id"])
    empty = texts.pop("", [])
    languages = Counter(language(row["text"]) for row in rows)
    return Survey(
        len(rows),
        _counted(PurePosixPath(row["id"]).suffix.lower() or "without ending" for row in rows),
        [len(row["text"].split()) for row in rows],
        dict(languages.most_common()),
        median_low([_paragraphs(row) for row in rows]),
        sum(row["id"] in headed or _looks_headed(row["text"]) for row in rows),
        empty,
        [names for names in texts.values() if len(names) > 1],
        list(notes),
    )


def _looks_headed(text: str) -> bool:
    return HEADING.search(FRONT_MATTER.sub("", text)) is not None


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _paragraphs(row: Row) -> int:
    return sum(bool(part.strip()) for part in PARAGRAPHS.split(row["text"]))


def language(text: str) -> str:
    """The language whose stop words make most of a text's beginning, a script without spaces, or `UNKNOWN`."""
    if script := unspaced(text[: 10 * READ]):
        return script
    words = re.findall(r"[^\W\d_]+", text[: 10 * READ].casefold())[:READ]
    if not words:
        return UNKNOWN
    shares = {name: sum(word in known for word in words) / len(words) for name, known in _stop_words().items()}
    best = max(shares, key=lambda name: (shares[name], name))
    return best if shares[best] >= LEAST else UNKNOWN


@cache
def _stop_words() -> dict[str, frozenset[str]]:
    from bm25s import stopwords

    return {name: frozenset(getattr(stopwords, f"STOPWORDS_{known}")) for name, known in LANGUAGES.items()}


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(map(repr, names[:SHOWN]))}{', ...' if len(names) > SHOWN else ''}"
