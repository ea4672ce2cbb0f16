"""Whether an actor answers as this process does: the same facts, the same pipeline, the same bytes for some questions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

from workbench.cluster import facts
from workbench.cluster.parcel import sealed
from workbench.pipeline import Asked
from workbench.serving.asking import answer_part

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline

PROBED = 4  # questions that each actor answers as this process does
JOIN_SECONDS = 600.0  # that an actor has for each step of joining: starting, loading its models, answering


class Expected:
    """What an actor has to be and to give before it answers anybody."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Computes in this process what actors are compared with.

        Args:
            pipeline: what answers.
        """
        machine, dataset = pipeline.session.machine, pipeline.session.dataset
        machine.prepare()
        self.identity = pipeline.identity
        self.facts = facts.facts(machine)
        self.probed = [Asked(query.text) for query in dataset.split(pipeline.run.report_split)[:PROBED]]
        self.parts = [answer_part(reply) for reply in pipeline.answers(self.probed)]
        self._parcel = ray.put(sealed(pipeline, pipeline.identity))

    def different(self, actor: Any) -> str | None:
        """Has an actor load the pipeline; says in words in what it differs first. None: it gives the same bytes.

        Args:
            actor: the handle of a `workbench.serving.answering_node.AnsweringNode`.

        Raises:
            ray.exceptions.RayTaskError: it cannot load the pipeline, or not answer.
            ray.exceptions.RayError: it was lost, or takes longer than `JOIN_SECONDS`.
        """
        joined = ray.get(actor.facts.remote(), timeout=JOIN_SECONDS)
        if different := facts.difference(self.facts, joined.facts) or joined.unlike_record:
            return different
        identity = ray.get(actor.open.remote(self._parcel), timeout=JOIN_SECONDS)
        if identity != self.identity:
            return f"it would answer from something else there ({identity[:12]}, here {self.identity[:12]})"
        found = ray.get(actor.answers.remote(self.probed), timeout=JOIN_SECONDS)
        for asked, reply, expected in zip(self.probed, found, self.parts, strict=True):
            if answer_part(reply) != expected:
                return f"its answer has other bytes there than here: {asked.question[:60]!r}"
        return None
