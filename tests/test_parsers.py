"""Every parser gives the text of its files with exact places of what stands in it, and says why a file is not read."""

from __future__ import annotations

import codecs
import csv
import io
import json
import shlex
import sys
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pptx
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from pypdf import PdfReader, PdfWriter

from benchmarks import made_files
from workbench.component import load_class
from workbench.data import sources
from workbench.data.dataset import Dataset
from workbench.data.documents.blocks import BLOCK, LINE, SPACE, Blocks
from workbench.data.documents.kinds import BUILTIN, choices
from workbench.data.documents.parser import PARSER, Document, Element, Parser, UnreadError, checked
from workbench.data.documents.worker import parsed
from workbench.errors import InputError

QUESTION = {"id": "1", "split": "dev", "question": "What do cats do?", "answers": ["purr"], "evidence": "Cats purr."}


@pytest.fixture(autouse=True)
def kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read in another test is not there."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


def read(path: Path, **settings: Any) -> Document:
    """The one document in a file, read as the file's name says."""
    choice = choices({})[path.suffix.lstrip(".")]
    assert choice is not None
    (found,) = parsed(path, choice.parser.model_copy(update=settings), unpacked_mb=10)
    return found.document


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def elements(document: Document) -> list[tuple[str, int, str, str]]:
    """Kind, level, label and text of each element."""
    return [(e.kind, e.level, e.label, document.text[e.start : e.end]) for e in document.structure]


def unread(path: Path) -> str:
    """The reason why a file is not read."""
    with pytest.raises(UnreadError) as told:
        read(path)
    assert told.value.said
    return told.value.reason


def folder(tmp_path: Path, files: Mapping[str, str | bytes], **options: Any) -> Dataset:
    for name, content in {"cats.txt": "Cats purr.", **files}.items():
        written(tmp_path / "texts" / name, content)
    return sources.text_folder(tmp_path / "texts", written(tmp_path / "q.jsonl", json.dumps(QUESTION)), **options)


# --- text ---------------------------------------------------------------------------------------------------------------

RUSSIAN = "Кошки мурлычут, когда они довольны. Собаки лают, когда кто-то подходит к дому. " * 4
CHINESE = "猫在满意的时候会发出呼噜声。狗在有人靠近房子的时候会叫。我们每天早上八点开门,下午五点关门。" * 4
JAPANESE = "ねこはうれしいときにのどをならします。いぬはだれかがいえにちかづくとほえます。" * 4


