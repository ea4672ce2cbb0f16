"""Analysis of texts for lexical retrieval: texts -> terms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from workbench.component import Component
from workbench.data.readers.text import composed

# those that bm25s has stop words for and PyStemmer a stemmer
LANGUAGES: tuple[str, ...] = ("english", "german", "dutch", "french", "spanish", "portuguese", "italian", "russian", "swedish")
LANGUAGES += ("norwegian", "danish", "turkish")


@dataclass(frozen=True, eq=False)
class Terms:
    """Terms of texts, as numbers.

    Attributes:
        vocabulary: the terms; a term's number is its position.
        ids: int32, the numbers of all texts one after the other.
        ends: int64 (n_texts,), where each text's numbers end.
    """

    vocabulary: tuple[str, ...]
    ids: np.ndarray
    ends: np.ndarray

    def rows(self) -> list[list[int]]:
        """The numbers of each text."""
        return [row.tolist() for row in np.split(self.ids, self.ends[:-1])] if len(self.ends) else []

    def save(self, folder: Path) -> None:
        """Writes ``terms.npz`` and ``vocabulary.json``."""
        np.savez(folder / "terms.npz", ids=self.ids, ends=self.ends)
        (folder / "vocabulary.json").write_text(json.dumps(self.vocabulary, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Terms:
        """What `save` wrote."""
        with np.load(folder / "terms.npz") as found:
            vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
            return cls(tuple(vocabulary), found["ids"], found["ends"])


class Analyzer(Component):
    """Settings of the analysis: lower case, terms of two word characters or more, without stop words, stemmed.

    Texts are compared in Unicode's normal form C. What is stored is in that form, so this changed no stored terms and no version.

    Attributes:
        stopwords: language whose stop words are left out, or None.
        stemmer: language of the Snowball stemmer, or None.
    """

    libraries: ClassVar = ("bm25s", "PyStemmer")

    stopwords: str | None = "english"
    stemmer: str | None = "english"

    def tokenize(self, texts: Sequence[str]) -> list[list[str]]:
        """Terms of each text."""
        terms: list[list[str]] = self._tokenize(texts, return_ids=False)
        return terms

    def terms(self, texts: Sequence[str]) -> Terms:
        """Terms of many texts, as numbers."""
        found = self._tokenize(texts, return_ids=True)
        lengths = [len(row) for row in found.ids]
        ids = np.fromiter((number for row in found.ids for number in row), np.int32, sum(lengths))
        return Terms(tuple(sorted(found.vocab, key=found.vocab.get)), ids, np.cumsum(lengths, dtype=np.int64))

    def _tokenize(self, texts: Sequence[str], return_ids: bool) -> Any:
        import bm25s

        stopwords: str | list[str] = self.stopwords or []
        return bm25s.tokenize(
            [composed(text) for text in texts],
            stopwords=stopwords,
            stemmer=self._stemmer(),
            return_ids=return_ids,
            show_progress=False,
        )

    def _stemmer(self) -> object:
        import Stemmer

        return Stemmer.Stemmer(self.stemmer) if self.stemmer else None


def check_language(value: str | None, what: str) -> str | None:
    """The value, if it is a language that stop words and a stemmer exist for, or None."""
    if value is not None and value not in LANGUAGES:
        raise ValueError(f"{value!r} is no language of {what}; allowed: {', '.join(LANGUAGES)}, or null for none")
    return value
