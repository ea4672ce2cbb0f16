"""Evidence is found where it stands, however another program spelt it, and what is not found is said with what is nearest."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import made_files
from workbench.data import sources
from workbench.data.dataset import Dataset, Place
from workbench.data.evidence import read_questions
from workbench.data.finding import Finder, Page, Quote, places
from workbench.data.letters import Lettered, letters
from workbench.errors import InputError


@pytest.fixture(autouse=True)
def kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read in another test is not there."""
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


def spans(text: str, sought: str) -> list[str]:
    return [text[start:end] for start, end in Lettered(text).find(Lettered(sought))]


# --- letters and digits -------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.text(max_size=200))
def test_the_quick_way_to_letters_and_digits_is_the_way_by_single_characters(text: str) -> None:
    def single(character: str) -> str:
        same = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", character).casefold())
        return "".join(letter for letter in same if letter.isalnum())

    assert letters(text) == "".join(map(single, text))
    lettered = Lettered(text)
    assert len(lettered.places) == len(lettered.letters) + 1
    assert all(letter in single(text[at]) for letter, at in zip(lettered.letters, lettered.places, strict=False))


@pytest.mark.parametrize(
    ("text", "sought", "found"),
    [
        ("Net sales \n$ 1,577  –  up", "net sales: $1,577 — up", ["Net sales \n$ 1,577  –  up"]),
        ("the “ﬁrst” of-\nﬁcer said", '"first" officer', ["ﬁrst” of-\nﬁcer"]),
        ("Ｇｒöße STRASSE", "größe straße", ["Ｇｒöße STRASSE"]),
        ("E ven spaces in words are found", "Even spaces", ["E ven spaces"]),
        ("It grew by 15 % last year.", "It grew by 1.5 % last year.", []),
        ("It grew by 1.5 % last year.", "It grew by 15 % last year.", []),
        ("It sold 1577 cars.", "It sold 1,577 cars.", ["It sold 1577 cars"]),
        ("It sold 1,577,000 cars.", "It sold 1577000 cars.", ["It sold 1,577,000 cars"]),
        ("1,5 ist 1.5", "1.5", ["1,5", "1.5"]),
        ("in 2019, 2020 and 2021", "2019 2020", ["2019, 2020"]),
        ("the category", "cat", []),
        ("the cat. A category, a CAT", "cat", ["cat", "CAT"]),
        ("unbelievablylongwordsstandhere", "longwordsstand", ["longwordsstand"]),
        ("价格为一百元。", "一百 元", ["一百元"]),
        ("anything", "—", []),
    ],
)
def test_what_counts_and_what_does_not(text: str, sought: str, found: list[str]) -> None:
    assert spans(text, sought) == found


def spelt_otherwise(text: str, seed: int) -> str:
    """A text as a program that reads PDF files may give it: spaces in and between words, other dashes and quotation marks."""
    rng, found = random.Random(seed), []
    for character in text:
        other = {'"': "”", "'": "’", "-": "–", " ": rng.choice([" ", "  ", "\n", " ", "\u00a0"])}.get(character, character)
        found.append(other.upper() if rng.random() < 0.1 else other)
        if rng.random() < 0.05 and not character.isdigit():
            found.append(rng.choice([" ", "-\n", "\N{SOFT HYPHEN}", "·"]))
    return "".join(found)


def test_evidence_of_the_built_in_questions_is_found_where_it_stands_after_it_was_spelt_otherwise() -> None:
    dataset = sources.pydocs()
    texts = dict(zip(dataset.documents["id"].to_pylist(), dataset.documents["text"].to_pylist(), strict=True))
    finder = Finder(texts)
    tried = 0
    for row in read_questions(sources.PYDOCS_QUESTIONS)[::6]:
        for sentence in row["evidence"]:
            exact = list(places(sentence, texts))
            assert finder.find([Quote(sentence)]).places == exact and exact
            found = finder.find([Quote(f"“{spelt_otherwise(sentence, tried)}”")])
            assert found.lettered
            assert {place.doc_id for place in exact} <= {place.doc_id for place in found.places}
            assert all(letters(texts[p.doc_id][p.start : p.end]) == letters(sentence) for p in found.places)
            tried += 1
    assert tried > 100


# --- hints, alternatives, what is missing -------------------------------------------------------------------------------

TEXTS = {"a/report.pdf": "Cats purr.\fCats purr. Dogs bark.", "b.pdf": "CATS PURR!", "c.txt": "Fish swim in the deep blue sea."}
PAGES = {"a/report.pdf": [Page(0, 10, "1"), Page(11, 33, "2")]}


@pytest.mark.parametrize(
    ("quote", "found", "lettered", "elsewhere"),
    [
        (Quote("Cats purr."), [("a/report.pdf", 0), ("a/report.pdf", 11)], False, False),
        (Quote("cats purr"), [("a/report.pdf", 0), ("a/report.pdf", 11), ("b.pdf", 0)], True, False),
        (Quote("Cats purr.", "b.pdf"), [("b.pdf", 0)], True, False),
        (Quote("Cats purr.", "report", 2), [("a/report.pdf", 11)], False, False),
        (Quote("Cats purr.", "a/report"), [("a/report.pdf", 0), ("a/report.pdf", 11)], False, False),
        (Quote("Dogs bark", None, 1), [("a/report.pdf", 22)], False, True),
        (Quote("dogs bark", "report.pdf", 2), [("a/report.pdf", 22)], True, False),
        (Quote("Cats purr.", "nowhere.pdf"), [], False, False),
    ],
)
def test_a_page_or_a_document_says_which_places_are_meant(
    quote: Quote, found: list[tuple[str, int]], lettered: bool, elsewhere: bool
) -> None:
    one = Finder(TEXTS, PAGES).find([quote])
    assert ([(place.doc_id, place.start) for place in one.places], one.lettered, one.elsewhere) == (found, lettered, elsewhere)