@pytest.mark.parametrize(
    ("text", "encoding", "guessed"),
    [
        ("Größe", "utf-8", False),
        ("Größe", "utf-8-sig", False),
        ("Größe", "utf-16", False),
        ("Größe", "utf-32", False),
        ("A text without a mark of its encoding.", "utf-16-le", True),
        ("A text without a mark of its encoding.", "utf-16-be", True),
        (RUSSIAN, "cp1251", True),
        (CHINESE, "gb18030", True),
        (JAPANESE, "shift_jis", True),
        ("Die Größe der Tür führt zum Öffnen. Für Gäste schließt sie früher, außer an Feiertagen.", "cp1252", True),
    ],
)
def test_text_is_read_in_any_encoding_and_a_guess_is_told(tmp_path: Path, text: str, encoding: str, guessed: bool) -> None:
    found = read(written(tmp_path / "a.txt", text.encode(encoding)))
    assert found.text == text
    assert any("a guess" in note for note in found.notes) is guessed


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (codecs.BOM_UTF16_LE + b" \0", "empty"),
        (codecs.BOM_UTF16_LE + b"\0\xd8", "damaged"),
        (bytes(range(256)) * 9, "not what its name says"),
        (b"PK\x03\x04 and so on", "not what its name says"),
        (b"%PDF-1.7 and so on", "not what its name says"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    assert unread(written(tmp_path / "a.txt", content)) == reason


def test_guessed_encodings_are_told_of_a_dataset(tmp_path: Path) -> None:
    dataset = folder(tmp_path, {"ru.txt": RUSSIAN.encode("cp1251")})
    assert dataset.notes == ("1 document: read as cp1251, a guess: it is not UTF-8: 'ru.txt'",)
    assert dataset.documents["text"].to_pylist() == ["Cats purr.", RUSSIAN]


# --- Markdown -----------------------------------------------------------------------------------------------------------

MARKDOWN = """---
title: "About cats"
---

# Cats *and* dogs

Cats purr.

Feeding
-------

| when | what |
| ---- | ---- |
| 8    | fish |

- one
  - inner
- two

```python
feed(cat)
```
"""


def test_markdown_is_its_source_with_the_places_of_its_parts(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.md", MARKDOWN))
    assert found.text == MARKDOWN and found.title == "About cats"
    assert elements(found) == [
        ("heading", 1, "Cats *and* dogs", "# Cats *and* dogs"),
        ("heading", 2, "Feeding", "Feeding\n-------"),
        ("table", 0, "", "| when | what |\n| ---- | ---- |\n| 8    | fish |"),
        ("list", 0, "", "- one\n  - inner\n- two"),
        ("code", 0, "python", "```python\nfeed(cat)\n```"),
    ]


@given(st.text(alphabet="#-=`~>|*+ 1.ab\n\t\r\N{COMBINING ACUTE ACCENT}e", max_size=80))
def test_the_parts_of_any_markdown_lie_in_it(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = written(tmp_path_factory.getbasetemp() / "any.md", text)
    try:
        found = read(path)
    except UnreadError as error:
        assert error.reason == "empty" and not text.strip()
        return
    assert unicodedata.is_normalized("NFC", found.text)
    assert all(0 <= e.start <= e.end <= len(found.text) for e in found.structure)


# --- HTML ---------------------------------------------------------------------------------------------------------------

HTML = """<!doctype html><html><head><title> About
cats </title><style>p {color: red}</style></head><body><script>alert("no")</script>
<h1>Cats</h1><p>Cats <b>purr</b>, when
they are&nbsp;content.<br>Always.</p><h2>Feeding</h2>
<table><tr><th>when<th>what<tr><td>8<td>fish</table>
<ul><li>one<li>two <ul><li>inner</ul></ul><pre><code>feed(cat)
  twice()</code></pre><p hidden>x</p></body></html>"""


def test_html_is_read_as_a_browser_shows_it(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.html", HTML))
    assert found.title == "About cats"
    assert found.text == (
        "Cats\n\nCats purr, when they are content.\nAlways.\n\nFeeding\n\nwhen\twhat\n8\tfish\n\none\ntwo\n\ninner\n\n"
        "feed(cat)\n  twice()"
    )
    assert elements(found) == [
        ("heading", 1, "Cats", "Cats"),
        ("heading", 2, "Feeding", "Feeding"),
        ("table", 0, "", "when\twhat\n8\tfish"),
        ("list", 0, "", "one\ntwo\n\ninner"),
        ("list", 0, "", "inner"),
        ("code", 0, "", "feed(cat)\n  twice()"),
    ]


@pytest.mark.parametrize(
    ("page", "encoding"),
    [
        ('<html><head><meta charset="windows-1251"></head><p>{}</p></html>', "cp1251"),
        ('<html><head><meta http-equiv="Content-Type" content="text/html; charset=gb2312"></head><p>{}</p></html>', "gb18030"),
        ('<?xml version="1.0" encoding="iso-2022-jp"?><html><p>{}</p></html>', "iso-2022-jp"),
    ],
)
def test_html_is_read_in_the_encoding_that_it_declares(tmp_path: Path, page: str, encoding: str) -> None:
    text = {"cp1251": "Кошки", "gb18030": "猫会发出呼噜声", "iso-2022-jp": "ねこ"}[encoding]
    found = read(written(tmp_path / "a.html", page.format(text).encode(encoding)))
    assert (found.text, found.notes) == (text, ())


def test_html_that_nests_deeper_than_any_stack_is_read(tmp_path: Path) -> None:
    assert read(written(tmp_path / "a.html", "<div>" * 5_000 + "deep")).text == "deep"


def test_a_page_that_a_script_fills_is_named(tmp_path: Path) -> None:
    page = "<html><head><title>App</title></head><body><div id=root></div><script>render()</script></body></html>"
    assert unread(written(tmp_path / "a.html", page)) == "empty"


# --- PDF ----------------------------------------------------------------------------------------------------------------


def changed(content: bytes, change: Callable[[PdfWriter], object]) -> bytes:
    """A PDF that another program wrote again."""
    writer, file = PdfWriter(clone_from=PdfReader(io.BytesIO(content))), io.BytesIO()
    change(writer)
    writer.write(file)
    return file.getvalue()


def test_the_pages_of_a_pdf_are_elements(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.pdf", made_files.pdf(["Cats purr.\nDogs (all) bark.", "", "Fish swim."], "About cats")))
    assert found.title == "About cats" and found.text == "Cats purr.\nDogs (all) bark.\f\fFish swim."
    assert elements(found) == [
        ("page", 0, "1", "Cats purr.\nDogs (all) bark."),
        ("page", 0, "2", ""),
        ("page", 0, "3", "Fish swim."),
    ]
    assert found.notes == ("1 of 3 pages has no text",)


def test_a_title_that_a_program_left_is_none(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.pdf", made_files.pdf(["Cats purr."], "Microsoft Word - draft.DOC")))
    assert found.title == "Cats purr."


def test_why_a_pdf_is_not_read(tmp_path: Path) -> None:
    whole = made_files.pdf(["Cats purr."] * 40)
    cases = {
        "encrypted": changed(whole, lambda pdf: pdf.encrypt("secret", algorithm="RC4-128")),
        "truncated": whole[: len(whole) // 2],
        "scanned": made_files.pdf(["", ""], picture=True),
        "empty": made_files.pdf(["", ""]),
        "not what its name says": HTML.encode(),
        "damaged": b"%PDF-1.7\nnothing of a PDF\n%%EOF\n",
    }
    assert {reason: unread(written(tmp_path / "a.pdf", content)) for reason, content in cases.items()} == {
        reason: reason for reason in cases
    }


def test_a_pdf_whose_owner_forbids_copying_is_read_and_told(tmp_path: Path) -> None:
    locked = changed(
        made_files.pdf(["Cats purr."]),
        lambda pdf: pdf.encrypt("", owner_password="owner", permissions_flag=0, algorithm="RC4-128"),
    )
    found = read(written(tmp_path / "a.pdf", locked))
    assert found.text == "Cats purr."
    assert found.notes == ("its owner does not permit copying its text; it was read all the same",)


# --- Word ---------------------------------------------------------------------------------------------------------------


def test_a_word_document_is_read_in_its_order(tmp_path: Path) -> None:
    body = made_files.paragraph("Cats & dogs", "Heading1") + made_files.paragraph("Cats purr.")
    body += made_files.table(["when", "what"], ["8", "fish"]) + made_files.paragraph("Feeding", "Heading2")
    found = read(made_files.docx(tmp_path / "a.docx", body))
    assert found.title == "Cats & dogs"
    assert found.text == "Cats & dogs\n\nCats purr.\n\nwhen\twhat\n8\tfish\n\nFeeding"
    assert elements(found) == [
        ("heading", 1, "Cats & dogs", "Cats & dogs"),
        ("table", 0, "", "when\twhat\n8\tfish"),
        ("heading", 2, "Feeding", "Feeding"),
    ]


def test_why_a_word_document_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    whole = made_files.docx(path, made_files.paragraph("Cats purr.") * 99).read_bytes()
    bomb = made_files.archive(path, {"word/document.xml": b"\0" * 11_000_000}).read_bytes()
    other = made_files.archive(path, {"something.txt": "Cats purr."}).read_bytes()
    entities = made_files.docx(path, "").read_bytes()
    made_files.archive(path, {"word/document.xml": '<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><a>&c;</a>'})
    entities = path.read_bytes()
    old = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    cases = {
        "truncated": [whole[: len(whole) // 2]],
        "too large": [bomb],
        "not what its name says": [other, old + b"\0" * 99, b"%PDF-1.7", HTML.encode()],
        "encrypted": [old + "EncryptedPackage".encode("utf-16-le")],
        "damaged": [entities],
        "empty": [made_files.docx(path, "").read_bytes()],
    }
    for reason, contents in cases.items():
        assert [unread(written(path, content)) for content in contents] == [reason] * len(contents)


# --- books, slides, notebooks, reStructuredText, code -------------------------------------------------------------------

CHAPTERS = {
    "one.xhtml": "<html><body><h1>One</h1><p>Cats purr.</p></body></html>",
    "two.xhtml": "<html><body>Dogs bark.</body></html>",
}


def test_a_book_is_read_in_the_order_of_its_spine_and_each_chapter_once(tmp_path: Path) -> None:
    order = ["two.xhtml", "one.xhtml", "two.xhtml", "a.opf", "nothing"]
    found = read(made_files.epub(tmp_path / "a.epub", CHAPTERS, order, "About\ncats"))
    assert (found.title, found.text) == ("About cats", "Dogs bark.\fOne\n\nCats purr.")
    assert elements(found) == [
        ("chapter", 0, "1", "Dogs bark."),
        ("chapter", 0, "2", "One\n\nCats purr."),
        ("heading", 1, "One", "One"),
    ]


def test_why_a_book_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    algorithm = "<a><EncryptionMethod Algorithm='http://www.w3.org/2001/04/xmlenc#aes128-cbc'/></a>"
    cases = {
        "encrypted": made_files.epub(path, CHAPTERS, ["one.xhtml"], more={"META-INF/encryption.xml": algorithm}).read_bytes(),
        "empty": made_files.epub(path, CHAPTERS, []).read_bytes(),
        "damaged": made_files.archive(path, {"META-INF/container.xml": "<a"}).read_bytes(),
        "not what its name says": made_files.docx(path, made_files.paragraph("Cats purr.")).read_bytes(),
    }
    assert {reason: unread(written(path, content)) for reason, content in cases.items()} == {reason: reason for reason in cases}


def test_slides_are_pages_with_their_tables_and_notes(tmp_path: Path) -> None:
    slides = pptx.Presentation()
    one, two = (slides.slides.add_slide(slides.slide_layouts[5]) for _ in range(2))
    one.shapes.title.text = "About cats"
    table = one.shapes.add_table(2, 2, 0, 0, 100, 100).table
    for cell, text in zip(table.iter_cells(), ["when", "what", "8", "fish"], strict=True):
        cell.text = text
    one.notes_slide.notes_text_frame.text = "Say it loud."
    group = two.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 100, 100).text_frame.text = "Dogs bark.\nOften."
    slides.core_properties.title = "Animals"
    slides.save(tmp_path / "a.pptx")
    found = read(tmp_path / "a.pptx")
    assert (found.title, found.text) == (
        "Animals",
        "About cats\n\nwhen\twhat\n8\tfish\n\nSay it loud.\fDogs bark.\nOften.",
    )
    assert elements(found) == [
        ("page", 0, "1", "About cats\n\nwhen\twhat\n8\tfish\n\nSay it loud."),
        ("heading", 1, "About cats", "About cats"),
        ("table", 0, "", "when\twhat\n8\tfish"),
        ("page", 0, "2", "Dogs bark.\nOften."),
    ]
    pptx.Presentation().save(tmp_path / "empty.pptx")
    assert unread(tmp_path / "empty.pptx") == "empty"
    assert unread(made_files.archive(tmp_path / "b.pptx", {"a": "b"})) == "not what its name says"


def test_a_notebook_is_its_cells(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# About cats\n", "\n", "They purr."]},
        {"cell_type": "code", "source": "feed(cat)", "outputs": [{"text": "fed"}]},
        {"cell_type": "code", "source": ""},
    ]
    notebook = {"nbformat": 4, "metadata": {"language_info": {"name": "python"}}, "cells": cells}
    found = read(written(tmp_path / "a.ipynb", json.dumps(notebook)))
    assert (found.title, found.text) == ("About cats", "# About cats\n\nThey purr.\n\nfeed(cat)")
    assert elements(found) == [
        ("cell", 0, "1", "# About cats\n\nThey purr."),
        ("heading", 1, "About cats", "# About cats"),
        ("cell", 0, "2", "feed(cat)"),
        ("code", 0, "python", "feed(cat)"),
    ]
    cases = {"damaged": ["{", json.dumps(notebook | {"nbformat": 3}), "[" * 99_999], "not what its name says": ["[]", "{}"]}
    for reason, contents in cases.items():
        assert [unread(written(tmp_path / "a.ipynb", content)) for content in contents] == [reason] * len(contents)


RST = """\
==========
About cats
==========

Cats purr. An example::

    feed(cat)

    twice()

Feeding
=======

.. code-block:: python
   :linenos:

   feed(cat)

Fish
----

A line of text
of two lines
------------
"""


def test_restructured_text_is_its_source_with_titles_and_code(tmp_path: Path) -> None:
    found = read(written(tmp_path / "a.rst", RST))
    assert (found.title, found.text) == ("About cats", RST)
    assert elements(found) == [
        ("heading", 1, "About cats", "==========\nAbout cats\n=========="),
        ("code", 0, "", "    feed(cat)\n\n    twice()"),
        ("heading", 2, "Feeding", "Feeding\n======="),
        ("code", 0, "python", "   feed(cat)"),
        ("heading", 3, "Fish", "Fish\n----"),
    ]


def parsed_as(path: Path, **settings: Any) -> list[Document]:
    choice = choices({path.suffix: settings})[path.suffix.lstrip(".")]
    assert choice is not None
    return [found.document for found in parsed(path, choice.parser, unpacked_mb=10)]


PYTHON = '''# -*- coding: latin-1 -*-
import os

@cached
class Cat:
    """A cät."""

    def purr(self):
        return 1


def feed(cat):
    pass
'''


def test_code_is_its_source_with_what_is_defined_in_it(tmp_path: Path) -> None:
    (found,) = parsed_as(written(tmp_path / "a.py", PYTHON.encode("latin-1")), kind="code")
    assert (found.text, found.notes) == (PYTHON, ())
    assert [(level, label, text.split("\n")[0]) for _, level, label, text in elements(found)] == [
        (1, "Cat", "@cached"),
        (2, "Cat.purr", "    def purr(self):"),
        (1, "feed", "def feed(cat):"),
    ]
    (other,) = parsed_as(written(tmp_path / "a.c", "#include <a.h>\n\nint a() {\n\n  return 1;\n}\n\nint b;\n"), kind="code")
    assert [text for *_, text in elements(other)] == ["#include <a.h>", "int a() {\n\n  return 1;\n}", "int b;"]


# --- rows ---------------------------------------------------------------------------------------------------------------

CAT = {"key": "c", "name": "Cats", "body": "Cats purr.", "more": "Often."}
DOG = {"key": "d", "name": "", "body": "Dogs\nbark.", "more": ""}


def tables(folder: Path) -> dict[str, Path]:
    """One table in every form."""
    lines = [["key", "name", "body", "more"], *([row[key] for key in CAT] for row in (CAT, DOG))]
    for ending, delimiter in (("csv", ","), ("tsv", "\t")):
        with (folder / f"a.{ending}").open("w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows(lines)
    written(folder / "a.jsonl", "".join(json.dumps(row) + "\n" for row in (CAT, DOG)))
    parquet.write_table(pa.Table.from_pylist([CAT, DOG]), folder / "a.parquet")
    return {ending: folder / f"a.{ending}" for ending in ("csv", "tsv", "jsonl", "parquet")}


def test_the_rows_of_a_table_are_documents_in_every_form(tmp_path: Path) -> None:
    for ending, path in tables(tmp_path).items():
        found = parsed_as(path, kind=ending, text=["body", "more"], id="key", title="name")
        assert found == [Document("Cats purr.\n\nOften.", "Cats", part="c"), Document("Dogs\nbark.", "", part="d")], ending
        numbered = parsed_as(path, kind=ending, text="more")
        assert numbered == [Document("Often.", part="1", notes=("1 row has no text",))], ending


def test_why_a_table_is_not_read(tmp_path: Path) -> None:
    def reason(name: str, content: str | bytes, **settings: Any) -> tuple[str, str]:
        path = written(tmp_path / name, content)
        with pytest.raises(UnreadError) as told:
            parsed_as(path, **{"kind": path.suffix[1:], "text": "a", **settings})
        return told.value.reason, told.value.said

    assert reason("a.csv", "a,b\n1,2,3\n") == ("damaged", "line 2 has 3 cells, the first row 2")
    assert reason("a.csv", 'a,b\n"1,2\n') == ("damaged", "line 2: unexpected end of data")
    assert reason("a.csv", "a,a\n1,2\n") == ("damaged", "two columns have one name: 'a', 'a'")
    assert reason("a.csv", "b\n1\n") == ("no such column", "row 1 has no column 'a'; there are 'b'")
    assert reason("a.csv", "a,b\n,2\n") == ("empty", "no row has a text in 'a'")
    assert reason("a.csv", "a,b\n1,2\n1,2\n", id="b") == ("damaged", "two of its documents are named '2'")
    assert reason("a.jsonl", '{"a": "b"}\n{"a"\n')[0] == "damaged"
    assert reason("a.jsonl", "[1]\n") == ("damaged", "line 1 is no object; each line holds one by itself, as {...}")
    assert reason("a.parquet", "a\n") == ("not what its name says", "by its first bytes it is text")
    assert reason("a.parquet", b"PAR1" + b"\0" * 99)[0] == "damaged"


def test_rows_are_documents_of_a_dataset_and_other_tables_are_listed(tmp_path: Path) -> None:
    table = tables(tmp_path)["csv"].read_bytes()
    parsers = {"csv": {"kind": "csv", "text": "body", "id": "key"}}
    dataset = folder(tmp_path, {"a.csv": table, "a.tsv": table, "a.py": "a = 1"}, parsers=parsers)
    assert dataset.documents["id"].to_pylist() == ["a.csv#c", "a.csv#d", "cats.txt"]
    assert dataset.unread["said"].to_pylist() == [
        "files in .py are read where the experiment's file says so: dataset.parsers: {py: code}",
        "files in .tsv are read where the experiment's file says so: dataset.parsers: {tsv: {kind: tsv, text: COLUMN}}",
    ]
    with pytest.raises(InputError, match=r"dataset.parsers.csv.text: this key is required"):
        choices({"csv": "csv"})


# --- what all have ------------------------------------------------------------------------------------------------------


def test_every_parser_gives_text_in_normal_form_with_places_that_follow() -> None:
    apart = unicodedata.normalize("NFD", "Café am Öl")
    found = checked(Document(apart, structure=(Element(0, 5, "heading", 1, apart[:5]), Element(9, len(apart), "page"))))
    assert [found.text[e.start : e.end] for e in found.structure] == ["Café", "Öl"]
    assert found.structure[0].label == "Café"


@pytest.mark.parametrize(
    ("element", "message"),
    [
        (Element(0, 4, "chapitre"), "an element of kind 'chapitre'; allowed: page, chapter"),
        (Element(2, 99, "page"), "an element at 2 to 99 of a text of 10 characters"),
        (Element(3, 2, "page"), "an element at 3 to 2 of a text"),
        (Element(0, 1, "page"), "begins or ends between a letter and its accent"),
    ],
)
def test_an_element_that_cannot_be_is_refused(element: Element, message: str) -> None:
    with pytest.raises(InputError, match=message):
        checked(Document("e\N{COMBINING ACUTE ACCENT}" * 5, structure=(element,)))


def test_what_no_file_can_hold_becomes_a_sign_of_the_same_length() -> None:
    assert checked(Document("a\0b\ud800c")).text == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"


def test_gaps_stand_between_texts_alone_and_the_strongest_wins() -> None:
    page = Blocks()
    page.gap(BLOCK)
    page.begin("list")
    page.words(" one  two ")
    page.gap(LINE)
    page.gap(SPACE)
    page.begin("table")
    page.end()
    page.words("three")
    page.end()
    page.gap(BLOCK)
    assert page.text() == "one two\nthree"
    assert page.structure() == (Element(0, 13, "list"),)


def test_every_built_in_parser_is_a_component_with_its_kind() -> None:
    for kind, spec in BUILTIN.items():
        parser = load_class(spec, PARSER)
        assert issubclass(parser, Parser) and parser.model_fields["kind"].default == kind


# --- which parser reads what --------------------------------------------------------------------------------------------

OWN = """
from workbench.data.documents.parser import Document, Parser, UnreadError

class Upper(Parser):
    ending: str = "!"

    def parse(self, path, limits):
        text = path.read_text()
        if "no" in text:
            raise UnreadError("refused", "it says no")
        return [Document(text.upper() + self.ending)]
"""


def test_a_parser_of_ones_own_is_named_with_its_settings(tmp_path: Path) -> None:
    own = written(tmp_path / "mine.py", OWN)
    files = {"a.log": "Dogs bark.", "b.log": "no", "c.xyz": "?"}
    dataset = folder(tmp_path, files, parsers={"LOG": {"kind": f"{own}:Upper", "ending": "."}})
    assert dict(zip(dataset.documents["id"].to_pylist(), dataset.documents["text"].to_pylist(), strict=True)) == {
        "a.log": "DOGS BARK..",
        "cats.txt": "Cats purr.",
    }
    assert dataset.unread.to_pylist() == [
        {"file": "b.log", "reason": "refused", "said": "it says no"},
        {
            "file": "c.xyz",
            "reason": "no parser",
            "said": "its name ends in .xyz, which no parser reads unless it is named; if it is text, write `{xyz: text}` below "
            "dataset.parsers",
        },
    ]
    assert dataset.notes == ("2 of 4 files are not read: 1 no parser ('c.xyz'); 1 refused ('b.log')",)


@pytest.mark.parametrize(
    ("parsers", "message"),
    [
        ({"pdf": "pfd"}, "dataset.parsers.pdf: unknown kind of parser 'pfd'; allowed: .*Did you mean 'pdf'"),
        ({"pdf": {"kind": "pdf", "dpi": 300}}, "dataset.parsers.pdf.dpi: unknown key 'dpi'"),
        ({"pdf": "./nowhere.py:Mine"}, "nowhere.py' does not exist"),
        ({"pdf": "workbench.component:Component"}, "is no Parser; derive the class from workbench.data.documents.parser.Parser"),
        ({".": "text"}, "received '.'; allowed: the ending of files' names, such as pdf"),
    ],
)
def test_a_parser_that_is_none_is_refused(parsers: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choices(parsers)


def test_files_of_an_ending_can_be_left_out(tmp_path: Path) -> None:
    dataset = folder(
        tmp_path, {"a.pdf": made_files.pdf(["Dogs bark."]), "b.md": "Dogs bark."}, parsers={"pdf": "none", ".md": None}
    )
    assert dataset.documents["id"].to_pylist() == ["cats.txt"]
    assert dataset.unread["reason"].to_pylist() == ["left out", "left out"]


def test_a_missing_package_is_named_with_its_extra_and_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("workbench.data.documents.parser.import_module", absent)
    with pytest.raises(InputError) as told:
        folder(tmp_path, {"a.pdf": made_files.pdf(["Dogs bark."])})
    assert str(told.value) == (
        "the parser Pdf needs the package 'pypdfium2', which is not installed. Install it with: "
        f"{shlex.quote(sys.executable)} -m pip install 'rag-workbench[documents]' "
        "Or leave out the files that end in .pdf: dataset.parsers: {pdf: none}"
    )
    assert folder(tmp_path, {}, parsers={"pdf": "none"}).documents.num_rows == 1


# --- the main content of pages ------------------------------------------------------------------------------------------

WEB = """<!doctype html><html><head><title>Lamps of the harbour</title></head><body>
<nav class="menu"><ul><li><a href="/">Home</a></li><li><a href="/shop">Shop</a></li></ul></nav>
<div class="cookie-banner"><p>We use cookies.</p></div>
<main><article><h1>Lamps</h1><p>The lamp of the harbour burns oil. It was lit in 1822, and it has been burning ever since.</p>
<h2>Prices</h2><table><tr><th>year</th><th>price</th></tr><tr><td>1822</td><td>12</td></tr></table>
<pre><code>def light():
    return 1
</code></pre><ul><li>the first lamp of all</li><li>the second lamp of all</li></ul>
<p>Whoever wants to see the lamp has to climb the tower, which has two hundred steps.</p></article></main>
<footer><p>Copyright. Imprint.</p></footer></body></html>"""


def test_the_main_content_of_a_page_leaves_out_what_surrounds_it(tmp_path: Path) -> None:
    path = written(tmp_path / "a.html", WEB)
    found, whole = read(path, content="main"), read(path)
    assert "cookies" in whole.text and "Imprint" in whole.text and "Shop" in whole.text
    assert not any(word in found.text for word in ("cookies", "Imprint", "Shop"))
    assert "year\tprice\n1822\t12" in found.text and found.title == "Lamps of the harbour"
    assert [(kind, text) for kind, _, _, text in elements(found)] == [
        ("heading", "Lamps"),
        ("heading", "Prices"),
        ("table", "year\tprice\n1822\t12"),
        ("code", "def light():\n    return 1"),
        ("list", "the first lamp of all\nthe second lamp of all"),
    ]


def test_a_page_without_main_content_is_named_with_the_way_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.html", "<html><body><img src='a.png'></body></html>")
    with pytest.raises(UnreadError, match="`content: all` reads whatever the page shows"):
        read(path, content="main")


def test_the_main_content_is_kept_apart_from_the_whole_page() -> None:
    whole, main = (choices({"html": {"kind": "html", "content": content}})["html"] for content in ("all", "main"))
    assert whole is not None and main is not None
    assert whole.parser.definition() == choices({})["html"].parser.definition()
    assert "content" not in whole.parser.definition()["settings"]
    assert main.parser.definition()["libraries"].keys() == {"selectolax", "charset-normalizer", "trafilatura", "lxml"}


def test_the_library_of_the_main_content_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(InputError, match=r"needs the package 'trafilatura'.*rag-workbench\[web\]"):
        folder(tmp_path, {"a.html": WEB}, parsers={"html": {"kind": "html", "content": "main"}})
