"""Items in memory: within their bytes, computed once while they are kept, and nothing in the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.store.memory_items import MemoryItems


class Upper:
    """Texts in capitals; counts what it was asked for."""

    def __init__(self) -> None:
        self.computed: list[str] = []

    def __call__(self, missing: list[str]) -> Iterator[list[tuple[int, str]]]:
        self.computed += missing
        yield from ([(i, text.upper())] for i, text in enumerate(missing))

    def of(self, items: MemoryItems, *texts: str, space: str = "a") -> list[str]:
        """What the items give."""
        return items.computed(space, texts, self, str.encode, bytes.decode)


def test_each_item_is_computed_once_while_it_is_kept() -> None:
    items, upper = MemoryItems(100), Upper()
    assert upper.of(items, "b", "a", "b") == ["B", "A", "B"]
    assert upper.of(items, "a", "c") == ["A", "C"]
    assert upper.computed == ["b", "a", "c"]
    assert upper.of(items, "a", space="other") == ["A"] and upper.computed == ["b", "a", "c", "a"]


def test_what_was_used_longest_ago_makes_room() -> None:
    items, upper = MemoryItems(6), Upper()
    upper.of(items, "aaa", "bbb")
    upper.of(items, "aaa")
    upper.of(items, "ccc")
    assert items.bytes == 6
    upper.of(items, "aaa", "bbb")
    assert upper.computed == ["aaa", "bbb", "ccc", "bbb"]


@pytest.mark.parametrize("most", [0, 2])
def test_a_value_that_does_not_fit_is_given_and_not_kept(most: int) -> None:
    items, upper = MemoryItems(most), Upper()
    assert upper.of(items, "abc") == upper.of(items, "abc") == ["ABC"]
    assert upper.computed == ["abc", "abc"] and items.bytes == 0


def test_a_visitors_question_leaves_nothing_in_the_store(toy, tmp_path: Path) -> None:
    from workbench.pipeline import Pipeline

    pipeline = Pipeline.open(toy.run, next(c for c, label in toy_labels(toy).items() if label.startswith("dense/maxsim")))
    table = pipeline.session.store.items.connection
    before = table.execute("SELECT COUNT(*) FROM items").fetchone()[0]
    stored = pipeline.ask("What has never been asked before?")
    assert table.execute("SELECT COUNT(*) FROM items").fetchone()[0] > before
    before = table.execute("SELECT COUNT(*) FROM items").fetchone()[0]
    pipeline.session.keep_in_memory(1_000_000)
    counts = pipeline.session.counts()
    asked = pipeline.ask("What has never been asked before?"), pipeline.ask("And what is new again?")
    assert table.execute("SELECT COUNT(*) FROM items").fetchone()[0] == before and pipeline.session.counts() == counts
    assert (asked[0].answer, asked[0].sources, asked[0].provenance) == (stored.answer, stored.sources, stored.provenance)


def toy_labels(toy) -> dict[str, str]:
    """Labels of the toy run's configurations by id."""
    from workbench.results.run import Run

    return dict(Run.open(toy.run).labels)
