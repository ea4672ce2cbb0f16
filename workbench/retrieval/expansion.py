"""Query expansion: a generator writes more to search with. One class each; `kind` names it in a configuration.

A question is searched as it is and with every text its expander gives; the rankings are fused by reciprocal ranks.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from workbench.component import Component
from workbench.data.readers.text import composed
from workbench.models.chat import Message

# of a list; the white space keeps 3.12, -1 and *args whole
NUMBERED = re.compile(r"^\s*(?:\d+\s*[.):]|[-*•])(?:\s+|$)")


class Expander(Component, ABC):
    """Base of expanders.

    Attributes:
        generator: name of the generator in the configuration; its adapter, if it has one, is left out.
        max_new_tokens: longest text it writes.
    """

    references: ClassVar = ("generator",)

    kind: str
    generator: str
    max_new_tokens: int = Field(default=64, ge=1)

    @abstractmethod
    def messages(self, question: str) -> list[Message]:
        """What the generator is asked."""

    @abstractmethod
    def read(self, reply: str) -> list[str]:
        """The texts in its reply, to be searched beside the question; none in an empty one."""


class MultiQuery(Expander):
    """The question in other words, several times.

    Attributes:
        n: other wordings, at most.
    """

    version: ClassVar = 2  # what begins with a number or a star keeps it

    kind: Literal["multi_query"] = "multi_query"
    n: int = Field(default=3, ge=1, le=10)

    def messages(self, question: str) -> list[Message]:
        request = (
            f"Write {self.n} other ways to ask the following question. Use other words. Write one on each line, nothing else."
            f"\n\nQuestion: {question}"
        )
        return [{"role": "user", "content": request}]

    def read(self, reply: str) -> list[str]:
        lines = [NUMBERED.sub("", line).strip() for line in reply.splitlines()]
        return list(dict.fromkeys(line for line in lines if line))[: self.n]


class HyDE(Expander):
    """A passage that would answer the question, made up (Gao, Ma, Lin and Callan, ACL 2023, arXiv:2212.10496)."""

    kind: Literal["hyde"] = "hyde"

    def messages(self, question: str) -> list[Message]:
        request = f"Write a short passage that answers the following question.\n\nQuestion: {question}\n\nPassage:"
        return [{"role": "user", "content": request}]

    def read(self, reply: str) -> list[str]:
        text = " ".join(reply.split())
        return [text] if text else []


def searched(question: str, texts: Sequence[str]) -> list[str]:
    """What is searched for a question, in normal form C: itself first, each text once."""
    return list(dict.fromkeys(map(composed, [question, *texts])))
