"""The page's HTML: what is served, a reply, its passages and its provenance. Functions without a server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from workbench.results import words
from workbench.serving.facts import Served
from workbench.serving.fallbacks import FALLBACK
from workbench.views.marking import marked

if TYPE_CHECKING:
    from workbench.pipeline import Reply, Source

CITATION = re.compile(r"\[(\d{1,3})\]")  # as prompts ask for it
WORD = re.compile(r"\w+")
LEAST_LETTERS = 4  # of a word that is marked by itself


def heading_html(facts: Served, logged_in: bool = False) -> str:
    """What is served and how good its answers are.

    Args:
        facts: what is served.
        logged_in: whether the visitor has logged in, and may want to leave.
    """
    source = escape(f"{facts.documents:,} documents of {facts.dataset}")
    promoted = "the promoted configuration" if facts.promoted else "not the promoted configuration"
    by = f"<strong>{escape(facts.label)}</strong>, {promoted} of run {escape(facts.run)}"
    title = f"<h1>{escape(facts.experiment)}</h1>"
    measured = _figure_html(facts) + _verdict_html(facts)
    leave = '<form method="post" action="/logout"><button type="submit">Log out</button></form>' if logged_in else ""
    return f"<header>{leave}{title}<p>Answers from {source}, by {by}.</p>{measured}</header>"


def _figure_html(facts: Served) -> str:
    if facts.figure is None:
        return '<p class="figure">How good its answers are was not measured.</p>'
    row = facts.figure.row
    mean = f"{escape(words.metric_name(row.metric))} {words.number(row.mean)}"
    return f'<p class="figure"><strong>{mean}</strong>{escape(facts.figure_text)}</p>'


def _verdict_html(facts: Served) -> str:
    """The verdict against the baseline, or why there is none."""
    return f'<p class="figure">{escape(facts.verdict_text)}</p>' if facts.verdict_text else ""


def reply_html(reply: Reply) -> str:
    """The answer and below it the passages."""
    asked_alone = '<p class="sources-title">The question was asked without passages.</p>'
    cited = named(reply) or holding(reply)
    passages = sources_html(reply.sources, reply.answer or "", cited) if passages_shown(reply) else asked_alone
    return answer_html(reply) + cited_html(reply) + passages


def named(reply: Reply) -> list[int]:
    """Ranks of the passages that the model names in brackets, as some prompts ask it to."""
    ranks = {source.rank for source in reply.sources}
    found = [int(number) for number in CITATION.findall(reply.reply)]
    return list(dict.fromkeys(number for number in found if number in ranks))


def holding(reply: Reply) -> list[int]:
    """Ranks of the passages in which the answer stands, word for word."""
    return [source.rank for source in reply.sources if reply.answer and holds(source.text, reply.answer)]


def holds(body: str, answer: str) -> bool:
    """Whether an answer stands in a text as words, whatever its case."""
    text = answer.strip(" .")
    return bool(text) and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", body, re.IGNORECASE) is not None


def cited_html(reply: Reply, link: bool = True) -> str:
    """The numbers of the passages that an answer comes from, which open them.

    Args:
        reply: with the answer.
        link: whether the passages stand on the page.
    """
    from workbench.models.answering import WRITING

    if not reply.answer or reply.status == WRITING:
        return ""
    numbers = named(reply) or holding(reply)
    if not numbers:
        return '<p class="cited">The answer names no passage, and stands in none word for word.</p>' if reply.sources else ""
    one = '<a href="#passage-{0}" aria-label="Open passage {0}">[{0}]</a>' if link else "[{0}]"
    said = "The model names passage" if named(reply) else "The answer stands word for word in passage"
    return f'<p class="cited">{said} {" ".join(one.format(number) for number in numbers)}</p>'


def answer_html(reply: Reply) -> str:
    """The answer; an abstention, a failure and an experiment without a generator are said plainly."""
    from workbench.models.answering import WRITING

    if reply.status == FALLBACK:
        return told("answer", reply.answer or "")
    if reply.status == WRITING:  # nothing is no abstention yet
        return told("answer growing", reply.answer) if reply.answer else told("waiting", "Writing …")
    if reply.answer:
        return told("answer", reply.answer)
    if reply.answer is None:
        return told("none", "This experiment only ranks passages; the best of them are below.")
    if reply.status != "ok":
        return told("none", f"No answer: {reply.status}.")
    return told("none", "The passages do not hold an answer." if passages_shown(reply) else "The generator knows no answer.")


def fallback_html(fallback: Mapping[str, Any]) -> str:
    """Says that what follows is not the model's answer, so that no measured figure stands for it."""
    what = {"passage": "the best passage, word for word"}.get(fallback["name"], f"the answer of {fallback['name']}")
    return told("error", f"Not the measured model: {fallback['why']}. This is {what}.")


def passages_shown(reply: Reply) -> bool:
    """Whether passages were meant to be shown to the generator: by default they always are."""
    shown: bool = reply.provenance.get("retrieval", {}).get("shown", True)
    return shown


def told(kind: str, text: str) -> str:
    """A line where the answer stands: an ``answer``, an ``error``, or what is waited for."""
    return f'<div class="told {kind}" role="status">{escape(text)}</div>'


def sources_html(sources: Sequence[Source], answer: str = "", cited: Sequence[int] = ()) -> str:
    """The passages in their order, each with rank, title, document, characters and score.

    Args:
        sources: the passages.
        answer: is marked where it stands; where it stands nowhere, its words are.
        cited: ranks of the passages that the answer rests on; where there are none, the first is open.
    """
    if not sources:
        return '<p class="sources-title">No passage fits the question.</p>'
    read = "The passage read" if len(sources) == 1 else f"The {len(sources)} passages read, best first"
    opened = {sources[0].rank} if len(sources) == 1 or not cited else set()
    shown = (_source_html(source, answer, source.rank in opened) for source in sources)
    return f'<p class="sources-title">{read}</p>' + "".join(shown)


def _source_html(source: Source, answer: str, opened: bool) -> str:
    place = f"{source.place.doc_id}, characters {source.place.start:,} to {source.place.end:,}, score {source.score:.4g}"
    text = answer.strip(" .")
    words_alone = [word for word in WORD.findall(answer) if len(word) >= LEAST_LETTERS]
    wanted = [text] if holds(source.text, text) else words_alone
    title = f'<span class="rank">{source.rank}</span> {escape(source.title or source.place.doc_id)}'
    return (
        f'<details class="source"{" open" if opened else ""}><summary>{title}</summary><div id="passage-{source.rank}">'
        f'<p class="place">{escape(place)}</p><p class="text">{marked(source.text, wanted)}</p></div></details>'
    )


def details_html(provenance: Mapping[str, Any], seconds: Mapping[str, float], tokens: Mapping[str, int]) -> str:
    """Timings, tokens and provenance as a list of names and values; the first two may be empty."""
    rows = [
        *((f"{name} seconds", f"{value:.3f}") for name, value in seconds.items()),
        *((f"{name} tokens", str(value)) for name, value in tokens.items()),
        *provenance_rows(provenance),
    ]
    return '<dl class="details">' + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in rows) + "</dl>"


def provenance_rows(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of all that the provenance holds; every artifact takes a row of its own."""
    rows = []
    for name, value in provenance.items():
        named = value.items() if isinstance(value, Mapping) else [(name, value)]
        rows += [(key, str(one)) for key, one in named if one is not None]
    return rows
