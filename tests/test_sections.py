"""Documents that are cut by their structure: at headings and pages, with tables and code in one piece."""

from __future__ import annotations

import io
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter
from typer.testing import CliRunner

from benchmarks import made_files
from workbench import cli
from workbench.data.chunking import Chunking
from workbench.data.dataset import DOCUMENTS, STRUCTURE
from workbench.data.documents.markdown import structure
from workbench.data.documents.pdf import Pdf
from workbench.data.documents.worker import parsed
from workbench.data.sections import Cutting, Part, titled, windows
from workbench.errors import InputError
from workbench.experiment.config import DatasetSettings

PAGE = """# Lamps

## Oil

Oil burns long and bright.

| year | price |
| ---- | ----- |
| 1822 | 12    |
| 1823 | 14    |

It is dear, however.

## Gas

Gas is cheap.

```python
def light():
    return "gas"
```

# Mills

Mills grind rye.
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


def tables(text: str, parts: Any = None) -> tuple[pa.Table, pa.Table]:
    """A document and its structure, that of Markdown unless it is given."""
    found = structure(text) if parts is None else parts
    rows = [{"doc_id": "d", **dict(zip(STRUCTURE.names[1:], part, strict=True))} for part in found]
    return pa.Table.from_pylist([{"id": "d", "title": "Light", "text": text}], DOCUMENTS), pa.Table.from_pylist(rows, STRUCTURE)


def cut(text: str, **settings: Any) -> list[tuple[str, str]]:
    """Title and text of each passage."""
    rows = Chunking(**settings).cut(*tables(text)).to_pylist()
    assert all(text[row["start"] : row["end"]] == row["text"] for row in rows)
    return [(row["title"], row["text"]) for row in rows]


def test_sections_end_before_headings_and_are_titled_with_those_above() -> None:
    found = cut(PAGE, words=None, overlap=0, at="headings")
    assert [title for title, _ in found] == ["Light > Lamps > Oil", "Light > Lamps > Gas", "Light > Mills"]
    assert found[0][1].startswith("# Lamps\n\n## Oil\n\nOil burns"), "a heading with nothing below it goes with the next"
    assert found[0][1].endswith("It is dear, however.") and found[2][1] == "# Mills\n\nMills grind rye."


def test_long_sections_are_cut_into_windows_that_stay_inside() -> None:
    found = cut(PAGE, words=4, overlap=1, at=["headings"])
    assert [text for title, text in found if title.endswith("Mills")] == ["# Mills\n\nMills grind", "grind rye."]
    assert not any("however" in text and "Gas" in text for _, text in found)


def test_tables_and_code_are_kept_in_one_piece_however_long() -> None:
    found = [text for _, text in cut(PAGE, words=5, overlap=2, keep=["tables", "code"])]
    whole = [text for text in found if "1822" in text or "def light" in text]
    assert len(whole) == 2
    assert whole[0].startswith("| year") and whole[0].endswith("14    |")
    assert whole[1].startswith("```python") and whole[1].endswith("```")


def test_what_is_kept_shares_a_passage_with_words_where_both_fit() -> None:
    text = "One two.\n\n| a | b |\n| - | - |\n| c | d |\n\nThree."
    assert [found for _, found in cut(text, words=100, overlap=10, keep="tables")] == [text]


def test_a_heading_inside_of_what_is_kept_cuts_nothing() -> None:
    text = "aa bb cc dd ee ff"
    parts = [(3, 14, "table", 0, ""), (6, 8, "heading", 1, "cc")]
    rows = Chunking(words=2, overlap=0, at="headings", keep="tables").cut(*tables(text, parts)).to_pylist()
    assert [row["text"] for row in rows] == ["aa", "bb cc dd ee", "ff"]


def test_of_what_is_kept_inside_of_each_other_the_inner_is_kept_where_the_outer_is_too_long() -> None:
    text = "class A: def f: 1 2 def g: 3 4"
    parts = [(0, 30, "code", 1, "A"), (9, 19, "code", 2, "A.f"), (20, 30, "code", 2, "A.g")]
    apart = ["class A:", "def f: 1 2", "def g: 3 4"]
    for words, wanted in ((20, [text]), (5, apart), (6, [" ".join(apart[:2]), apart[2]])):
        rows = Chunking(words=words, overlap=0, keep="code").cut(*tables(text, parts)).to_pylist()
        assert [row["text"] for row in rows] == wanted, words


def test_pages_are_passages() -> None:
    text = "First page.\fSecond page.\f\fFourth."
    parts = [(0, 11, "page", 0, "1"), (12, 24, "page", 0, "2"), (25, 25, "page", 0, "3"), (26, 33, "page", 0, "4")]
    rows = Chunking(words=None, at="pages").cut(*tables(text, parts)).to_pylist()
    assert [row["text"] for row in rows] == ["First page.", "Second page.", "Fourth."]
    assert {row["title"] for row in rows} == {"Light"}


def test_a_first_heading_that_is_the_title_is_not_repeated() -> None:
    assert titled("Lamps", ("lamps", "Oil")) == "Lamps > Oil"
    assert titled("", ("Oil",)) == "Oil" and titled("Lamps", ()) == "Lamps"


places = st.integers(0, 60)
parts_of = st.lists(st.builds(Part, places, places, st.sampled_from(["heading", "page", "table", "code"]), st.integers(1, 3)))


@settings(max_examples=150)
@given(
    st.text(st.sampled_from("ab \n\t好"), max_size=60),
    parts_of,
    st.integers(1, 8) | st.none(),
    st.integers(0, 7),
    st.sets(st.sampled_from(["headings", "pages"])),
    st.sets(st.sampled_from(["tables", "code"])),
)
def test_passages_of_any_document_are_in_order_and_cover_all_of_it(
    text: str, parts: list[Part], words: int | None, overlap: int, at: set[str], keep: set[str]
) -> None:
    fitting = sorted(part for part in parts if part.start <= part.end <= len(text))
    cutting = Cutting(words, min(overlap, (words or 1) - 1), sorted(at), sorted(keep))
    found = list(cutting.passages(text, sorted(fitting, key=lambda part: (part.start, -part.end))))
    covered = {place for start, end, _ in found for place in range(start, end)}
    assert covered >= {place for place, letter in enumerate(text) if not letter.isspace()}
    assert [start for start, _, _ in found] == sorted({start for start, _, _ in found})
    assert all(0 <= start < end <= len(text) and text[start:end].strip() == text[start:end] for start, end, _ in found)
    kept = [part for part in fitting if {"table": "tables", "code": "code"}.get(part.kind) in keep]
    if words is not None and not kept:
        assert all(len(text[start:end].split()) <= words for start, end, _ in found)


@given(st.text(st.sampled_from("ab \n"), max_size=60), st.integers(1, 8), st.integers(0, 7))
def test_without_structure_windows_are_those_of_words(text: str, words: int, overlap: int) -> None:
    chunking = Chunking(words=words, overlap=min(overlap, words - 1))
    found = Cutting(words, chunking.overlap, ["headings"], ["tables"]).passages(text, ())
    assert [(start, end) for start, end, _ in found] == list(chunking.windows(text))


def test_a_window_shares_less_where_the_next_piece_would_not_fit() -> None:
    assert list(windows([1, 1, 1, 5, 1], 6, 2)) == [(0, 3), (2, 4), (4, 5)]
    assert list(windows([1, 9, 1], 4, 3)) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"at": "heading"}, "headings"),
        ({"at": ["pages", "pages"]}, "pages is named twice"),
        ({"keep": "tables", "words": None, "overlap": 0}, "name words, or leave keep away"),
    ],
)
def test_a_cut_that_cannot_be_is_refused(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Chunking(**given_)


def test_structure_is_in_the_key_of_what_is_cut_by_it_and_of_nothing_else() -> None:
    assert Chunking().settings() == {"words": 80, "overlap": 10} == Chunking(at=(), keep=[]).model_dump()
    assert Chunking(at=["pages", "headings"]).settings() == Chunking(at=["headings", "pages"]).settings()
    assert Chunking(words=200, overlap=20, at="headings", keep=["tables"]).label == "200-20 at headings, tables kept"


def experiment(place: Path, chunking: str) -> Path:
    (place / "texts").mkdir(exist_ok=True)
    (place / "texts" / "page.md").write_text(PAGE)
    (place / "texts" / "plain.txt").write_text("Bells ring at noon. They are made of bronze.")
    asked = {"Oil burns long": "What does oil do?", "Mills grind rye.": "What do mills grind?", "at noon": "When do bells ring?"}
    rows = [
        {"id": str(n), "split": "dev" if n % 2 else "test", "question": question, "answers": [], "evidence": evidence}
        for n, (evidence, question) in enumerate(asked.items())
    ]
    (place / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "e.yaml").write_text(
        "experiment: e\ndataset: {folder: texts, questions: q.jsonl}\ncomponents: {retrievers: {bm25: {kind: bm25}}}\n"
        f"axes: {{chunking: {chunking}, retriever: [bm25]}}\nmetrics: {{rankings: [recall@20w]}}\n"
    )
    return place / "e.yaml"


def run(*words: object) -> Any:
    return CliRunner().invoke(cli.app, [*map(str, words)])


def test_an_experiment_compares_chunkings_by_structure_with_those_by_words(tmp_path: Path) -> None:
    file = experiment(tmp_path, "[{words: 8, overlap: 2}, {words: 8, overlap: 2, at: [headings], keep: [tables, code]}]")
    done = run("run", file, "--runs", tmp_path / "runs", "--no-notebooks")
    assert done.exit_code == 0, (done.output, done.exception)
    folder = Path(done.output.splitlines()[-1].removeprefix("run: "))
    config = (folder / "config.yaml").read_text()
    assert "at:" in config and config.count("keep:") == 1, "what other chunkings leave out is not written"
    assert "8-2 at headings, code and tables kept" in (folder / "configurations.csv").read_text()
    passages = [json.loads(line) for line in (folder / "passages.jsonl").read_text().splitlines()]
    assert {"Lamps", "Lamps > Oil", "Lamps > Mills"} < {one["title"] for one in passages}
    plan = run("plan", folder / "config.yaml", "--runs", tmp_path / "runs")
    assert plan.exit_code == 0, "the file of a run can be run again"


def test_what_stands_in_no_document_is_refused_with_what_does(tmp_path: Path) -> None:
    done = run("plan", experiment(tmp_path, "[{at: [pages]}]"), "--runs", tmp_path / "runs")
    assert isinstance(done.exception, InputError)
    assert "chunking: at: no document has pages; there are headings; docs/documents.md says" in str(done.exception)


def outlined(*entries: tuple[str, int, int | None]) -> bytes:
    """A PDF of three pages with an outline: title, page, and the number of the entry above."""
    lamp = "1. The lamp\nThe mill is named here in a line.\nOil burns."
    pages = made_files.pdf([lamp, "The mill\nRye is ground.", "Bells and\nwhistles\nRing."])
    writer = PdfWriter(PdfReader(io.BytesIO(pages)))
    made: list[Any] = []
    for title, page, above in entries:
        made.append(writer.add_outline_item(title=title, page_number=page, parent=None if above is None else made[above]))
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def test_the_outline_of_a_pdf_gives_its_headings(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(
        outlined(("The lamp", 0, None), ("The Mill", 1, 0), ("3 Bells and whistles", 2, None), ("Nowhere", 2, None))
    )
    (found,) = parsed(tmp_path / "a.pdf", Pdf(), 10)
    document = found.document
    headings = [(e.level, e.label, document.text[e.start : e.end]) for e in document.structure if e.kind == "heading"]
    assert headings == [
        (1, "The lamp", "1. The lamp"),
        (2, "The Mill", "The mill"),
        (1, "3 Bells and whistles", "Bells and\nwhistles"),
    ]
    assert [e.label for e in document.structure if e.kind == "page"] == ["1", "2", "3"]
    assert list(document.structure) == sorted(document.structure, key=lambda e: (e.start, -e.end))


def test_words_inside_a_line_are_no_heading_of_a_pdf(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(outlined(("mill is named", 0, None), ("Oil", 0, None)))
    (found,) = parsed(tmp_path / "a.pdf", Pdf(), 10)
    assert [e.label for e in found.document.structure if e.kind == "heading"] == ["Oil"]


def test_a_pdf_is_cut_at_the_headings_of_its_outline(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.pdf").write_bytes(outlined(("The lamp", 0, None), ("The mill", 1, None)))
    row = {"id": "1", "split": "dev", "question": "What burns?", "answers": [], "evidence": "Oil burns."}
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    dataset = DatasetSettings(folder=tmp_path / "texts", questions=tmp_path / "q.jsonl").load()
    rows = Chunking(words=None, at="headings").cut(dataset.documents, dataset.structure).to_pylist()
    assert [row["text"].split("\n")[0] for row in rows] == ["1. The lamp", "The mill"]


TEXT = (
    "Dr. Ada lit the lamp at 3.15 p.m. in May. It burned! Did it smell?\n\n"
    "Oil was dear, and\ngas was cheap. Grüße 🙂 aus Bonn. 北京市朝阳区。好的。"
)


def texts(text: str, **settings: Any) -> list[str]:
    return [found for _, found in cut(text, **settings)]


def test_passages_of_sentences_end_where_sentences_do() -> None:
    assert texts(TEXT, sentences=2, overlap=1) == [
        "Dr. Ada lit the lamp at 3.15 p.m. in May. It burned!",
        "It burned! Did it smell?",
        "Did it smell?\n\nOil was dear, and\ngas was cheap.",
        "Oil was dear, and\ngas was cheap. Grüße 🙂 aus Bonn.",
        "Grüße 🙂 aus Bonn. 北京市朝阳区。",
        "北京市朝阳区。好的。",
    ]
    assert texts("Am 3. Mai kam er. Abs. 2 gilt.", sentences=1, language="de") == ["Am 3. Mai kam er.", "Abs. 2 gilt."]
    assert texts(PAGE, sentences=2, at="headings", keep="tables")[1].endswith("| 1823 | 14    |")


def test_passages_of_words_may_keep_sentences_but_none_that_is_too_long() -> None:
    assert texts("One two three. Four five. Six seven eight nine ten. Eleven.", words=5, overlap=2, keep="sentences") == [
        "One two three. Four five.",
        "Six seven eight nine ten.",
        "Eleven.",
    ]
    assert texts("One two. Three four five six. Seven.", words=3, overlap=0, keep="sentences") == [
        "One two. Three",
        "four five six.",
        "Seven.",
    ]


def test_a_table_is_not_one_sentence() -> None:
    rows = [f"row {number} of cells " + "12 " * 20 for number in range(40)]
    assert texts("\n".join(rows), sentences=1) == [row.strip() for row in rows]
    long = "word " * 1000
    found = texts(long, sentences=1)
    assert all(len(one) <= 1000 for one in found) and " ".join(found) == long.strip()
    assert texts("x" * 3000, sentences=1) == ["x" * 3000], "a word is never cut"


def test_recursive_passages_end_at_the_strongest_break_that_fits() -> None:
    text = "# A\n\none two. three\nfour\n\nfive six\n\n# B\n\nseven eight nine"
    assert texts(text, recursive=50) == [text]
    assert texts(text, recursive=7) == ["# A\n\none two. three\nfour", "five six", "# B\n\nseven eight nine"]
    assert texts("one two. three four\nfive six seven", recursive=4) == ["one two. three four", "five six seven"]
    assert texts("one two. three four", recursive=3) == ["one two.", "three four"]
    assert texts("page one\fpage two\n\nis long", recursive=5) == ["page one", "page two\n\nis long"]
    code = "def a():\n    x = 1\n    y = 2\n\ndef b():\n    z = 3\n"
    assert texts(code, recursive=9) == ["def a():\n    x = 1\n    y = 2", "def b():\n    z = 3"]
    assert texts(code, recursive=5)[:2] == ["def a():\n    x = 1", "y = 2"]
    deep = "\n".join(" " * depth + "a" for depth in range(3000))
    assert len(texts(deep, recursive=2)) >= 1500


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.sampled_from("ab.A!?。 \n\t\f好é🙂#\u2028"), max_size=80),
    parts_of,
    st.sampled_from(["sentences", "recursive", "words"]),
    st.integers(1, 9),
    st.integers(0, 8),
    st.sets(st.sampled_from(["headings", "pages"])),
    st.sets(st.sampled_from(["tables", "code"])),
)
def test_passages_of_every_size_are_exact_pieces_in_order_that_leave_nothing_out(
    text: str, parts: list[Part], size: str, most: int, overlap: int, at: set[str], keep: set[str]
) -> None:
    fitting = sorted((part for part in parts if part.start <= part.end <= len(text)), key=lambda part: (part.start, -part.end))
    shared = 0 if size == "recursive" else min(overlap, most - 1)
    kept = {*keep, "sentences"} if size == "words" else keep
    chunking = Chunking(**{size: most, "overlap": shared, "at": sorted(at), "keep": sorted(kept)})
    documents, structure_ = tables(text, fitting)
    found = chunking.cut(documents, structure_).to_pylist()
    assert found == chunking.cut(documents, structure_).to_pylist()
    assert all(text[row["start"] : row["end"]] == row["text"] == row["text"].strip() for row in found)
    assert [row["start"] for row in found] == sorted({row["start"] for row in found})
    covered = {place for row in found for place in range(row["start"], row["end"])}
    assert covered >= {place for place, letter in enumerate(text) if not letter.isspace()}
    if size != "sentences" and not any({"table": "tables", "code": "code"}.get(part.kind) in keep for part in fitting):
        assert all(len(row["text"].split()) <= most for row in found)
    if size == "recursive":
        assert all(one["end"] <= other["start"] for one, other in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"sentences": 2, "words": 80}, "a passage has one size, and words and sentences are given"),
        ({"sentences": 2, "overlap": 2}, "overlap of 2 sentences must be shorter"),
        ({"recursive": 200, "overlap": 20}, "share nothing; leave overlap away"),
        ({"sentences": 2, "keep": "sentences"}, "leave sentences out of keep"),
        ({"words": 80, "language": "de"}, "language is that of sentences"),
        ({"sentences": 0}, "greater than or equal to 1"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Chunking(**given_)


def test_keys_of_chunkings_hold_what_they_use_and_no_more() -> None:
    assert Chunking().definition()["libraries"] == {} == Chunking(recursive=200).definition()["libraries"]
    assert list(Chunking(sentences=5).definition()["libraries"]) == ["sentencex"]
    assert Chunking(sentences=5, overlap=1).settings() == {"words": None, "overlap": 1, "sentences": 5}
    assert Chunking(sentences=5, language="de").settings()["language"] == "de"
    assert Chunking(recursive=200).settings() == {"words": None, "overlap": 0, "recursive": 200}
    for one in (Chunking(sentences=5, overlap=1), Chunking(recursive=200), Chunking(words=9, overlap=0, keep="sentences")):
        assert Chunking(**one.settings()) == one
    assert Chunking(sentences=5, overlap=1, at="pages").label == "5-1 sentences at pages"
    assert Chunking(recursive=200).label == "200 recursive"


def test_without_the_library_for_sentences_an_experiment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)
    done = run("plan", experiment(tmp_path, "[{sentences: 2}]"), "--runs", tmp_path / "runs")
    assert isinstance(done.exception, InputError) and "rag-workbench[documents]" in str(done.exception)


def test_an_experiment_compares_sentences_and_recursive_passages_with_words(tmp_path: Path) -> None:
    file = experiment(tmp_path, "[{words: 8, overlap: 2}, {sentences: 2, overlap: 1}, {recursive: 8, at: headings}]")
    done = run("run", file, "--runs", tmp_path / "runs", "--no-notebooks")
    assert done.exit_code == 0, (done.output, done.exception)
    folder = Path(done.output.splitlines()[-1].removeprefix("run: "))
    table = (folder / "configurations.csv").read_text()
    assert "2-1 sentences" in table and "8 recursive at headings" in table
    plan = run("plan", folder / "config.yaml", "--runs", tmp_path / "runs")
    assert plan.exit_code == 0 and "report: 0 stages" in plan.output, plan.output
