"""The same question, answered by another measured configuration of the run, side by side with the answer that is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from html import escape

from workbench.pipeline import Asked, Pipeline, Reply
from workbench.results import words
from workbench.results.verdict import verdict
from workbench.serving.caller import Caller
from workbench.serving.facts import Served, served
from workbench.serving.page.html import answer_html, cited_html
from workbench.serving.recording import Recording


class Comparing:
    """Answers with other configurations; one of them is open at a time, with models of its own."""

    def __init__(self, asking: Recording, opened: Callable[[str], Pipeline]) -> None:
        """Opens nothing yet.

        Args:
            asking: serves the run.
            opened: the pipeline of a configuration of the run.
        """
        self.asking, self.opened = asking, opened
        self._open: Pipeline | None = None
        self._one = asyncio.Lock()

    def choices(self) -> list[tuple[str, str]]:
        """Label and id of each measured configuration but the one that is served, those on the report split first."""
        run, served_now = self.asking.service.pipeline.run, self.asking.service.pipeline.configuration.id
        rows = sorted(run.leaderboard, key=lambda row: row.split != run.report_split)
        return [(run.labels[one], one) for one in dict.fromkeys(row.configuration for row in rows) if one != served_now]

    async def answer(self, configuration: str, asked: Asked, caller: Caller) -> tuple[Served, Reply]:
        """What a configuration answers, and what was measured of it.

        Args:
            configuration: its id.
            asked: the question. What was said before is left out where the configuration does not rewrite questions.
            caller: who asks.

        Raises:
            ProblemError: the caller has asked or used too much, or there is no answer.
        """
        async with self._one:
            if self._open is None or self._open.configuration.id != configuration:
                self._open = await asyncio.to_thread(self.opened, configuration)
            pipeline = self._open
            alone = asked if pipeline.stages.questions else Asked(asked.question)
            return served(pipeline), await self.asking.beside(pipeline, alone, caller)


def compared_html(pipeline: Pipeline, mine: Reply, facts: Served, other: Reply) -> str:
    """Two answers side by side, each with its measured figure, and the verdict on the two.

    Args:
        pipeline: what is served.
        mine: its answer.
        facts: on the other configuration.
        other: its answer.
    """
    sides = _side(served(pipeline), mine, "served") + _side(facts, other, "compared")
    return f'<div class="pair">{sides}</div><p class="figure">{escape(_between(pipeline, other))}</p>'


def _side(facts: Served, reply: Reply, what: str) -> str:
    measured = "How good its answers are was not measured."
    if facts.figure:
        row = facts.figure.row
        measured = f"{words.metric_name(row.metric)} {words.number(row.mean)}{facts.figure_text}"
    seconds = reply.seconds.get("total")
    took = f'<p class="place">{seconds:.2f} s</p>' if seconds else ""
    places = ", ".join(f"{one.title or one.place.doc_id} ({one.score:.4g})" for one in reply.sources)
    read = f'<p class="place">Read: {escape(places)}</p>' if places else ""
    return (
        f'<section aria-label="{escape(facts.label)}"><h2>{escape(facts.label)} <span class="quiet">{what}</span></h2>'
        f'{answer_html(reply)}{cited_html(reply, link=False)}{read}{took}<p class="figure">{escape(measured)}</p></section>'
    )


def _between(pipeline: Pipeline, other: Reply) -> str:
    """The run's verdict on the configuration that is served less the other one."""
    run = pipeline.run
    found = verdict(run, pipeline.configuration.id, other.provenance["configuration"])
    if found.row:
        return f"What is served against {other.provenance['label']}: {found.phrase}."
    return f"Whether one of the two is better was not measured on the {found.split} split; one question cannot show it."
