"""One question in full: both answers, the passages that were shown, and where the evidence was lost."""

from __future__ import annotations

from workbench.results import words
from workbench.results.lines import PassageRecord, QuestionRecord, SpanRecord
from workbench.results.records import passage_id
from workbench.views.asked import Asked
from workbench.views.html import cell, foreign, sourced, text
from workbench.views.marking import Place, marked, own_words, short

RANKED = 3  # passages shown of a setup that only ranks them


def question(asked: Asked, one: QuestionRecord, titled: bool = True) -> str:
    """A question in full: what is accepted, both answers, and the passages shown, with the words marked.

    Args:
        asked: the questions and answers of a run.
        one: of its questions.
        titled: whether the question itself is shown.
    """
    accepted = "; ".join(foreign(answer) for answer in one.answers or [])
    nothing = "the documents hold no answer; abstaining is right" if one.answers is not None else "nobody wrote any"
    head = f"<h3>{foreign(short(one.question))}</h3>" if titled else ""
    tags = (f" <span class=wb-tag>{foreign(name)}: {foreign(value)}</span>" for name, value in sorted(one.columns.items()))
    before = "".join(f"<p class=wb-quiet>Before, {text(turn.role)}: {foreign(turn.content)}</p>" for turn in one.history)
    parts = [head, before, f"<p class=wb-quiet>Accepted: {accepted or nothing}{''.join(tags)}</p>"]
    parts.append(f"<div class=wb-pair>{''.join(_side(asked, one, c) for c in asked.setups)}</div>")
    return "".join(parts) + _passages(asked, one)


def _side(asked: Asked, one: QuestionRecord, configuration: str) -> str:
    answer, name = asked.answers.get((configuration, one.query_id)), asked.run.names[configuration]
    said = "<p class=wb-quiet>No answer of this setup is kept; it ranks passages.</p>"
    if answer is not None:
        if answer["status"] != "ok":
            shown = f"no answer ({text(answer['status'])})"
        elif not answer["answer"]:
            shown = "<em>abstained</em>"
        else:
            others = [asked.answer(c, one.query_id) for c in asked.setups if c != configuration]
            own = own_words(answer["answer"], others[0]) if others and others[0] else []
            shown = marked(answer["answer"], one.answers or [], own=own)
        trained = len(asked.seeds[configuration])
        first = f"<p class=wb-quiet>The answer of the first of {trained} trainings; scores are means.</p>" if trained > 1 else ""
        said = f"<blockquote>{shown}</blockquote>{first}"
    metric, score = asked.run.select[1], asked.scores.get((configuration, one.query_id))
    scored = ""
    if score is not None:
        address = cell("results.csv", "value", configuration=configuration, split=one.split, query_id=one.query_id, metric=metric)
        scored = f"{text(words.metric_name(metric))} {sourced(words.number(score), address)} of 100. "
    ranking = asked.run.ranking_of(configuration) or ""
    where = sourced(
        asked.lost(configuration, one).sentence, cell("rankings.jsonl", "evidence_rank", ranking=ranking, query_id=one.query_id)
    )
    return f"<div><strong>{foreign(name)}</strong>{said}<p class=wb-quiet>{scored}{where}</p></div>"


def _passages(asked: Asked, one: QuestionRecord) -> str:
    """The passages that the setups were shown, each once."""
    shown: dict[str, list[str]] = {}
    for configuration in asked.setups:
        answer, found = asked.answers.get((configuration, one.query_id)), asked.ranking(configuration, one.query_id)
        ids = (
            [passage_id(place) for place in answer["passages"]]
            if answer
            else [row.passage for row in found.passages[:RANKED]]
            if found
            else []
        )
        for rank, passage in enumerate(ids, 1):
            shown.setdefault(passage, []).append(f"{asked.run.names[configuration]}, rank {rank}")
    lines = []
    for passage, told in shown.items():
        row = asked.run.passages.get(passage)
        if row is None:
            lines.append(f"<p class=wb-quiet>{foreign(passage)} is not in passages.jsonl.</p>")
            continue
        by = sourced("; ".join(told), cell("answers.jsonl", "passages", query_id=one.query_id))
        holds, body = _evidence(row, one)
        title = foreign(row.title or row.doc_id)
        lines.append(f"<blockquote><small>{title} · shown to: {by}{holds}</small><br>{body}</blockquote>")
    return "".join(lines)


def _evidence(row: PassageRecord, one: QuestionRecord) -> tuple[str, str]:
    """What is said of the evidence in a passage, and its text as HTML: accepted answers marked, evidence underlined."""
    places = [
        span
        for span in one.evidence
        if isinstance(span, SpanRecord) and span.doc_id == row.doc_id and span.start < row.end and row.start < span.end
    ]
    spans = sorted(Place(max(span.start - row.start, 0), min(span.end, row.end) - row.start) for span in places)
    judged = any(not isinstance(span, SpanRecord) and span.doc_id == row.doc_id for span in one.evidence)
    said = ""
    if judged or any(row.start <= span.start and span.end <= row.end for span in places):
        said = " · <strong>holds evidence</strong>" + (", underlined" if spans else "")
    elif spans:
        said = " · holds a part of the evidence, underlined, which does not count"
    return said, marked(row.text, one.answers or [], spans)
