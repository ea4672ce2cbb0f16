"""Scripts that put no spaces between words: what cuts texts at spaces takes a phrase of theirs for one word."""

from __future__ import annotations

import re
from collections.abc import Iterable

WORD = re.compile(r"\S+")  # what stands between spaces
# name -> characters of the script, letters and the marks above and below them
UNSPACED = {
    "Chinese or Japanese": re.compile(
        "[\u3005-\u3007\u3041-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
    ),
    "Thai": re.compile("[\u0e01-\u0e4e]"),
    "Lao": re.compile("[\u0e81-\u0edf]"),
    "Burmese": re.compile("[\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f]"),
    "Khmer": re.compile("[\u1780-\u17d3]"),
    "Tibetan": re.compile("[\u0f40-\u0fbc]"),
    "Javanese": re.compile("[\ua980-\ua9c0]"),
}
SPACELESS = re.compile("|".join(characters.pattern for characters in UNSPACED.values()))
LETTER = re.compile(r"[^\W\d_]")


def unspaced(text: str) -> str | None:
    """The script without spaces that a text is written in, or None; one that more than half of its letters belong to."""
    letters = LETTER.sub("", text)
    if text.isascii() or len(letters) == len(text):
        return None
    counts = {name: len(characters.findall(text)) for name, characters in UNSPACED.items()}
    name = max(counts, key=counts.__getitem__)
    return name if 2 * counts[name] > len(text) - len(letters) else None


def unspaced_in(texts: Iterable[str]) -> str | None:
    """The first script without spaces that one of these texts is written in, or None."""
    return next((name for text in texts if (name := unspaced(text))), None)
