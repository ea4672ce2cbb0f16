"""Odd files and questions that researchers really have: each is read right, or refused with the way out."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pypdf import PdfReader, PdfWriter, Transformation
from pypdf.generic import ArrayObject, DictionaryObject, FloatObject, NameObject, TextStringObject

from benchmarks import made_files
from workbench.data.dataset import Dataset
from workbench.data.documents.kinds import choices
from workbench.data.documents.parser import Document, UnreadError
from workbench.data.documents.worker import parsed
from workbench.errors import InputError
from workbench.experiment.checking import described
from workbench.experiment.config import DatasetSettings

QUESTION = {"id": "1", "split": "dev", "question": "What do cats do?", "answers": ["purr"], "evidence": "Cats purr."}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def lines(path: Path, *rows: Any) -> Path:
    return written(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def folder(place: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in {"cats.txt": "Cats purr.", **files}.items():
        written(place / "texts" / name, content)
    return place / "texts"


def read(place: Path, files: Mapping[str, str | bytes], *questions: dict[str, Any], **settings: Any) -> Dataset:
    asked = lines(place / "q.jsonl", *(questions or (QUESTION,)))
    return DatasetSettings(folder=folder(place, files), questions=asked, **settings).load()


def unread(dataset: Dataset) -> dict[str, str]:
    return {row["file"]: f"{row['reason']}: {row['said']}" for row in dataset.unread.to_pylist()}


def texts(dataset: Dataset) -> dict[str, str]:
    return dict(zip(dataset.documents["id"].to_pylist(), dataset.documents["text"].to_pylist(), strict=True))


def parse(path: Path, parser: Any = None) -> list[Document]:
    ending = path.suffix.lstrip(".")
    choice = choices({} if parser is None else {ending: parser})[ending]
    assert choice is not None
    return [one.document for one in parsed(path, choice.parser, 10)]


# --- what lies in a folder ------------------------------------------------------------------------------------------------

OTHERS = {
    "a.zip": "no parser: it is an archive; unpack it into the folder",
    "a.tar.gz": "no parser: it is an archive; unpack it into the folder",
    "scan.jpeg": "no parser: it is a picture; recognise its text first (OCR)",
    "old.doc": "no parser: it is of the format before 2007; save it in the newer one",
    "table.xlsx": "no parser: save each of its sheets as CSV",
    "letter.odt": "no parser: save it as .docx or .pdf",
    "notes.gdoc": "no parser: it leads to a document elsewhere; save the document itself",
    "mail.eml": "no parser: save it as .html or .txt",
    "talk.mp4": "no parser: write down what is said in it",
    "run.log": "no parser: its name ends in .log, which no parser reads unless it is named; if it is text, write `{log: text}` "
    "below dataset.parsers",
    "README": "no parser: its name has no ending, which would say what reads it; give it one, such as .txt",
    "cloud.pdf": "empty: it has 0 bytes; one that lies in a cloud alone has to be fetched first",
}


def test_what_no_parser_reads_is_listed_with_what_can_be_done(tmp_path: Path) -> None:
    found = read(tmp_path, {name: b"" if name == "cloud.pdf" else b"\x01\x02 x" for name in OTHERS})
    assert unread(found) == OTHERS


def test_what_programs_leave_beside_documents_is_hidden(tmp_path: Path) -> None:
    found = read(tmp_path, {"~$cats.docx": b"\x05ann", ".DS_Store": b"\0", ".far.pdf.icloud": b"x", "__MACOSX/._a.pdf": b"\0"})
    assert unread(found) == {}
    assert found.notes == (
        "4 hidden files left out",
        "1 of them stands for a file that is in iCloud alone; fetch first: '.far.pdf.icloud'",
    )


ODD_NAMES = [
    *("two\nlines.txt", "tab\there.txt", "\u202egnp.txt", "zero\u200bwidth.txt"),
    *("a b  c.txt", "ü#1.txt", "100%.txt", "'q\".txt"),
]


def test_odd_names_are_ids_as_they_are(tmp_path: Path) -> None:
    found = read(tmp_path, {name: f"Text of {number}." for number, name in enumerate(ODD_NAMES)})
    assert {*ODD_NAMES} < {*texts(found)}


def test_odd_names_are_shown_in_one_line_from_left_to_right(tmp_path: Path) -> None:
    found = read(tmp_path, {name.replace(".txt", ".xyz"): "x" for name in ODD_NAMES})
    shown = [line for line in described(found) if line.startswith("  not read:")]
    assert len(shown) == len(ODD_NAMES)
    assert not any(sign in line for line in shown for sign in "\n\t\u202e\u200b")
    assert any(r"two\nlines.xyz" in line for line in shown) and any(r"\u202egnp.xyz" in line for line in shown)


def test_a_document_of_an_odd_name_is_named_by_evidence(tmp_path: Path) -> None:
    asked = QUESTION | {"evidence": {"text": "Dogs bark.", "document": "two\nlines.txt"}}
    found = read(tmp_path, {"two\nlines.txt": "Dogs bark.", "b.txt": "Dogs bark."}, asked)
    assert [place.doc_id for piece in found.judged("dev").spans["1"] for place in piece] == ["two\nlines.txt"]


def test_names_that_differ_by_case_or_ending_alone_are_two_documents(tmp_path: Path) -> None:
    found = read(tmp_path, {"Cats.txt": "Other cats.", "cats.md": "More cats."})
    assert set(texts(found)) == {"cats.txt", "Cats.txt", "cats.md"}


def test_a_folder_named_as_a_file_is_walked_into(tmp_path: Path) -> None:
    assert "book.pdf/one.txt" in texts(read(tmp_path, {"book.pdf/one.txt": "A page."}))


def test_a_long_line_is_a_text_like_any_other(tmp_path: Path) -> None:
    found = read(tmp_path, {"long.txt": "word " * 400_000 + "end", "long.md": "# " + "x" * 100_000})
    assert len(texts(found)["long.txt"]) == 2_000_003 and len(found.unread) == 0


def test_a_disk_that_takes_nothing_is_no_fault_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(written(tmp_path / "file", "x")))
    for files in ({}, {"big.txt": "x" * 1_100_000}):
        with pytest.raises(
            InputError, match=r"what was read cannot be kept in .*file/documents: .*set WORKBENCH_HOME to a folder that can"
        ):
            read(tmp_path, files)


# --- PDF ------------------------------------------------------------------------------------------------------------------


def changed(content: bytes, change: Any) -> bytes:
    writer = PdfWriter(PdfReader(io.BytesIO(content)))
    change(writer)
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


def rotate(writer: PdfWriter, turn: int, drawn: int) -> None:
    """Turns what is drawn on each page around its middle, and then how the page is shown."""
    for page in writer.pages:
        page.add_transformation(Transformation().translate(-306, -396).rotate(drawn).translate(396, 396))
        page.rotate(turn)


def test_a_rotated_page_is_read_as_an_upright_one(tmp_path: Path) -> None:
    pages = made_files.pdf(["Cats purr.\nDogs bark.", "Mice squeak."])
    for turn in (0, 90, 180, 270):
        for drawn in (0, 90, 180, 270):
            turned = changed(pages, lambda writer, turn=turn, drawn=drawn: rotate(writer, turn, drawn))
            (found,) = parse(written(tmp_path / "a.pdf", turned))
            assert found.text == "Cats purr.\nDogs bark.\fMice squeak.", (turn, drawn)


def test_a_form_is_read_and_what_is_filled_in_is_told_of(tmp_path: Path) -> None:
    def add_field(writer: PdfWriter) -> None:
        field = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Annot"),
                NameObject("/Subtype"): NameObject("/Widget"),
                NameObject("/FT"): NameObject("/Tx"),
                NameObject("/T"): TextStringObject("name"),
                NameObject("/V"): TextStringObject("Minka"),
                NameObject("/Rect"): ArrayObject([FloatObject(n) for n in (50, 50, 200, 70)]),
            }
        )
        there = writer._add_object(field)
        writer.pages[0][NameObject("/Annots")] = ArrayObject([there])
        writer._root_object[NameObject("/AcroForm")] = DictionaryObject({NameObject("/Fields"): ArrayObject([there])})

    (found,) = parse(written(tmp_path / "a.pdf", changed(made_files.pdf(["Name of the cat:"]), add_field)))
    assert found.text == "Name of the cat:"
    assert found.notes == ("it is a form, and what is filled in is not read; print it to a PDF to have that as text",)


def test_evidence_may_lie_on_two_pages(tmp_path: Path) -> None:
    pages = made_files.pdf(["Cats purr when they", "are content.\nDogs bark."])
    for page in (1, 2):
        asked = QUESTION | {"evidence": {"text": "Cats purr when they are content.", "document": "a.pdf", "page": page}}
        found = read(tmp_path, {"a.pdf": pages}, asked)
        assert len(found.judged("dev").spans["1"][0]) == 1 and not found.notes


def test_evidence_parted_by_what_stands_at_the_foot_of_a_page_is_named_as_two_pieces(tmp_path: Path) -> None:
    pages = made_files.pdf(["Cats purr when they\nPage 1 of 2", "are content."])
    whole = QUESTION | {"evidence": "Cats purr when they are content."}
    with pytest.raises(InputError, match=r"nearest is 'a\.pdf', page 1, characters 0 to"):
        read(tmp_path, {"a.pdf": pages}, whole)
    found = read(tmp_path, {"a.pdf": pages}, QUESTION | {"evidence": ["Cats purr when they", "are content."]})
    assert len(found.judged("dev").spans["1"]) == 2


def test_a_pdf_that_is_padded_is_whole_and_one_that_is_cut_is_not(tmp_path: Path) -> None:
    whole = made_files.pdf(["Cats purr."], title="Untitled")
    (found,) = parse(written(tmp_path / "a.pdf", whole + b"\0" * 100_000 + b"\r\n"))
    assert (found.text, found.title) == ("Cats purr.", "Cats purr.")
    with pytest.raises(UnreadError, match="truncated"):
        parse(written(tmp_path / "b.pdf", whole[:-8] + b"\0" * 100_000))


# --- text and pages -------------------------------------------------------------------------------------------------------


def test_pieces_of_another_encoding_leave_the_rest_as_it_is(tmp_path: Path) -> None:
    mixed = "Größe, Höhe, Tür und Öl. ".encode() + "für “alle”".encode("cp1252")
    (found,) = parse(written(tmp_path / "a.txt", mixed))
    assert found.text == "Größe, Höhe, Tür und Öl. für “alle”"
    assert found.notes == ("3 bytes in it are no UTF-8, and read as Windows-1252",)


def test_what_stands_in_a_form_of_a_page_is_parted(tmp_path: Path) -> None:
    page = "<form><label>Name</label><input><textarea>said</textarea><button>Go</button></form>"
    assert parse(written(tmp_path / "a.html", page))[0].text == "Name said Go"


# --- Word, books, notebooks -----------------------------------------------------------------------------------------------


def test_tracked_changes_are_read_as_accepted_and_comments_are_left_out(tmp_path: Path) -> None:
    body = (
        '<w:p><w:r><w:t xml:space="preserve">Cats </w:t></w:r><w:del w:id="1" w:author="a"><w:r><w:delText>bark</w:delText></w:r>'
        '</w:del><w:ins w:id="2" w:author="a"><w:r><w:t>purr</w:t></w:r></w:ins>'
        '<w:commentRangeStart w:id="3"/><w:r><w:t>.</w:t></w:r><w:commentRangeEnd w:id="3"/>'
        '<w:r><w:commentReference w:id="3"/></w:r></w:p>'
    )
    (found,) = parse(made_files.docx(tmp_path / "a.docx", body))
    assert found.text == "Cats purr."


def test_equations_of_a_word_document_are_told_of(tmp_path: Path) -> None:
    math = "http://schemas.openxmlformats.org/officeDocument/2006/math"
    body = f'<w:p><m:oMath xmlns:m="{math}"><m:r><m:t>E</m:t></m:r></m:oMath><w:r><w:t>is energy.</w:t></w:r></w:p>'
    (found,) = parse(made_files.docx(tmp_path / "a.docx", body))
    assert (found.text, found.notes) == ("is energy.", ("it has equations, which are not read",))


CHAPTER = "<html><body><p>Chapter {}.</p></body></html>"


def test_a_book_is_read_without_the_chapters_that_it_lacks(tmp_path: Path) -> None:
    chapters = {f"{n}.xhtml": CHAPTER.format(n) for n in (1, 2, 3)}
    whole = made_files.epub(tmp_path / "a.epub", chapters, ["1.xhtml", "2.xhtml", "nowhere", "3.xhtml"])
    with zipfile.ZipFile(whole) as file:
        parts = {name: file.read(name) for name in file.namelist() if name != "book/2.xhtml"}
    (found,) = parse(made_files.archive(tmp_path / "b.epub", parts))
    assert found.text == "Chapter 1.\fChapter 3."
    assert found.notes == ("2 chapters that its spine names are not in it, and the others are read",)
    assert [(e.kind, e.label) for e in found.structure if e.kind == "chapter"] == [("chapter", "1"), ("chapter", "3")]


def test_a_book_whose_spine_names_nothing_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UnreadError, match="empty: its spine names no chapter"):
        parse(made_files.epub(tmp_path / "a.epub", {"1.xhtml": CHAPTER}, []))
    with pytest.raises(UnreadError, match="its spine names no chapter; 1 chapter that its spine names is not in it"):
        parse(made_files.epub(tmp_path / "b.epub", {"1.xhtml": CHAPTER}, ["other"]))


def test_a_notebook_of_the_old_format_is_read_as_one_of_the_new(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Feeding\n", "cats"]},
        {"cell_type": "markdown", "source": "They purr."},
        {"cell_type": "code", "language": "python", "input": ["x = 1\n", "y = 2"], "outputs": [{"text": "fed"}]},
    ]
    old = {"nbformat": 3, "metadata": {"name": ""}, "worksheets": [{"cells": cells[:2]}, {"cells": cells[2:]}]}
    (found,) = parse(written(tmp_path / "a.ipynb", json.dumps(old)))
    assert (found.title, found.text) == ("Feeding cats", "## Feeding cats\n\nThey purr.\n\nx = 1\ny = 2")
    assert [(e.kind, e.level, e.label, found.text[e.start : e.end]) for e in found.structure if e.kind != "cell"] == [
        ("heading", 2, "Feeding cats", "## Feeding cats"),
        ("code", 0, "python", "x = 1\ny = 2"),
    ]


@pytest.mark.parametrize("other", [{"nbformat": 2}, {"nbformat": 3}, {"nbformat": 3, "worksheets": [1]}, {"nbformat": 4}])
def test_a_notebook_of_another_format_is_refused_with_the_way_out(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(UnreadError, match=r"a notebook of format \d; allowed: 3 or 4; open and save it in Jupyter"):
        parse(written(tmp_path / "a.ipynb", json.dumps(other)))


# --- tables of documents --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "parser", "wanted"),
    [
        ("\ufeffid,text\n1,Cats purr.\n", {"kind": "csv", "text": "text"}, ["Cats purr."]),
        ("id;text\n1;Cats, dogs.\n", {"kind": "csv", "text": "text", "separator": ";"}, ["Cats, dogs."]),
        ("sep=;\nid;text\n1;Cats.\n", {"kind": "csv", "text": "text", "separator": ";"}, ["Cats."]),
        ('id,text\r\n1,"Cats\r\npurr."\r\n\r\n', {"kind": "csv", "text": "text"}, ["Cats\npurr."]),
        ("text\nCats\n\nDogs\n", {"kind": "csv", "text": "text"}, ["Cats", "Dogs"]),
    ],
)
def test_odd_tables_are_read(content: str, parser: dict[str, Any], wanted: list[str], tmp_path: Path) -> None:
    assert [one.text for one in parse(written(tmp_path / "a.csv", content), parser)] == wanted


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,text\n1,a,b\n", "damaged: line 2 has 3 cells, the first row 2"),
        ("id,text\n1\n", "damaged: line 2 has 1 cell, the first row 2"),
        ("id;text\n1;Cats.\n", "names of its columns are parted by ';'; write `separator: \";\"` beside `kind: csv`"),
        ("id,body\n1,Cats.\n", "no such column: row 1 has no column 'text'; there are 'id', 'body'"),
        ("id,id\n1,Cats.\n", "damaged: two columns have one name: 'id', 'id'"),
        ('id,text\n1,"Cats\n', "damaged: line 2: unexpected end of data"),
        ("id,text\n", "empty: no row has a text in 'text'"),
    ],
)
def test_damaged_tables_are_refused_with_their_line(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadError) as told:
        parse(written(tmp_path / "a.csv", content), {"kind": "csv", "text": "text"})
    assert said in str(told.value)


def test_nested_columns_are_texts_where_they_can_be(tmp_path: Path) -> None:
    rows = [{"text": ["Cats purr.", "Dogs bark."], "about": {"page": 1}, "year": 1822, "raw": b"\x00"}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (found,) = parse(tmp_path / "a.parquet", {"kind": "parquet", "text": ["text", "about", "year"]})
    assert found.text == 'Cats purr.\nDogs bark.\n\n{"page": 1}\n\n1822'
    with pytest.raises(UnreadError, match="row 1 has bytes in the column 'raw', which are no text; name another one"):
        parse(tmp_path / "a.parquet", {"kind": "parquet", "text": "raw"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "a"}]\n', "line 1 is no object; each line holds one by itself"),
        ('{"text": "a"}\n{"text": "b"\n', "line 2: not JSON"),
        ('{"text": "a", "text": "b"}\n', "line 1: the key 'text' is given twice"),
    ],
)
def test_damaged_lines_of_json_are_refused_with_their_number(content: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadError) as told:
        parse(written(tmp_path / "a.jsonl", content), {"kind": "jsonl", "text": "text"})
    assert said in str(told.value)


def test_a_separator_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"dataset\.parsers\.csv.*separator"):
        choices({"csv": {"kind": "csv", "text": "text", "separator": "::"}})


# --- questions ------------------------------------------------------------------------------------------------------------


def test_ids_that_are_numbers_in_one_file_are_texts_in_another(tmp_path: Path) -> None:
    lines(tmp_path / "set" / "corpus.jsonl", *({"_id": n, "text": f"Stone {n}."} for n in range(3)))
    lines(tmp_path / "set" / "queries.jsonl", {"_id": "7", "text": "Which?"}, {"_id": 8, "text": "What?"})
    written(tmp_path / "set" / "qrels" / "dev.tsv", "query-id\tcorpus-id\tscore\n7\t1\t1\n")
    written(tmp_path / "set" / "qrels" / "test.tsv", "8\t2\t-1\n8\t0\t2\n")
    found = DatasetSettings(beir=tmp_path / "set").load()
    assert found.judged("dev").documents == {"7": {"1": 1}}
    assert found.judged("test").documents == {"8": {"0": 2}}, "a grade below 0 says that a document is not relevant"


@pytest.mark.parametrize(
    ("qrels", "said"),
    [
        ("", r"dev\.tsv has no grade above 0"),
        ("query-id\tcorpus-id\tscore\n", r"dev\.tsv has no grade above 0"),
        ("7\t1\t-1\n", r"dev\.tsv has no grade above 0"),
        ("7\t1\t0.5\n", r"dev\.tsv, line 1: received '7\\t1\\t0\.5'; allowed: query-id TAB corpus-id TAB whole number"),
        ("7\t1\t1\n7\t1\t2\n", r"line 2: document '1' has the grade 2 for query '7', and in line 1 the grade 1; give one"),
    ],
)
def test_judgements_that_say_nothing_are_refused(qrels: str, said: str, tmp_path: Path) -> None:
    lines(tmp_path / "set" / "corpus.jsonl", {"_id": 1, "text": "Stone."})
    lines(tmp_path / "set" / "queries.jsonl", {"_id": 7, "text": "Which?"})
    written(tmp_path / "set" / "qrels" / "dev.tsv", qrels)
    with pytest.raises(InputError, match=said):
        DatasetSettings(beir=tmp_path / "set").load()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "q.csv",
            "question;answer|x\nWhat?;purr|\n",
            r"q\.csv, line 1: the columns are parted by ';' and '\|'; part them by commas",
        ),
        ("q.csv", "question,answer\nWhat?,purr,x\n", r"q\.csv, line 2 has 3 fields, the header 2"),
        ("q.csv", "question,answer\n,purr\n", r"q\.csv, line 2: question: received \"\"; allowed: a text that is not empty"),
        ("q.csv", "question,Question\na,b\n", r"the columns 'Question' and 'question' may both be the question"),
        (
            "q.csv",
            "question,page,document\nWhat?,iv,cats.txt\n",
            r"line 2: page: received 'iv'; allowed: the number of a page, counted from 1",
        ),
        ("q.csv", "question,split\nWhat?,holdout\n", r"line 2.*unknown split 'holdout'"),
        ("q.xlsx", "PK\x03\x04", r"q\.xlsx is a zip archive, as Excel's \.xlsx is; unpack it, or export what is in it"),
        ("q.csv", "PK\x03\x04", r"q\.csv.*as Excel's \.xlsx is"),
        ("q.json", "[1, 2]", r"q\.json, item 1: received 1; allowed: an object"),
        ("q.json", '{"a": 1', r"q\.json: not JSON"),
        ("q.jsonl.gz", b"\x1f\x8b\x08", r"q\.jsonl\.gz is no whole gzip file"),
    ],
)
def test_odd_files_of_questions_are_refused_with_their_line(name: str, content: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        DatasetSettings(folder=folder(tmp_path, {}), questions=written(tmp_path / name, content)).load()


def test_questions_written_by_excel_and_pandas_are_read(tmp_path: Path) -> None:
    rows = ["Question,Expected Answer,Evidence Text", "What do cats do?,purr,Cats purr."]
    rows.append("Who purrs?,\"['cats', 'Cats']\",Cats purr.")
    content = "\ufeff" + "".join(f"{row}\r\n" for row in rows)
    packed = tmp_path / "q.csv.gz"
    packed.write_bytes(gzip.compress(content.encode()))
    for file in (written(tmp_path / "q.csv", content), packed):
        found = DatasetSettings(folder=folder(tmp_path, {"dogs.txt": "Dogs bark."}), questions=file, splits={"dev": 1.0}).load()
        assert [row["answers"] for row in found.queries.to_pylist()] == [["purr"], ["cats", "Cats"]]


def test_a_table_that_pandas_wrote_as_json_is_read_by_its_rows(tmp_path: Path) -> None:
    columns = {"question": ["What do cats do?", "Who purrs?"], "answer": ["purr", "cats"], "evidence": ["Cats purr."] * 2}
    by_number = {name: {str(number): value for number, value in enumerate(values)} for name, values in columns.items()}
    asked = DatasetSettings(
        folder=folder(tmp_path, {"dogs.txt": "Dogs bark."}),
        questions=written(tmp_path / "a.json", json.dumps(by_number)),
        splits={"dev": 1.0},
    )
    assert [row["text"] for row in asked.load().queries.to_pylist()] == columns["question"]
    with pytest.raises(InputError, match=r"a list for each of 'question', 'answer', 'evidence'; allowed: a list of objects"):
        DatasetSettings(folder=tmp_path / "texts", questions=written(tmp_path / "b.json", json.dumps(columns))).load()


def test_what_pandas_writes_for_nothing_is_no_answer(tmp_path: Path) -> None:
    rows = ['{"question": "What?", "answer": NaN, "evidence": "Cats purr."}', '{"question": "Who?", "evidence": "Cats purr."}']
    asked = written(tmp_path / "q.jsonl", "\n".join(rows))
    found = DatasetSettings(folder=folder(tmp_path, {"dogs.txt": "Dogs bark."}), questions=asked, splits={"dev": 1.0}).load()
    assert [row["answers"] for row in found.queries.to_pylist()] == [None, None]


def test_a_question_in_two_splits_is_a_problem_that_is_named(tmp_path: Path) -> None:
    from workbench.data.checks import findings

    rows = [QUESTION | {"id": str(n), "split": split} for n, split in enumerate(("train", "dev", "test"))]
    found = read(tmp_path, {}, *rows)
    said = [one.said for one in findings(found) if one.serious]
    assert sum("asked in" in one for one in said) == 3


LISTED = """
import json, os, sys
from pathlib import Path
place, user = Path(sys.argv[1]), int(sys.argv[2])
from workbench.data.sources import text_folder
if user:
    text_folder(place / "others", place / "q.jsonl")  # loads the modules, which may be root's alone
    os.environ["WORKBENCH_HOME"] = str(place / "home")
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
print(json.dumps(text_folder(place / "texts", place / "q.jsonl").unread.to_pylist()))
"""
NOBODY = 65534


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
def test_a_file_that_may_not_be_opened_is_listed() -> None:
    """Whoever is root opens all files, so a process without these rights reads the folder."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:  # a place of pytest's own is closed to others
        place = Path(name)
        secret = folder(place, {"secret.txt": "x"}) / "secret.txt"
        lines(place / "q.jsonl", QUESTION)
        written(place / "others" / "cats.txt", "Cats purr.")
        (place / "home").mkdir()
        if root:
            for path in (place, *place.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        secret.chmod(0)
        command = [sys.executable, "-c", LISTED, name, str(NOBODY if root else 0)]
        environment = os.environ | {"WORKBENCH_HOME": str(place / ("root" if root else "home"))}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"file": "secret.txt", "reason": "cannot be opened", "said": "permission denied"}]
