"""Question sets in the forms that others publish: each is known by its columns, and gives its questions, answers and evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from workbench.data.dataset import Dataset
from workbench.data.forms import known, reading
from workbench.errors import InputError
from workbench.experiment.config import DatasetSettings

LAMP = "The lamp of the harbour burns oil. It was lit in 1822."
MILL = "The mill grinds rye. Its wheel turns to the left."
ORE = "Copper ore is green. Tin ore is brown."


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def folder(path: Path, texts: dict[str, str]) -> Path:
    path.mkdir(exist_ok=True)
    for name, text in texts.items():
        (path / name).write_text(text, encoding="utf-8")
    return path


def read(questions: Path, **settings: Any) -> Dataset:
    return DatasetSettings(questions=questions, **settings).load(settings.get("slices", ()))


def evidence(dataset: Dataset) -> dict[str, list[set[str]]]:
    """Query id -> for each piece of evidence, the words at its places."""
    texts = dict(zip(dataset.documents["id"].to_pylist(), dataset.documents["text"].to_pylist(), strict=True))
    judged = {q: e for split in dataset.splits for q, e in dataset.judged(split).spans.items()}
    return {q: [{texts[doc][start:end] for doc, start, end in piece} for piece in pieces] for q, pieces in judged.items()}


def relevant(dataset: Dataset) -> dict[str, set[str]]:
    titles = dict(zip(dataset.documents["id"].to_pylist(), dataset.documents["text"].to_pylist(), strict=True))
    judged = {q: d for split in dataset.splits for q, d in dataset.judged(split).documents.items()}
    return {q: {titles[doc] for doc in documents} for q, documents in judged.items()}


def asked(dataset: Dataset) -> dict[str, tuple[str, list[str] | None]]:
    return {row["id"]: (row["text"], row["answers"]) for row in dataset.queries.to_pylist()}


def groups(dataset: Dataset) -> dict[str, str]:
    return {row["id"]: row["group"] for row in dataset.queries.to_pylist()}


def form_of(questions: Path) -> str:
    return reading.asked(reading.Source(questions)).form


def test_squad_is_read_with_the_places_of_its_answers(tmp_path: Path) -> None:
    answer = {"text": "1822", "answer_start": LAMP.index("1822")}
    paragraphs = [
        {
            "context": LAMP,
            "qas": [
                {"id": "a", "question": "When was it lit?", "answers": [answer, answer], "is_impossible": False},
                {"id": "b", "question": "Who lit it?", "answers": [], "is_impossible": True, "plausible_answers": [answer]},
            ],
        }
    ]
    other = {
        "context": ORE,
        "qas": [{"id": "c", "question": "Which ore is green?", "answers": [{"text": "Copper", "answer_start": 0}]}],
    }
    value = {
        "version": "v2.0",
        "data": [{"title": "Old_harbour", "paragraphs": paragraphs}, {"title": "Ore", "paragraphs": [other]}],
    }
    file = tmp_path / "dev-v2.0.json"
    file.write_text(json.dumps(value))
    assert form_of(file) == "squad"
    found = read(file)
    assert asked(found) == {
        "a": ("When was it lit?", ["1822"]),
        "b": ("Who lit it?", []),
        "c": ("Which ore is green?", ["Copper"]),
    }
    assert evidence(found) == {"a": [{"1822"}], "c": [{"Copper"}]}
    assert groups(found)["a"] == groups(found)["b"] != groups(found)["c"]
    assert found.documents["title"].to_pylist() == ["Old harbour", "Ore"]


def test_squad_as_a_table_is_the_same_set_in_any_normal_form(tmp_path: Path) -> None:
    context = "Cafe\u0301 Hafen has a cafe\u0301. It opened in 1822."  # an accent as a sign of its own
    at = context.index("1822")
    rows = [
        {"id": "1", "title": "A", "context": context, "question": "When?", "answers": {"text": ["1822"], "answer_start": [at]}},
        {"id": "2", "title": "B", "context": ORE, "question": "Which?", "answers": {"text": [], "answer_start": []}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "squad.parquet")
    assert form_of(tmp_path / "squad.parquet") == "squad-table"
    found = read(tmp_path / "squad.parquet")
    assert evidence(found) == {"1": [{"1822"}]}
    assert asked(found)["2"] == ("Which?", [])


def test_a_squad_answer_that_is_not_where_it_is_said_to_be_is_refused(tmp_path: Path) -> None:
    row = {"id": "1", "title": "A", "context": ORE, "question": "Q?", "answers": {"text": ["Tin"], "answer_start": [1]}}
    file = lines(tmp_path / "squad.jsonl", [row])
    with pytest.raises(InputError, match=r"squad\.jsonl, line 1: the answer 'Tin' does not stand at character 1"):
        read(file)


def nq_row(name: str, long: tuple[int, int], short: tuple[int, int], yes_no: int) -> dict[str, Any]:
    tokens = ["<H1>", "Lamp", "</H1>", "<P>", "The", "lamp", "burns", "oil", ".", "</P>", "<P>", "Lit", "in", "1822", ".", "</P>"]
    return {
        "id": name,
        "question": {"text": "what does the lamp burn", "tokens": ["what"]},
        "document": {
            "title": "Lamp",
            "url": "u",
            "tokens": {"token": tokens, "is_html": [token.startswith("<") for token in tokens]},
        },
        "annotations": {
            "id": ["1"],
            "long_answer": [{"start_token": long[0], "end_token": long[1], "candidate_index": 0}],
            "short_answers": [
                {"start_token": [short[0]] if short[0] >= 0 else [], "end_token": [short[1]] if short[0] >= 0 else [], "text": []}
            ],
            "yes_no_answer": [yes_no],
        },
    }


def test_natural_questions_of_the_hub_are_read_without_their_tags(tmp_path: Path) -> None:
    rows = [nq_row("1", (3, 10), (7, 8), -1), nq_row("2", (10, 16), (-1, -1), 1), nq_row("3", (-1, -1), (-1, -1), -1)]
    file = lines(tmp_path / "nq.jsonl", rows)
    assert form_of(file) == "nq"
    found = reading.asked(reading.Source(file))
    assert [one.answers for one in found.asked] == [("oil",), ("yes",), ()]
    assert found.corpus.documents == [{"id": "Lamp", "title": "Lamp", "text": "Lamp\n\nThe lamp burns oil .\n\nLit in 1822 ."}]
    text = found.corpus.text("Lamp")
    pieces = [[text[place.start : place.end] for piece in one.evidence for place in piece] for one in found.asked]
    assert pieces == [["The lamp burns oil ."], ["Lit in 1822 ."], []]


def test_simplified_natural_questions_are_read(tmp_path: Path) -> None:
    row = {
        "example_id": 12,
        "question_text": "when was it lit",
        "document_title": "Lamp",
        "document_text": "<P> It was lit in 1822 . </P>",
        "long_answer_candidates": [],
        "annotations": [
            {
                "yes_no_answer": "NONE",
                "long_answer": {"start_token": 0, "end_token": 8},
                "short_answers": [{"start_token": 5, "end_token": 6}],
            }
        ],
    }
    other = row | {
        "example_id": 13,
        "annotations": [{"yes_no_answer": "YES", "long_answer": {"start_token": -1, "end_token": -1}, "short_answers": []}],
    }
    file = lines(tmp_path / "nq.jsonl", [row, other])
    assert form_of(file) == "nq-simplified"
    found = reading.asked(reading.Source(file))
    assert [(one.id, one.answers) for one in found.asked] == [("12", ("1822",)), ("13", ("yes",))]


def test_triviaqa_judges_the_documents_that_hold_an_answer(tmp_path: Path) -> None:
    row = {
        "question": "When was the lamp lit?",
        "question_id": "tc_1",
        "entity_pages": {
            "title": ["Lamp", "Mill"],
            "wiki_context": [LAMP, MILL],
            "filename": ["a.txt", "b.txt"],
            "doc_source": ["", ""],
        },
        "search_results": {"title": ["Ore"], "search_context": [ORE], "url": ["u"], "rank": [1]},
        "answer": {"value": "1822", "aliases": ["1822", "AD 1822"], "normalized_aliases": ["1822"]},
    }
    rows = [row, row | {"question": "Which way?", "question_id": "tc_2", "answer": {"value": "Left", "aliases": []}}]
    file = lines(tmp_path / "trivia.jsonl", rows)
    assert form_of(file) == "triviaqa"
    found = read(file)
    assert asked(found)["tc_1"] == ("When was the lamp lit?", ["1822", "AD 1822"])
    assert relevant(found) == {"tc_1": {LAMP}, "tc_2": {MILL}}
    assert found.documents.num_rows == 3
    assert any("distant supervision" in note for note in found.notes)


def test_the_published_file_of_triviaqa_asks_about_a_folder(tmp_path: Path) -> None:
    value = {
        "Data": [{"Question": f"Q{n}?", "QuestionId": f"q{n}", "Answer": {"Value": "Oil", "Aliases": ["oil"]}} for n in range(4)]
    }
    (tmp_path / "qa.json").write_text(json.dumps(value))
    assert form_of(tmp_path / "qa.json") == "triviaqa-file"
    with pytest.raises(InputError, match="come without documents; name the `folder:`"):
        read(tmp_path / "qa.json")
    found = read(tmp_path / "qa.json", folder=folder(tmp_path / "texts", {"a.txt": LAMP}))
    assert asked(found)["q1"] == ("Q1?", ["Oil", "oil"])


HOTPOT = {
    "_id": "h1",
    "question": "Is the lamp's fuel older than the mill?",
    "answer": "yes",
    "type": "comparison",
    "level": "hard",
    "supporting_facts": [["Lamp", 0], ["Mill", 1], ["Mill", 9]],
    "context": [["Lamp", ["The lamp burns oil.", " It was lit in 1822."]], ["Mill", ["It grinds rye.", "Its wheel turns."]]],
}


def test_hotpotqa_has_a_piece_of_evidence_for_each_supporting_sentence(tmp_path: Path) -> None:
    file = tmp_path / "hotpot.json"
    file.write_text(json.dumps([HOTPOT, HOTPOT | {"_id": "h2", "supporting_facts": [["Mill", 0]]}]))
    assert form_of(file) == "hotpotqa"
    found = read(file)
    assert asked(found)["h1"] == (HOTPOT["question"], ["yes"])
    assert evidence(found) == {"h1": [{"The lamp burns oil."}, {"Its wheel turns."}], "h2": [{"It grinds rye."}]}
    assert sorted(found.documents["text"].to_pylist()) == [
        "It grinds rye. Its wheel turns.",
        "The lamp burns oil. It was lit in 1822.",
    ]


def test_hotpotqa_of_the_hub_is_the_same_set(tmp_path: Path) -> None:
    as_table = {
        "id": "h1",
        "supporting_facts": {"title": ["Lamp", "Mill", "Mill"], "sent_id": [0, 1, 9]},
        "context": {"title": ["Lamp", "Mill"], "sentences": [one[1] for one in HOTPOT["context"]]},
    }
    rows = [{key: HOTPOT[key] for key in ("question", "answer", "type", "level")} | as_table]
    rows.append(rows[0] | {"id": "h2", "supporting_facts": {"title": ["Mill"], "sent_id": [0]}})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "hotpot.parquet")
    (tmp_path / "hotpot.json").write_text(json.dumps([HOTPOT, HOTPOT | {"_id": "h2", "supporting_facts": [["Mill", 0]]}]))
    one, other = read(tmp_path / "hotpot.parquet"), read(tmp_path / "hotpot.json")
    assert one.queries.equals(other.queries) and one.judgements.equals(other.judgements) and one.documents.equals(other.documents)


def test_musique_has_a_piece_for_each_supporting_paragraph(tmp_path: Path) -> None:
    paragraphs = [
        {"idx": 0, "title": "Lamp", "paragraph_text": LAMP, "is_supporting": True},
        {"idx": 1, "title": "Mill", "paragraph_text": MILL, "is_supporting": True},
        {"idx": 2, "title": "Ore", "paragraph_text": ORE, "is_supporting": False},
    ]
    row = {
        "id": "2hop__1_2",
        "paragraphs": paragraphs,
        "question": "What?",
        "question_decomposition": [],
        "answer": "rye",
        "answer_aliases": ["Rye"],
        "answerable": True,
    }
    other = row | {"id": "2hop__3", "answerable": False, "paragraphs": paragraphs[2:]}
    third = row | {"id": "2hop__4", "paragraphs": [paragraphs[2] | {"is_supporting": True}]}
    file = lines(tmp_path / "musique.jsonl", [row, other, third])
    assert form_of(file) == "musique"
    found = read(file)
    assert asked(found)["2hop__1_2"] == ("What?", ["rye", "Rye"])
    assert asked(found)["2hop__3"] == ("What?", [])
    assert evidence(found) == {"2hop__1_2": [{LAMP}, {MILL}], "2hop__4": [{ORE}]}


def test_financebench_quotes_named_reports(tmp_path: Path) -> None:
    texts = {"HARBOUR_2023.txt": f"{LAMP}\n\nOil cost 12 crowns.", "MILL_2023.txt": f"{MILL}\n\nOil cost 12 crowns."}

    def row(name: str, doc: str, quote: str, page: int) -> dict[str, Any]:
        quoted = {"evidence_text": quote, "doc_name": doc, "evidence_page_num": page, "evidence_text_full_page": quote}
        return {
            "financebench_id": name,
            "company": "A",
            "doc_name": doc,
            "question_type": "metrics",
            "question": "How much?",
            "answer": "12",
            "justification": None,
            "evidence": [quoted],
        }

    rows = [
        row("f1", "HARBOUR_2023", "Oil cost 12\ncrowns.", 0),
        row("f2", "MILL_2023", "Oil cost 12 crowns.", 4),
        row("f3", "MILL_2023", "Not there.", 6),
    ]
    file = lines(tmp_path / "financebench.jsonl", rows)
    assert form_of(file) == "financebench"
    documents = folder(tmp_path / "texts", texts)
    with pytest.raises(InputError, match="evidence of 1 of the 3 questions stands in no document"):
        read(file, folder=documents)
    found = read(file, folder=documents, missing="drop")
    places = {q: {doc for piece in e for doc, _, _ in piece} for s in found.splits for q, e in found.judged(s).spans.items()}
    assert places == {"f1": {"HARBOUR_2023.txt"}, "f2": {"MILL_2023.txt"}}
    assert any("evidence of question 'f3', 'Not there.'" in note for note in found.notes)


def test_ragbench_has_the_sentences_that_the_answer_uses(tmp_path: Path) -> None:
    sentences = [[["0a", "The lamp of the harbour burns oil."], ["0b", "It was lit in 1822."]], [["1a", "Copper ore is green."]]]
    row = {
        "id": "7",
        "question": "When?",
        "documents": [LAMP, ORE],
        "response": "In 1822.",
        "documents_sentences": sentences,
        "all_relevant_sentence_keys": ["0a", "0b"],
        "all_utilized_sentence_keys": ["0b"],
        "dataset_name": "d",
    }
    other = row | {"id": "8", "all_utilized_sentence_keys": ["1a"]}
    file = lines(tmp_path / "ragbench.jsonl", [row, other])
    assert form_of(file) == "ragbench"
    found = read(file)
    assert asked(found)["7"] == ("When?", ["In 1822."])
    assert evidence(found) == {"7": [{"It was lit in 1822."}], "8": [{"Copper ore is green."}]}
    assert any("written by a language model" in note for note in found.notes)


def test_crag_has_answers_and_no_judgements(tmp_path: Path) -> None:
    head = "<html><head><title>T</title></head><body><script>x()</script>"
    page = f"{head}<p>The lamp burns&nbsp;oil.</p><p>Lit in 1822.</p></body></html>"
    results = [
        {
            "page_name": "Lamp",
            "page_url": "https://example.org/lamp",
            "page_snippet": "s",
            "page_result": page,
            "page_last_modified": "",
        }
    ]
    row = {
        "interaction_id": "c1",
        "query": "When?",
        "answer": "1822",
        "alt_ans": ["in 1822"],
        "split": 0,
        "domain": "open",
        "search_results": results,
    }
    file = lines(tmp_path / "crag.jsonl", [row, row | {"interaction_id": "c2", "split": 1}])
    assert form_of(file) == "crag"
    found = read(file)
    assert found.splits == {"dev": 1, "test": 1}
    assert asked(found)["c1"] == ("When?", ["1822", "in 1822"])
    assert found.documents["text"].to_pylist() == ["The lamp burns oil.\n\nLit in 1822."]
    assert found.judged("dev").judged == set()
    assert any("rankings cannot be measured" in note for note in found.notes)


def test_clapnq_has_the_selected_sentences(tmp_path: Path) -> None:
    passage = {"title": "Lamp", "text": LAMP, "sentences": ["The lamp of the harbour burns oil.", "It was lit in 1822."]}
    output = [{"answer": "In 1822 it was lit.", "selected_sentences": ["It was lit in 1822."], "meta": {"annotator": [1]}}]
    row = {"id": "1", "input": "when was the lamp lit", "passages": [passage], "output": output}
    empty = [{"answer": "", "selected_sentences": [], "meta": {}}]
    other = {"id": "2", "input": "who lit it", "passages": [{"title": "Ore", "text": ORE, "sentences": [ORE]}], "output": empty}
    numbered = other | {"id": "3", "output": [{"answer": "Green.", "selected_sentences": [0], "meta": {}}]}
    file = lines(tmp_path / "clapnq.jsonl", [row, other, numbered])
    assert form_of(file) == "clapnq"
    found = read(file)
    assert asked(found) == {
        "1": ("when was the lamp lit", ["In 1822 it was lit."]),
        "2": ("who lit it", []),
        "3": ("who lit it", ["Green."]),
    }
    assert evidence(found) == {"1": [{"It was lit in 1822."}], "3": [{ORE}]}


def test_rgb_judges_its_positive_passages(tmp_path: Path) -> None:
    row = {"id": 0, "query": "When?", "answer": [["1822", "in 1822"], "oil"], "positive": [LAMP], "negative": [MILL]}
    other = {"id": 1, "query": "Green?", "answer": "copper", "positive": [[ORE]], "negative": [MILL]}
    file = lines(tmp_path / "en.json", [row, other])
    assert form_of(file) == "rgb"
    found = read(file)
    assert asked(found) == {"0": ("When?", ["1822, oil", "in 1822, oil"]), "1": ("Green?", ["copper"])}
    assert relevant(found) == {"0": {LAMP}, "1": {ORE}}
    assert found.documents.num_rows == 3


def ragas_rows() -> list[dict[str, Any]]:
    return [
        {
            "user_input": "When?",
            "reference_contexts": ["<1-hop>\n\nIt was lit in 1822.", "<2-hop>\n\nTin ore is brown."],
            "reference": "1822",
            "synthesizer_name": "multi_hop",
        },
        {
            "user_input": "Which?",
            "reference_contexts": ["Copper ore is green."],
            "reference": "copper",
            "synthesizer_name": "single_hop",
        },
    ]


def test_a_ragas_test_set_is_searched_in_the_folder(tmp_path: Path) -> None:
    file = lines(tmp_path / "testset.jsonl", ragas_rows())
    assert form_of(file) == "ragas"
    found = DatasetSettings(questions=file, folder=folder(tmp_path / "texts", {"lamp.txt": LAMP, "ore.txt": ORE})).load(
        ["synthesizer_name"]
    )
    assert evidence(found) == {"1": [{"It was lit in 1822."}, {"Tin ore is brown."}], "2": [{"Copper ore is green."}]}
    assert found.column("synthesizer_name") == {"1": "multi_hop", "2": "single_hop"}
    assert any("made by a language model" in note for note in found.notes)


def test_a_ragas_test_set_alone_is_judged_on_its_contexts(tmp_path: Path) -> None:
    found = read(lines(tmp_path / "testset.jsonl", ragas_rows()))
    assert relevant(found) == {"1": {"It was lit in 1822.", "Tin ore is brown."}, "2": {"Copper ore is green."}}
    assert any("the contexts of the questions, 3, are the documents" in note for note in found.notes)


def test_a_ragas_test_set_written_by_pandas_has_lists_in_its_cells(tmp_path: Path) -> None:
    file = tmp_path / "testset.csv"
    file.write_text("user_input,reference_contexts,reference,synthesizer_name\nWhen?,\"['It was lit in 1822.']\",1822,single\n")
    assert form_of(file) == "ragas"
    (one,) = reading.asked(reading.Source(file)).asked
    assert [quote.text for piece in one.evidence for quote in piece] == ["It was lit in 1822."]


def autorag(tmp_path: Path) -> tuple[Path, Path]:
    whole = f"{LAMP}\n\n{ORE}"
    cut = {"c1": (0, len(LAMP) - 1), "c2": (len(LAMP) + 2, len(whole) - 1)}
    corpus = [
        {
            "doc_id": name,
            "contents": whole[start : end + 1],
            "path": "texts/all.txt",
            "start_end_idx": [start, end],
            "metadata": {"page": -1},
        }
        for name, (start, end) in cut.items()
    ]
    qa = [
        {"qid": "q1", "query": "When?", "retrieval_gt": [["c1"], ["c2"]], "generation_gt": ["1822", "in 1822"]},
        {"qid": "q2", "query": "Which?", "retrieval_gt": [["c2", "c1"]], "generation_gt": ["copper"]},
        {"qid": "q3", "query": "Brown?", "retrieval_gt": [["c2"]], "generation_gt": ["tin"]},
    ]
    pq.write_table(pa.Table.from_pylist(corpus), tmp_path / "corpus.parquet")
    pq.write_table(pa.Table.from_pylist(qa), tmp_path / "qa.parquet")
    folder(tmp_path / "texts", {"all.txt": whole})
    return tmp_path / "qa.parquet", tmp_path / "corpus.parquet"


def test_autorag_is_found_in_the_files_that_its_chunks_were_cut_from(tmp_path: Path) -> None:
    qa, corpus = autorag(tmp_path)
    assert form_of(qa) == "autorag"
    found = read(qa, corpus=corpus, folder=tmp_path / "texts")
    assert asked(found)["q1"] == ("When?", ["1822", "in 1822"])
    assert evidence(found) == {"q1": [{LAMP}, {ORE}], "q2": [{LAMP, ORE}], "q3": [{ORE}]}
    assert found.documents["id"].to_pylist() == ["all.txt"]


def test_autorag_without_its_files_is_judged_on_chunks(tmp_path: Path) -> None:
    qa, corpus = autorag(tmp_path)
    found = read(qa, corpus=corpus)
    assert relevant(found) == {"q1": {LAMP, ORE}, "q2": {LAMP, ORE}, "q3": {ORE}}
    with pytest.raises(InputError, match="come without documents"):
        read(qa)


def test_flashrag_asks_about_a_corpus_of_its_own(tmp_path: Path) -> None:
    rows = [
        {"id": f"test_{n}", "question": f"Q{n}?", "golden_answers": ["oil", "Oil"], "metadata": {"level": "hard"}}
        for n in range(3)
    ]
    file = lines(tmp_path / "test.jsonl", rows)
    assert form_of(file) == "flashrag"
    corpus = lines(tmp_path / "corpus.jsonl", [{"id": "0", "contents": LAMP}, {"id": "1", "contents": ORE}])
    found = DatasetSettings(questions=file, corpus=corpus).load(["level"])
    assert asked(found)["test_0"] == ("Q0?", ["oil", "Oil"])
    assert found.documents["id"].to_pylist() == ["0", "1"]
    assert set(found.column("level").values()) == {"hard"}


LANGSMITH = [
    {
        "id": "e1",
        "inputs": {"question": "When?", "user": "u1"},
        "outputs": {"answer": "1822"},
        "metadata": {"kind": "date"},
        "split": "test",
    },
    {
        "id": "e2",
        "inputs": {"question": "Which?", "user": "u2"},
        "outputs": {"answer": "copper"},
        "metadata": {"kind": "name"},
        "split": "validation",
    },
]


def test_an_export_of_langsmith_is_read(tmp_path: Path) -> None:
    file = lines(tmp_path / "examples.jsonl", LANGSMITH)
    assert form_of(file) == "langsmith"
    found = DatasetSettings(questions=file, folder=folder(tmp_path / "texts", {"a.txt": LAMP})).load(["kind"])
    assert asked(found) == {"e1": ("When?", ["1822"]), "e2": ("Which?", ["copper"])}
    assert found.splits == {"dev": 1, "test": 1}
    assert found.column("kind") == {"e1": "date", "e2": "name"}


def test_an_export_of_a_conversation_ends_with_the_question(tmp_path: Path) -> None:
    said = [
        {"role": "user", "content": "Is there a lamp?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "When was it lit?"},
    ]
    rows = [{"id": "e1", "inputs": {"messages": said}, "outputs": {"answer": "1822"}}]
    (one,) = reading.asked(reading.Source(lines(tmp_path / "examples.jsonl", rows))).asked
    assert one.question == "When was it lit?"
    assert [turn.content for turn in one.history] == ["Is there a lamp?", "Yes."]


def test_a_table_of_langsmith_has_inputs_in_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "examples.csv"
    file.write_text("id,input_question,output_answer,metadata\ne1,When?,1822,\ne2,Which?,copper,\n")
    assert form_of(file) == "langsmith"
    assert [(one.id, one.question, one.answers) for one in reading.asked(reading.Source(file)).asked] == [
        ("e1", "When?", ("1822",)),
        ("e2", "Which?", ("copper",)),
    ]


def test_inputs_of_several_texts_are_refused_until_one_is_named(tmp_path: Path) -> None:
    rows = [{"id": "e1", "inputs": {"topic": "lamp", "ask": "When?"}, "outputs": {"answer": "1822"}}]
    file = lines(tmp_path / "examples.jsonl", rows)
    with pytest.raises(InputError, match=r"'inputs\.ask' and 'inputs\.topic' may each be the question; say which one"):
        reading.asked(reading.Source(file))
    (one,) = reading.asked(reading.Source(file, columns={"question": "inputs.ask"})).asked
    assert (one.question, one.answers) == ("When?", ("1822",))


def test_an_export_of_phoenix_is_read(tmp_path: Path) -> None:
    rows = [
        {"id": f"x{n}", "input": {"query": f"Q{n}?"}, "output": {"answer": "oil"}, "metadata": {"level": n}} for n in range(2)
    ]
    file = tmp_path / "export.json"
    file.write_text(json.dumps({"dataset_id": "d", "version_id": "v", "examples": rows}))
    assert form_of(file) == "phoenix"
    found = reading.asked(reading.Source(file))
    assert [(one.id, one.question, one.answers) for one in found.asked] == [("x0", "Q0?", ("oil",)), ("x1", "Q1?", ("oil",))]
    assert found.further == {"level": 2}


TOPICS = """<top>
<num> Number: 301
<title> lamp oil

