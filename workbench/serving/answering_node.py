"""What runs on a node of a cluster: an actor that answers questions as the process does that serves them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import ray

from workbench.cluster.node import Node
from workbench.cluster.parcel import Parcel, forget, opened
from workbench.models.answering import WRITING
from workbench.pipeline import Asked, Pipeline, Reply

TELL_SECONDS = 0.1  # between two beginnings of an answer that are sent, at least
MEMORY_BYTES = 64_000_000  # of vectors and scores that are kept in memory


class AnsweringNode(Node):
    """Answers for one pipeline, with artifacts that the process sends which serves it."""

    pipeline: Pipeline

    def open(self, parcel: Parcel) -> str:
        """Takes a pipeline and loads its models; returns its identity, as it is found out here.

        Args:
            parcel: the pipeline.
        """
        self.pipeline = opened(parcel)
        self.pipeline.session = self.session
        self.session.keep_in_memory(MEMORY_BYTES)
        if self.pipeline.answering:
            forget(self.pipeline.answering.writer.generator)
        self.pipeline.warm()
        return self.pipeline.identity

    def answers(self, asked: list[Asked]) -> list[Reply]:
        """Answers to questions that are answered together.

        Args:
            asked: the questions.
        """
        return self.pipeline.answers(asked)

    @ray.method(num_returns="streaming")
    def growing(self, asked: list[Asked]) -> Iterator[tuple[int, Reply]]:
        """As `Pipeline.growing`, with no more beginnings than somebody reads.

        Args:
            asked: the questions.
        """
        told: dict[int, Any] = {}
        for i, reply in self.pipeline.growing(asked):
            now = time.monotonic()
            if reply.status != WRITING or now - told.get(i, float("-inf")) >= TELL_SECONDS:
                told[i] = now
                yield i, reply
