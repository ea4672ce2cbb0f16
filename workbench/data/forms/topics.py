"""TREC topics: ``<top>`` with ``<num>``, ``<title>``, ``<desc>`` and ``<narr>``, or ``<topic number="1">`` with tags inside."""

from __future__ import annotations

import html
import re
from pathlib import Path

from workbench.data.readers.json_lines import Read
from workbench.data.readers.text import lines
from workbench.errors import InputError

TOPIC = re.compile(r"<top>(.*?)</top>|<topic\b([^>]*)>(.*?)</topic>", re.DOTALL | re.IGNORECASE)
OPENED = re.compile(r"<top>|<topic\b", re.IGNORECASE)
NUMBER = re.compile(r"\b(?:number|id)\s*=\s*[\"']([^\"']+)")
# a field reaches to the next tag; old topics do not close them
FIELD = re.compile(r"<(num|title|desc|narr|query|question|narrative|description)>([^<]*)", re.IGNORECASE)
LABELS = re.compile(r"^\s*(Number|Topic|Description|Narrative)\s*:", re.IGNORECASE)
NAMES = {"description": "desc", "narrative": "narr"}


def is_topics(path: Path) -> bool:
    """Whether a file begins with a tag that topics are written in."""
    if path.suffix.lower() in (".parquet", ".arrow", ".feather"):
        return False
    first = next((line.text.strip() for line in lines(path) if line.text.strip()), "")
    return bool(re.match(r"<(top|topics|topic|\?xml)\b", first, re.IGNORECASE))


def topics(path: Path) -> list[Read]:
    """The topics of a file as rows with ``num`` and the fields that they have.

    Raises:
        InputError: no topic, a topic without a number, or one that is not closed.
    """
    text = "\n".join(line.text for line in lines(path))
    found = []
    for match in TOPIC.finditer(text):
        where = f"{path}, line {text.count(chr(10), 0, match.start()) + 1}"
        fields = {
            NAMES.get(name.lower(), name.lower()): _text(value) for name, value in FIELD.findall(match[1] or match[3] or "")
        }
        if number := NUMBER.search(match[2] or ""):
            fields.setdefault("num", number[1].strip())
        if not fields.get("num"):
            raise InputError(f'{where}: a topic without a number; allowed: <num> Number: 301, or <topic number="301">')
        found.append(Read(where, {name: value for name, value in fields.items() if value}))
    if len(found) != (opened := len(OPENED.findall(text))):
        raise InputError(f"{path}: {opened} topics begin and {len(found)} are closed; end each with </top> or </topic>")
    return found


def _text(value: str) -> str:
    return " ".join(html.unescape(LABELS.sub("", value)).split())
