"""What answers when the model does not. Each is marked, has no measured figure beside it, and is kept in no cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workbench.errors import InputError, StageFailedError
from workbench.experiment.bundled import bundle_at
from workbench.pipeline import Asked, Pipeline, Reply
from workbench.results.run import Run
from workbench.serving.settings import Fallback, RunFallback

if TYPE_CHECKING:
    from workbench.models.served import EndpointGenerator

FALLBACK = "fallback"  # status of a reply that the model did not write


class Replacement(Protocol):
    """Something that answers in the place of the model.

    Attributes:
        name: what replies and logs call it.
    """

    name: str

    def answer(self, asked: Asked) -> Reply:
        """Answers one question; raises whatever goes wrong."""


class BestPassage:
    """The best passage, word for word."""

    name = "passage"

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def answer(self, asked: Asked) -> Reply:
        """The text of the passage that is ranked first; a history is not read."""
        started = time.perf_counter()
        sources = self.pipeline.search(asked.question, 1)
        if not sources:
            raise StageFailedError("no passage fits the question")
        took = time.perf_counter() - started
        text, where = sources[0].text, self.pipeline.provenance()
        return Reply(asked.question, text, text, FALLBACK, sources, where, {"retrieval": took, "total": took}, {})


class OtherRun:
    """Another run with its promoted configuration, whose models are loaded when it is first needed."""

    def __init__(self, run: Path) -> None:
        try:
            packed = bundle_at(run)
            Run.open(packed.run if packed else run)
        except InputError as error:
            raise InputError(f"fallback: {error}") from error
        self.name = f"run {run.name}"
        self.run = run
        self._pipeline: Pipeline | None = None

    def answer(self, asked: Asked) -> Reply:
        """That run's answer, with its own provenance."""
        if self._pipeline is None:
            self._pipeline = Pipeline.open(self.run)
            self._pipeline.session.keep_in_memory(0)
        return self._pipeline.ask(*asked)


class Server:
    """A generator behind a server that is asked the same prompt."""

    def __init__(self, generator: EndpointGenerator, pipeline: Pipeline) -> None:
        self.name = f"{generator.model} at {generator.endpoint}"
        self.loaded = generator.load(pipeline.session.machine)
        self.pipeline = pipeline

    def answer(self, asked: Asked) -> Reply:
        """What the server answers to the prompt that the model would have been shown."""
        started = time.perf_counter()
        prompt, sources = self.pipeline.prompt(asked)
        (generation,) = self.loaded.written(prompt.messages)
        if generation.status != "ok":
            raise StageFailedError(f"{self.name}: {generation.status}")
        answering = self.pipeline.answering
        assert answering is not None  # `prompt` has refused an experiment that only ranks
        answer = answering.answer(prompt, generation)
        known = self.pipeline.provenance() | {"prompt": answer.prompt, "generator": self.name}
        took = {"total": time.perf_counter() - started}
        tokens = {"prompt": answer.prompt_tokens, "answer": answer.new_tokens}
        return Reply(asked.question, answer.answer, answer.reply, FALLBACK, sources, known, took, tokens, answer.cut)


def replacements(wanted: Sequence[Fallback], pipeline: Pipeline) -> list[Replacement]:
    """What answers in the place of a pipeline's model, in order.

    Raises:
        InputError: a folder is no run, or a server's key is not in the environment, or its client is not installed.
    """
    found: list[Replacement] = []
    for one in wanted:
        if one == "passage":
            found.append(BestPassage(pipeline))
        elif isinstance(one, RunFallback):
            found.append(OtherRun(one.run))
        else:
            found.append(Server(one, pipeline))
    return found


def marked(reply: Reply, name: str, why: str) -> dict[str, Any]:
    """What a response says of the fallback that answered."""
    return {"name": name, "why": why, "measured": reply.provenance.get("label") if reply.status != FALLBACK else None}
