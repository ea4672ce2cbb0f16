"""Rewriting of questions that lean on a conversation, so that they can be searched and answered alone.

One class each; `kind` names it in a configuration. A question without a conversation is used as it is.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from pydantic import Field

from workbench.component import Component
from workbench.data.conversation import History
from workbench.models.chat import Message

LABEL = re.compile(r"^(?:standalone|rewritten|new)?\s*question\s*:\s*", re.IGNORECASE)
REQUEST = (
    "Rewrite the last question of the conversation so that it can be understood without the conversation: put names in the place "
    "of words like it, they and that. Keep its meaning. Write the question and nothing else.\n\n"
    "{conversation}\n\nLast question: {question}\n\nQuestion:"
)


class Rewriter(Component, ABC):
    """Base of rewriters.

    Attributes:
        generator: name of the generator in the configuration; its adapter, if it has one, is left out.
        max_new_tokens: longest question it writes.
    """

    references: ClassVar = ("generator",)

    kind: str
    generator: str
    max_new_tokens: int = Field(default=48, ge=1)

    @abstractmethod
    def messages(self, history: History, question: str) -> list[Message]:
        """What the generator is asked; `history` holds at least one turn."""

    @abstractmethod
    def read(self, reply: str) -> str:
        """The question in its reply; empty where there is none."""


class Standalone(Rewriter):
    """The question with what it takes from the conversation written out (Anantha et al., NAACL 2021, arXiv:2010.04898).

    Attributes:
        turns: of the conversation that are shown, the last ones.
    """

    kind: Literal["standalone"] = "standalone"
    turns: int = Field(default=6, ge=1)

    def messages(self, history: History, question: str) -> list[Message]:
        said = "\n".join(f"{turn.role.capitalize()}: {' '.join(turn.content.split())}" for turn in history[-self.turns :])
        return [{"role": "user", "content": REQUEST.format(conversation=said, question=question)}]

    def read(self, reply: str) -> str:
        lines = [LABEL.sub("", line.strip()).strip("\"' ") for line in reply.splitlines()]
        return next((line for line in lines if line), "")
