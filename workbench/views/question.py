"""Questions one by one: both answers, the passages that were shown, and where the evidence was lost."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

from workbench.errors import InputError
from workbench.results import words
from workbench.results.lines import PassageRecord, QuestionRecord, RankingRecord, SpanRecord
from workbench.results.records import AnswerRecord, passage_id
from workbench.results.run import Run
from workbench.results.verdict import BOTH, GAINED, LOST, NEITHER, outcomes
from workbench.views.html import box, cell, foreign, sourced, text

SIGNS = {GAINED: "▲", LOST: "▼", BOTH: "=", NEITHER: "✕"}
TOLD = 3  # gained and lost questions shown in full at the top
MOST_VALUES = 20  # of a column that questions can be chosen by
EVIDENCE = "evidence"
LONGEST = 4000  # characters of a text that is shown; what is cut off is said


@dataclass(frozen=True)
class Lost:
    """Where the evidence of a question was lost on its way to an answer; `word` is empty where it was not."""

    word: str
    sentence: str


class Asked:
    """The report split's questions with the answers of two setups.

    Attributes:
        run: a finished run.
        a: id of the first setup, the chosen one.
        b: id of the second, the baseline.
    """

    def __init__(self, run: Run) -> None:
        """Reads what is needed.

        Raises:
            InputError: the run lacks a file of its questions, passages or rankings.
        """
        self.run, self.a, self.b = run, run.best, run.manifest["baseline"]
        split = run.report_split
        self.questions = [one for one in run.questions if one.split == split]
        self.answers: dict[tuple[str, str], AnswerRecord] = {}
        for row in run.answers:
            if row["split"] == split and row["configuration"] in (self.a, self.b):
                self.answers.setdefault((row["configuration"], row["query_id"]), row)  # the first of several seeds is served
        self.outcomes = outcomes(run, self.a, self.b, split) or {}
        metric = run.select[1]
        self.scores = {
            (row.configuration, row.query_id): row.value for row in run.results if (row.split, row.metric) == (split, metric)
        }
        self._rankings = {(row.ranking, row.query_id): row for row in run.rankings if row.split == split}

    @cached_property
    def setups(self) -> list[str]:
        """The two setups; one where the chosen one is the baseline."""
        return list(dict.fromkeys([self.a, self.b]))

    def ranking(self, configuration: str, query_id: str) -> RankingRecord | None:
        """What a setup's ranking finds for a question, or None where it never shows passages."""
        return self._rankings.get((self.run.ranking_of(configuration) or "", query_id))

    def lost(self, configuration: str, question: QuestionRecord) -> Lost:
        """Where a setup lost the evidence of a question."""
        answer, found = self.answers.get((configuration, question.query_id)), self.ranking(configuration, question.query_id)
        if not question.evidence or found is None:
            return Lost("", "")
        shown = len(answer["passages"]) if answer else 0
        rank = found.evidence_rank
        if rank is None:
            return Lost("never retrieved", "The evidence was never retrieved.")
        if answer is None:
            return Lost("", f"The evidence stands at rank {rank}.")
        if rank > shown:
            return Lost("ranked too low", f"The evidence stands at rank {rank}; the best {shown} were shown.")
        right = self.outcomes.get(question.query_id) in ((BOTH, GAINED) if configuration == self.a else (BOTH, LOST))
        if right or not self.outcomes:
            return Lost("", f"The evidence was shown, at rank {rank}.")
        return Lost("shown and misread", f"The evidence was shown, at rank {rank}, and the answer is wrong all the same.")


def strip(run: Run) -> str:
    """How many questions the chosen setup gained and lost against the baseline."""
    baseline, split = run.manifest["baseline"], run.report_split
    if run.best == baseline:
        return box(f"The chosen setup is {run.today} itself, so no question was gained or lost.")
    found = outcomes(run, run.best, baseline, split)
    if not found:
        return box(
            "No measured metric says right or wrong, so questions are not counted; this run ranks passages or scores by degree."
        )
    counted, n = Counter(found.values()), len(found)
    cells = (
        cell("results.csv", "value", split=split, configuration=run.best),
        cell("results.csv", "value", split=split, configuration=baseline),
    )
    parts = [(GAINED, "wb-g"), (LOST, "wb-l"), (BOTH, "wb-b")]
    bars = "".join(f"<i class={look} style='width:{100 * counted[word] / n:.2f}%'></i>" for word, look in parts)
    keys = "".join(
        f"<li>{SIGNS[word]} <strong>{sourced(str(counted[word]), *cells)}</strong> {word}</li>"
        for word in (GAINED, LOST, BOTH, NEITHER)
    )
    said = ", ".join(f"{counted[word]} {word}" for word in (GAINED, LOST, BOTH, NEITHER))
    return (
        f"<p>Of the {sourced(str(n), *cells)} questions, against {text(run.today)}:</p>"
        f"<div class=wb-stack role=img aria-label='{said}'>{bars}</div><ul class=wb-keys>{keys}</ul>"
    )