def test_of_several_quotes_one_is_enough() -> None:
    found = Finder(TEXTS).find([Quote("Birds sing."), Quote("Dogs bark."), Quote("Dogs bark.")])
    assert found.places == [Place("a/report.pdf", 22, 32)]


def test_what_is_nearest_to_evidence_that_stands_nowhere_is_said() -> None:
    finder = Finder(TEXTS, PAGES)
    said = finder.nearest([Quote("Fish swim in the deep green sea.")], lambda _: "")
    assert said.startswith("'Fish swim in the deep green sea.': nearest is 'c.txt', characters 0 to 30, with ")
    assert said.endswith("'Fish swim in the deep blue sea'")
    assert "'a/report.pdf', page 2, characters 11 to 31" in finder.nearest(
        [Quote("Cats purr. Dogs barked.", "report")], lambda _: ""
    )
    assert finder.nearest([Quote("Birds sing.")], lambda _: "") == "'Birds sing.': nothing like it stands in the documents"
    assert finder.nearest([Quote("Birds sing.", "d.pdf")], lambda name: f"{name} is encrypted") == (
        "'Birds sing.': the document 'd.pdf' is not among the documents (d.pdf is encrypted)"
    )


# --- a folder of documents ----------------------------------------------------------------------------------------------


def folder(tmp_path: Path, evidence: list[Any], files: dict[str, bytes] | None = None, **options: Any) -> Dataset:
    for name, content in {"cats.pdf": made_files.pdf(["Cats purr.", "Dogs 'bark' loudly."]), **(files or {})}.items():
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / name).write_bytes(content)
    rows = [
        {"id": f"q{number}", "split": "dev", "question": "What?", "answers": ["that"], "evidence": one}
        for number, one in enumerate(evidence)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sources.text_folder(tmp_path / "texts", tmp_path / "q.jsonl", **options)


def test_evidence_of_a_pdf_is_found_on_its_page(tmp_path: Path) -> None:
    given = [
        {"text": "dogs “bark” loudly", "document": "cats", "page": 2},
        [["Birds sing.", {"text": "Cats purr."}], "Dogs 'bark'"],
        {"text": "Cats purr.", "page": 2},
    ]
    dataset = folder(tmp_path, given)
    spans = dataset.judged("dev").spans
    assert spans["q0"] == [[Place("cats.pdf", 11, 29)]]
    assert spans["q1"] == [[Place("cats.pdf", 0, 10)], [Place("cats.pdf", 11, 21)]]
    assert spans["q2"] == [[Place("cats.pdf", 0, 10)]]
    assert dataset.notes == (
        "2 questions have evidence that is found by its letters and digits alone, signs and case aside: q0, q1",
        "1 question has evidence that stands on another page than is named: q2",
    )


def test_a_dataset_that_misses_much_of_its_evidence_is_refused(tmp_path: Path) -> None:
    given = ["Cats purr."] * 19 + ["Birds sing."]
    assert folder(tmp_path, given).splits == {"dev": 19}
    with pytest.raises(InputError) as told:
        folder(tmp_path, [*given, {"text": "Fish swim.", "document": "fish.pdf"}], {"fish.pdf": b"%PDF"})
    assert str(told.value) == (
        "dataset texts: the evidence of 2 of the 21 questions stands in no document, which is more than 5%: question 'q19', "
        "'Birds sing.': nothing like it stands in the documents; question 'q20', 'Fish swim.': the document 'fish.pdf' is not "
        "among the documents (not what its name says: by its first bytes it is text); copy it from the documents, or leave "
        "these questions out with dataset.missing: drop. 1 of 2 files is not read: 1 not what its name says ('fish.pdf')"
    )
    dropped = folder(tmp_path, ["Cats purr.", "Birds sing."], missing="drop")
    assert dropped.splits == {"dev": 1} and "1 question left out" in dropped.notes[-2]


@pytest.mark.parametrize(
    "evidence", [{"text": " "}, {"text": "a", "page": 0}, {"page": 1}, [["a", ["b"]]], {"text": "a", "at": 3}]
)
def test_evidence_of_another_form_is_refused_with_what_is_allowed(tmp_path: Path, evidence: Any) -> None:
    with pytest.raises(InputError, match=r"line 1: evidence: received .*; allowed: a sentence, a list of sentences, or null"):
        folder(tmp_path, [evidence])


def test_evidence_written_as_before_is_kept_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    row = {"id": "1", "split": "dev", "question": "What?", "answers": None}
    path.write_text(
        "".join(json.dumps(row | {"id": str(n), "evidence": e}) + "\n" for n, e in enumerate(["a", ["a", "b"], None]))
    )
    assert [found["evidence"] for found in read_questions(path)] == [["a"], ["a", "b"], []]


def test_an_empty_sentence_is_refused_once_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"id": "1", "split": "dev", "question": "Which?", "answers": None, "evidence": ""}))
    with pytest.raises(InputError, match=r"evidence: received \"\".*the text is empty") as told:
        read_questions(path)
    assert str(told.value).count('received ""') == 1
