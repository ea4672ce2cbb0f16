"""Prompt templates: small named files that say how a question and its passages are put to a generator."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator

from workbench.component import Component, build
from workbench.data.leaks import Policy
from workbench.data.passages import Shown
from workbench.data.readers import yaml_files
from workbench.errors import InputError, unknown
from workbench.models.chat import Message

FOLDER = Path(__file__).parent / "prompts"
CITATION = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")
VARIABLES = {"user": {"passages", "question"}, "passage": {"number", "title", "text"}}


class Shot(NamedTuple):
    """A solved question that is shown before the one asked.

    Attributes:
        question: as asked.
        passages: as shown with it.
        answer: None: the passages do not hold it.
        number: of the passage that holds the answer, from 1; None without one.
    """

    question: str
    passages: tuple[Shown, ...]
    answer: str | None
    number: int | None


class Shots(Component):
    """Which solved questions of the train split a template shows (few-shot: Brown et al. 2020, arXiv:2005.14165).

    Attributes:
        count: how many.
        choose: ``nearest`` to the question, nearest last; or ``fixed``: the same for all, drawn by the seed.
        passages: shown with each.
        retriever: finds the nearest questions, and the wrong passages; default: the baseline's.
        leaks: ``refuse`` training questions that the evaluation asks too, or ``drop`` them.
    """

    references: ClassVar = ("retriever", "leaks")

    count: int = Field(default=2, ge=1)
    choose: Literal["nearest", "fixed"] = "nearest"
    passages: int = Field(default=1, ge=1)
    retriever: str | None = None
    leaks: Policy = "refuse"


class ClosedBook(Component):
    """How a question is asked without any passage.

    Attributes:
        system: the system turn; empty: none.
        user: the user's turn, with the variable ``{question}``.
        abstention: what the generator is told to say when it does not know the answer.
    """

    system: str = "Answer the question with a few words. If you do not know the answer, say: I do not know."
    user: str = "Question: {question}\nAnswer with a few words."
    abstention: str = "I do not know"

    @field_validator("user")
    @classmethod
    def _variables_are_known(cls, value: str) -> str:
        return checked_variables(value, {"question"}, {"question"})

    @field_validator("abstention")
    @classmethod
    def _abstention_is_said(cls, value: str) -> str:
        return checked_abstention(value)


class Template(Component):
    """A prompt template.

    Attributes:
        system: the system turn; empty: none.
        user: the user's turn, with the variables ``{passages}`` and ``{question}``.
        passage: one passage, with ``{number}`` (from 1), ``{title}`` and ``{text}``.
        separator: between passages.
        fold: whether each run of white space in a passage is shown as one space: fewer tokens, but code loses its lines.
        abstention: what the generator is told to say when the passages do not hold the answer.
        citations: whether answers end with passage numbers in brackets, which metrics do not read.
        order: ``best last`` puts the best passage next to the question; it keeps its number 1.
        shots: solved questions shown before the one asked, as turns of the conversation; None: none.
        closed: how the question is asked where no passages are to be shown. No part of what prompts with passages are.
    """

    references: ClassVar = ("closed",)
    added: ClassVar = ("order", "shots")

    system: str = ""
    user: str
    passage: str = "[{number}] {text}"
    separator: str = "\n"
    fold: bool = True
    abstention: str
    citations: bool = False
    order: Literal["best first", "best last"] = "best first"
    shots: Shots | None = None
    closed: ClosedBook = ClosedBook()

    @field_validator("user", "passage")
    @classmethod
    def _variables_are_known(cls, value: str, info: ValidationInfo) -> str:
        needed = {"question", "passages"} if info.field_name == "user" else {"text"}
        return checked_variables(value, VARIABLES[str(info.field_name)], needed)

    @field_validator("abstention")
    @classmethod
    def _abstention_is_said(cls, value: str) -> str:
        return checked_abstention(value)

    def settings(self) -> dict[str, Any]:
        """As of any component; of the shots what defines them."""
        return super().settings() | ({"shots": self.shots.settings()} if self.shots else {})

    def fill(self, question: str, passages: Sequence[Shown], shots: Sequence[Shot] = ()) -> list[Message]:
        """The conversation that asks `question` on `passages` (best first), after the solved questions in their order."""
        *system, asked = _turns(self.system, self._asked(question, passages))
        solved = []
        for shot in shots:
            solved.append({"role": "user", "content": self._asked(shot.question, shot.passages)})
            solved.append({"role": "assistant", "content": self.target(shot.answer, shot.number)})
        return [*system, *solved, asked]

    def _asked(self, question: str, passages: Sequence[Shown]) -> str:
        shown = [
            self.passage.format(number=number, title=passage.title, text=self._shown(passage.text))
            for number, passage in enumerate(passages, 1)
        ]
        if self.order == "best last":
            shown.reverse()
        return self.user.format(passages=self.separator.join(shown), question=question)

    def fill_closed(self, question: str) -> list[Message]:
        """The conversation that asks `question` without passages."""
        return _turns(self.closed.system, self.closed.user.format(question=question))

    def fill_within(
        self,
        question: str,
        passages: Sequence[Shown],
        fits: Callable[[Sequence[Message]], bool],
        shots: Sequence[Shot] = (),
    ) -> tuple[list[Message], int]:
        """`fill` with as many passages, from the first on, as `fits` lets through; question, instruction and shots stay.

        Args:
            question: the one asked.
            passages: best first.
            fits: whether a conversation is short enough.
            shots: solved questions shown before it, in their order.

        Returns:
            The conversation and the number of its passages: 0 also where the question alone does not fit.
        """
        for n in range(len(passages), 0, -1):
            messages = self.fill(question, passages[:n], shots)
            if fits(messages):
                return messages, n
        return self.fill(question, [], shots), 0

    def _shown(self, text: str) -> str:
        return " ".join(text.split()) if self.fold else text

    def target(self, answer: str | None, number: int | None) -> str:
        """What a generator should reply: the answer (with its passage's number, if asked for), or the abstention."""
        if answer is None:
            return self.abstention
        return f"{answer} [{number}]" if self.citations and number else answer

    def read(self, reply: str) -> str:
        """The answer in a reply: without citations; empty where the reply abstains."""
        text = CITATION.sub("", reply).strip() if self.citations else reply.strip()
        return "" if _plain(self.abstention) in _plain(text) else text

    def read_closed(self, reply: str) -> str:
        """The answer in a reply to `fill_closed`; one that abstains as if there had been passages abstains too."""
        return "" if _plain(self.closed.abstention) in _plain(reply) else self.read(reply)


def checked_variables(text: str, allowed: set[str], needed: set[str]) -> str:
    """A text whose variables are those allowed, with all those needed.

    Raises:
        ValueError: one is unknown or missing, or a brace is open.
    """
    try:
        used = {name for _, name, _, _ in Formatter().parse(text) if name is not None}
    except ValueError as error:
        raise ValueError(f"{error}; a brace that is no variable is written twice: {{{{ }}}}") from error
    if strange := used - allowed:
        raise ValueError(f"unknown variable {{{'}, {'.join(sorted(strange))}}}; allowed: {{{'}, {'.join(sorted(allowed))}}}")
    if missing := needed - used:
        raise ValueError(f"the variable {{{'}, {'.join(sorted(missing))}}} is missing")
    return text


def checked_abstention(text: str) -> str:
    """A phrase that is not empty.

    Raises:
        ValueError: it is.
    """
    if not text.strip():
        raise ValueError("the abstention phrase is empty; say what the generator answers when it has no answer")
    return text


def _turns(system: str, user: str) -> list[Message]:
    turns = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": user}]


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def names() -> list[str]:
    """Names of the templates that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, folder: Path | None = None) -> Template:
    """A template by its name, or from a YAML file.

    Args:
        name: one of `names()`, or a path ending in ``.yaml``.
        folder: where a relative path is looked for; default: the current folder.

    Raises:
        InputError: unknown name, missing file, unreadable YAML, or a key or variable that does not exist.
    """
    path = ((folder or Path()) / name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise unknown("prompt template", name, [*names(), "a file ending in .yaml"])
    values = yaml_files.read(path)
    if not isinstance(values, dict):
        raise InputError(
            f"prompt template {path}: received {type(values).__name__}; allowed: keys {', '.join(Template.model_fields)}"
        )
    return build(Template, values, f"prompt template {path}")