def telling(asked: Asked) -> str:
    """A few gained and lost questions in full."""
    parts = []
    for word in (GAINED, LOST):
        chosen = [one for one in asked.questions if asked.outcomes.get(one.query_id) == word][:TOLD]
        parts += [f"<h3>{SIGNS[word]} {word.capitalize()}</h3>", *(question(asked, one) for one in chosen)] if chosen else []
    return "".join(parts)


def everyone(asked: Asked) -> str:
    """All questions, each folded, with buttons that show a part of them where scripts run."""
    if not asked.questions:
        return box("The run holds no questions of the split that is reported.")
    words_found = [word for word in (GAINED, LOST, BOTH, NEITHER) if word in asked.outcomes.values()]
    buttons = "".join(
        f"<button type=button aria-pressed={'true' if not word else 'false'} data-show='{word}'>{text(word or 'all')}</button>"
        for word in ["", *words_found]
    )
    choices = "".join(_choice(f"Questions by {name}", name, values) for name, values in _parts(asked).items())
    find = "<input type=search aria-label='Find in questions and answers' placeholder='find'>"
    controls = f"<div class=wb-filter hidden>{buttons}{choices}{find}<span role=status></span></div>"
    return controls + "".join(_folded(asked, one) for one in asked.questions)


def _parts(asked: Asked) -> dict[str, list[str]]:
    """What questions can be chosen by, with its values: where the evidence was lost, and columns of few values."""
    found: dict[str, list[str]] = {}
    for one in asked.questions:
        for name, value in _traits(asked, one).items():
            found.setdefault(name, []).append(value)
    parts = {name: sorted(set(values)) for name, values in found.items()}
    return {name: values for name, values in parts.items() if 1 < len(values) <= MOST_VALUES or name == EVIDENCE}


def _traits(asked: Asked, one: QuestionRecord) -> dict[str, str]:
    lost = asked.lost(asked.a, one).word
    return one.columns | ({EVIDENCE: lost} if lost else {})


def _choice(label: str, name: str, values: Sequence[str]) -> str:
    """A list to choose from; its values carry their column, so that equal values of two columns stay apart."""
    options = "".join(f"<option value='{text(_trait(name, value))}'>{text(_short(value, 60))}</option>" for value in values)
    return f"<select aria-label='{text(label)}'><option value=''>{text(name)}: any</option>{options}</select>"


def _trait(name: str, value: str) -> str:
    return quote(name) + "=" + quote(value)


FILTER = """
const bar = document.querySelector('.wb-filter'), all = [...document.querySelectorAll('details[data-outcome]')];
if (bar) {
  bar.hidden = false;
  let wanted = '';
  const find = bar.querySelector('input'), status = bar.querySelector('[role=status]');
  const choices = [...bar.querySelectorAll('select')];
  const update = () => {
    const words = find.value.toLowerCase();
    let n = 0;
    for (const one of all) {
      const traits = one.dataset.traits.split(' ');
      const chosen = choices.every(choice => !choice.value || traits.includes(choice.value));
      const fits = (!wanted || one.dataset.outcome === wanted) && chosen && one.textContent.toLowerCase().includes(words);
      one.hidden = !fits;
      n += fits;
    }
    status.textContent = n + ' of ' + all.length + ' questions';
  };
  for (const button of bar.querySelectorAll('button')) button.addEventListener('click', () => {
    wanted = button.dataset.show;
    for (const other of bar.querySelectorAll('button')) other.setAttribute('aria-pressed', other === button);
    update();
  });
  for (const choice of choices) choice.addEventListener('change', update);
  find.addEventListener('input', update);
  update();
}
"""


def _folded(asked: Asked, one: QuestionRecord) -> str:
    word = asked.outcomes.get(one.query_id, "")
    sign = f"<span title='{word}'>{SIGNS[word]}<span class=wb-quiet> {word}</span></span> " if word else ""
    title = f"{sign}{foreign(_short(one.question, 200))}"
    body = question(asked, one, titled=False)
    traits = " ".join(_trait(name, value) for name, value in _traits(asked, one).items())
    return (
        f"<details data-outcome='{word}' data-traits='{text(traits)}' id='q-{quote(one.query_id)}'>"
        f"<summary>{title}</summary>{body}</details>"
    )


