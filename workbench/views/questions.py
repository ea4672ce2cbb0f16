"""All questions of a run: how many were gained and lost, the most telling ones, and a list to choose from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from urllib.parse import quote

from workbench.results.lines import QuestionRecord
from workbench.results.run import Run
from workbench.results.verdict import BOTH, GAINED, LOST, NEITHER, counted, outcomes
from workbench.views.asked import Asked, asked_of
from workbench.views.html import box, cell, foreign, sourced, text
from workbench.views.marking import short
from workbench.views.question import question

SIGNS = {GAINED: "▲", LOST: "▼", BOTH: "=", NEITHER: "✕"}
TOLD = 3  # gained and lost questions shown in full at the top
EVIDENCE, TAG = "evidence", "tag"
RIGHT = {
    "contains": "an answer is right where it contains an accepted one",
    "em": "an answer is right where it is an accepted one, but for case, articles and punctuation",
}


def strip(run: Run) -> str:
    """How many questions the chosen setup gained and lost against the baseline."""
    baseline, split = run.manifest["baseline"], run.report_split
    if run.best == baseline:
        return f"<p>The chosen setup is {text(run.today)} itself, so no question was gained or lost.</p>"
    metric, found = counted(run, run.best, baseline, split), outcomes(run, run.best, baseline, split)
    if not found or metric is None:
        said = "No metric of this run calls an answer right or wrong, so gained and lost questions cannot be counted."
        return f"<p>{said}</p>"
    number, n = Counter(found.values()), len(found)
    cells = [
        cell("results.csv", "value", split=split, configuration=c, metric=metric, query_id="*") for c in (run.best, baseline)
    ]
    parts = [(GAINED, "wb-g"), (LOST, "wb-l"), (BOTH, "wb-b")]
    bars = "".join(f"<i class={look} style='width:{100 * number[word] / n:.2f}%'></i>" for word, look in parts)
    keys = "".join(
        f"<li>{SIGNS[word]} <strong>{sourced(str(number[word]), *cells)}</strong> {word}</li>"
        for word in (GAINED, LOST, BOTH, NEITHER)
    )
    said = ", ".join(f"{number[word]} {word}" for word in (GAINED, LOST, BOTH, NEITHER))
    return (
        f"<p>Of the {sourced(str(n), *cells)} questions, against {text(run.today)}; {RIGHT[metric]}:</p>"
        f"<div class=wb-stack role=img aria-label='{said}'>{bars}</div><ul class=wb-keys>{keys}</ul>"
    )


def gained_and_lost(run: Run) -> str:
    """A few gained and lost questions of a run in full, or what it lacks."""
    asked = asked_of(run)
    return asked if isinstance(asked, str) else telling(asked)


def telling(asked: Asked) -> str:
    """A few gained and lost questions in full."""
    parts = []
    for word in (GAINED, LOST):
        chosen = [one for one in asked.questions if asked.outcomes.get(one.query_id) == word][:TOLD]
        parts += [f"<h3>{SIGNS[word]} {word.capitalize()}</h3>", *(question(asked, one) for one in chosen)] if chosen else []
    return "".join(parts)


def everyone(asked: Asked, filters: bool = False) -> str:
    """All questions, each folded.

    Args:
        asked: the questions and answers of a run.
        filters: whether there are controls that show a part of them, for a page with the script `FILTER`.
    """
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
    return (controls if filters else "") + "".join(_folded(asked, one) for one in asked.questions)


def _parts(asked: Asked) -> dict[str, list[str]]:
    """What questions can be chosen by, with its values: where the evidence was lost, tags, and columns of few values."""
    lost = sorted({asked.lost(asked.a, one).word for one in asked.questions} - {""})
    found = {EVIDENCE: lost} if lost else {}
    if tags := list(asked.tags.counts(asked.a)):
        found[TAG] = tags
    for name, value in asked.parts:
        found.setdefault(name, []).append(value)
    return found


def _traits(asked: Asked, one: QuestionRecord) -> list[tuple[str, str]]:
    lost = asked.lost(asked.a, one).word
    tags = asked.tags.of(asked.a, one.query_id).tags
    return [*one.columns.items(), *([(EVIDENCE, lost)] if lost else []), *((TAG, tag) for tag in tags)]


def _choice(label: str, name: str, values: Sequence[str]) -> str:
    """A list to choose from; its values carry their column, so that equal values of two columns stay apart."""
    options = "".join(f"<option value='{text(_trait(name, value))}'>{text(short(value, 60))}</option>" for value in values)
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
    title = f"{sign}{foreign(short(one.question, 200))}"
    body = question(asked, one, titled=False)
    traits = " ".join(_trait(name, value) for name, value in _traits(asked, one))
    return (
        f"<details data-outcome='{word}' data-traits='{text(traits)}' id='q-{quote(one.query_id)}'>"
        f"<summary>{title}</summary>{body}</details>"
    )