<desc> Description:
What does the lamp burn?
<narr> Narrative:
Relevant are documents on fuel.
</top>
<top>
<num> Number: 302
<title> green ore &amp; brown ore
<desc> Description:
Which ore is green?
</top>
"""


def test_trec_topics_are_judged_by_qrels(tmp_path: Path) -> None:
    (tmp_path / "topics.txt").write_text(TOPICS)
    (tmp_path / "qrels.txt").write_text("301 0 lamp 1\n301 0 ore 0\n302 0 ore 2\n302 0 gone 1\n999 0 ore 1\n")
    documents = folder(tmp_path / "texts", {"lamp.txt": LAMP, "ore.txt": ORE})
    found = read(tmp_path / "topics.txt", qrels=tmp_path / "qrels.txt", folder=documents)
    assert asked(found) == {"301": ("lamp oil", None), "302": ("green ore & brown ore", None)}
    assert relevant(found) == {"301": {LAMP}, "302": {ORE}}
    assert any("'gone'" in note for note in found.notes) and any("999" in note for note in found.notes)
    described = read(tmp_path / "topics.txt", qrels=tmp_path / "qrels.txt", folder=documents, columns={"question": "desc"})
    assert asked(described)["302"] == ("Which ore is green?", None)


def test_trec_topics_in_xml_are_read(tmp_path: Path) -> None:
    (tmp_path / "topics.xml").write_text(
        '<topics task="x">\n<topic number="1">\n<query>lamp oil</query>\n<question>what burns</question>\n</topic>\n</topics>\n'
    )
    (one,) = reading.asked(reading.Source(tmp_path / "topics.xml")).asked
    assert (one.id, one.question) == ("1", "lamp oil")


def test_a_table_is_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(
        "Question,Expected answer,Evidence,Doc name,Language,conversation_id\n"
        'When?,"[""1822"", ""in 1822""]",It was lit in 1822.,lamp.txt,en,c1\n'
        "Which?,copper,Copper ore is green.,ore,de,c1\n"
        "Who?,,,ore.txt,de,c2\n"
    )
    found = reading.asked(reading.Source(file))
    assert found.form == known.NAMED
    assert found.roles == {
        "question": "Question",
        "answers": "Expected answer",
        "evidence": "Evidence",
        "document": "Doc name",
        "group": "conversation_id",
    }
    assert found.further == {"Language": 2}
    documents = folder(tmp_path / "texts", {"lamp.txt": LAMP, "ore.txt": ORE})
    made = DatasetSettings(questions=file, folder=documents).load(["Language"])
    assert asked(made) == {"1": ("When?", ["1822", "in 1822"]), "2": ("Which?", ["copper"]), "3": ("Who?", None)}
    assert groups(made) == {"1": "c1", "2": "c1", "3": "c2"}
    assert made.column("Language") == {"1": "en", "2": "de", "3": "de"}
    # the third names a document and no words in it
    assert made.kind == "documents" and relevant(made)["1"] == {LAMP} and relevant(made)["3"] == {ORE}
    with pytest.raises(InputError, match="no question has the column 'Langauge'"):
        DatasetSettings(questions=file, folder=documents).load(["Langauge"])


def test_open_natural_questions_are_read_by_name(tmp_path: Path) -> None:
    file = lines(tmp_path / "NQ-open.dev.jsonl", [{"question": "when was it lit", "answer": ["1822", "in 1822"]}])
    (one,) = reading.asked(reading.Source(file)).asked
    assert (one.question, one.answers) == ("when was it lit", ("1822", "in 1822"))


def test_two_columns_for_one_thing_are_refused_until_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("question,query,answer\nA?,B?,c\n")
    with pytest.raises(InputError, match="the columns 'query' and 'question' may both be the question"):
        reading.asked(reading.Source(file))
    (one,) = reading.asked(reading.Source(file, columns={"question": "query"})).asked
    assert one.question == "B?"
    with pytest.raises(InputError, match="unknown column 'qurey'"):
        reading.asked(reading.Source(file, columns={"question": "qurey"}))
    with pytest.raises(InputError, match="unknown part of a question 'questoin'"):
        reading.asked(reading.Source(file, columns={"questoin": "query"}))


def test_a_table_without_a_question_lists_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"no column is known to be the question; found: a, b; known names: question, "):
        reading.asked(reading.Source(file))


def test_columns_of_two_forms_are_refused_with_both_named(tmp_path: Path) -> None:
    row = HOTPOT | {"golden_answers": ["yes"]}
    file = lines(tmp_path / "mixed.jsonl", [row])
    with pytest.raises(InputError, match=r"the columns fit the forms hotpotqa and flashrag; say which one with `form: hotpotqa`"):
        reading.asked(reading.Source(file))
    assert reading.asked(reading.Source(file, form="flashrag")).asked[0].answers == ("yes",)
    with pytest.raises(ValueError, match="unknown form 'hotpot'"):
        DatasetSettings(questions=file, form="hotpot")


def test_every_form_that_is_named_can_be_recognised() -> None:
    for form in known.PUBLISHED:
        for needed in form.needs:
            assert known.recognised(needed, "here") == form.name


@pytest.mark.parametrize("form", known.PUBLISHED, ids=lambda form: form.name)
def test_a_row_of_another_type_is_refused_with_its_place(form: Any, tmp_path: Path) -> None:
    file = lines(tmp_path / "rows.jsonl", [{"question": 3}])
    with pytest.raises(InputError, match=r"rows\.jsonl, line 1: "):
        reading.asked(reading.Source(file, form=form.name))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"question": ""}\n', 'line 1: question: received ""; allowed: a text that is not empty'),
        ('{"question": "A?", "answer": {"a": 1}}\n', "line 1: answer: received"),
        ('{"question": "A?", "page": "x", "document": "d"}\n', "line 1: page: received 'x'; allowed: the number of a page"),
        ('{"question": "A?", "split": "final"}\n', "unknown split 'final'"),
        ("[]\n", "is empty"),
        ("", "is empty"),
    ],
)
def test_a_bad_value_is_refused_with_its_place(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(content)
    with pytest.raises(InputError) as error:
        read(tmp_path / "mine.json", folder=folder(tmp_path / "texts", {"a.txt": LAMP}))
    assert said in str(error.value) and "mine.json" in str(error.value)


def test_a_question_alone_without_split_is_named(tmp_path: Path) -> None:
    rows = [{"id": "1", "question": "A?", "split": "dev", "answer": "x"}, {"id": "2", "question": "B?", "answer": "x"}]
    file = lines(tmp_path / "mine.jsonl", rows)
    with pytest.raises(InputError, match=r"mine\.jsonl, line 2: question '2' has no split, and 1 other has one"):
        read(file, folder=folder(tmp_path / "texts", {"a.txt": LAMP}))


def test_the_order_of_the_rows_and_the_name_of_the_file_change_nothing(tmp_path: Path) -> None:
    rows = [{"id": str(n), "question": f"Q{n}?", "answer": "x", "evidence": (LAMP, MILL, ORE)[n % 3]} for n in range(12)]
    texts = folder(tmp_path / "texts", {"a.txt": LAMP, "b.txt": MILL, "c.txt": ORE})
    one = read(lines(tmp_path / "a.jsonl", rows), folder=texts)
    other = read(lines(tmp_path / "b.jsonl", rows[::-1]), folder=texts)
    assert one.queries.equals(other.queries) and one.judgements.equals(other.judgements)


def test_the_same_content_under_another_ending_is_read_anew(tmp_path: Path) -> None:
    texts = folder(tmp_path / "texts", {"a.txt": LAMP, "b.txt": ORE})
    content = "question\tanswer, long\nWhen?\t1822, or so\nGreen?\tcopper, mostly\n"
    (tmp_path / "mine.tsv").write_text(content)
    (tmp_path / "mine.csv").write_text(content)
    found = read(tmp_path / "mine.tsv", folder=texts, columns={"question": "question", "answers": "answer, long"})
    assert asked(found)["1"] == ("When?", ["1822, or so"])
    with pytest.raises(InputError, match="unknown column 'question'"):
        read(tmp_path / "mine.csv", folder=texts, columns={"question": "question", "answers": "answer, long"})


@pytest.mark.parametrize("setting", ["questions", "corpus", "qrels"])
def test_a_file_that_is_not_there_is_named(setting: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("question,answer\nA?,x\n")
    settings = {"questions": tmp_path / "mine.csv", "folder": folder(tmp_path / "texts", {"a.txt": LAMP})}
    with pytest.raises(InputError, match=r"nowhere\.jsonl does not exist"):
        DatasetSettings(**settings | {setting: tmp_path / "nowhere.jsonl"}).load()