def question(asked: Asked, one: QuestionRecord, titled: bool = True) -> str:
    """A question in full: what is accepted, both answers, and the passages shown, with the words marked.

    Args:
        asked: the questions and answers of a run.
        one: of its questions.
        titled: whether the question itself is shown.
    """
    accepted = "; ".join(foreign(answer) for answer in one.answers or [])
    nothing = "the documents hold no answer; abstaining is right" if one.answers is not None else "nobody wrote any"
    head = f"<h3>{foreign(_short(one.question))}</h3>" if titled else ""
    tags = (f" <span class=wb-tag>{foreign(name)}: {foreign(value)}</span>" for name, value in sorted(one.columns.items()))
    parts = [head, f"<p class=wb-quiet>Accepted: {accepted or nothing}{''.join(tags)}</p>"]
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
            shown = marked(answer["answer"], one.answers or [])
        said = f"<blockquote>{shown}</blockquote>"
    metric, score = asked.run.select[1], asked.scores.get((configuration, one.query_id))
    scored = ""
    if score is not None:
        address = cell("results.csv", "value", configuration=configuration, split=one.split, query_id=one.query_id, metric=metric)
        scored = f"{text(words.metric_name(metric))} {sourced(words.number(score), address)} of 100. "
    ranking = asked.run.ranking_of(configuration) or ""
    where = sourced(
        asked.lost(configuration, one).sentence, cell("rankings.jsonl", "evidence_rank", ranking=ranking, query_id=one.query_id)
    )
    return f"<div><strong>{text(name)}</strong>{said}<p class=wb-quiet>{scored}{where}</p></div>"


def _passages(asked: Asked, one: QuestionRecord) -> str:
    """The passages that the setups were shown, each once."""
    shown: dict[str, list[str]] = {}
    for configuration in asked.setups:
        answer, found = asked.answers.get((configuration, one.query_id)), asked.ranking(configuration, one.query_id)
        ids = (
            [passage_id(place) for place in answer["passages"]]
            if answer
            else [row.passage for row in found.passages[:TOLD]]
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
        lines.append(
            f"<blockquote><small>{title} · shown to: {by}{holds}</small><br>{body}</blockquote>"
        )
    return "".join(lines)


def _evidence(row: PassageRecord, one: QuestionRecord) -> tuple[str, str]:
    """What is said of the evidence in a passage, and its text as HTML: accepted answers marked, evidence underlined."""
    spans = sorted(
        (max(span.start - row.start, 0), min(span.end, row.end) - row.start)
        for span in one.evidence
        if isinstance(span, SpanRecord) and span.doc_id == row.doc_id and span.start < row.end and row.start < span.end
    )
    whole = any(not isinstance(span, SpanRecord) and span.doc_id == row.doc_id for span in one.evidence)
    parts, at, answers = [], 0, one.answers or []
    for start, end in spans if len(row.text) <= LONGEST else []:
        if start >= at:
            parts += [marked(row.text[at:start], answers), f"<u>{marked(row.text[start:end], answers)}</u>"]
            at = end
    said = " · <strong>holds evidence</strong>" + (", underlined" if parts else "") if spans or whole else ""
    return said, "".join([*parts, marked(row.text[at:], answers)])


def marked(body: str, answers: Sequence[str]) -> str:
    """A text as HTML in which each of the accepted answers is marked, whatever its case; a very long one is cut, which is said.

    Args:
        body: the text.
        answers: what is marked.
    """
    shown = _short(body)
    wanted = sorted({answer for answer in answers if answer.strip()}, key=len, reverse=True)
    if not wanted:
        return foreign(shown)
    found = re.split("(" + "|".join(map(re.escape, wanted)) + ")", shown, flags=re.IGNORECASE)
    parts = [f"<mark>{text(part)}</mark>" if i % 2 else text(part) for i, part in enumerate(found)]
    return f"<bdi>{''.join(parts)}</bdi>"


def _short(body: str, most: int = LONGEST) -> str:
    return body if len(body) <= most else f"{body[:most]} … ({len(body) - most:,} more characters)"


def or_box(run: Run) -> Asked | str:
    """The questions of a run, or a box that says what it lacks."""
    try:
        return Asked(run)
    except InputError as error:
        return box(str(error))
