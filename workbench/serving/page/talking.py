"""What the page knows of a visit: the conversation, and the answer that is shown."""

from __future__ import annotations

import json
from html import escape
from typing import Any, NamedTuple

from workbench.pipeline import Asked
from workbench.serving.asking import Answered
from workbench.serving.caller import Caller, Principal
from workbench.serving.problems import NotFoundError
from workbench.serving.recording import Recording
from workbench.serving.requests import MOST_TURNS, checked


class Visit(NamedTuple):
    """A visit to the page; it is never changed, so that nothing of one visit is seen in another.

    Attributes:
        talk: id of the conversation in the records, if there is one.
        said: questions with their answers, oldest first, where questions are rewritten.
        request_id: of the answer that is shown; empty: none is.
        asked: the question that is answered there.
        answered: the answer as it was sent.
        vote: the last on it; 0: none.
        user: whose visit it is.
    """

    talk: str | None = None
    said: tuple[tuple[str, str], ...] = ()
    request_id: str = ""
    asked: Asked = Asked("")
    answered: Answered | None = None
    vote: int = 0
    user: int | None = None

    def of(self, principal: Principal) -> Visit:
        """The visit of whoever comes with it; a new one where it was somebody else's, since the browser says which it is."""
        return self if self.user == principal.user else Visit(user=principal.user)

    def answer(self, request_id: str, asked: Asked, answered: Answered, rewrites: bool) -> Visit:
        """The visit with another answer.

        Args:
            request_id: of it.
            asked: what it answers.
            answered: the answer.
            rewrites: whether what was said counts for the next question.
        """
        values = json.loads(answered.body)
        said = (*self.said, (asked.question, values["answer"] or values["reply"] or "")) if rewrites else ()
        return self._replace(said=said, request_id=request_id, asked=asked, answered=answered, vote=0)


async def prepared(asking: Recording, question: str, caller: Caller, visit: Visit) -> tuple[Asked, Caller, Visit]:
    """What is asked with what was said before, by whom, and the visit, whose conversation has begun.

    Args:
        asking: what answers.
        question: as typed.
        caller: who asks.
        visit: so far.

    Raises:
        InputError: the question cannot be asked.
        ProblemError: the conversation is too long, or cannot be written.
    """
    text = checked(question)
    if asking.service.pipeline.stages.questions is None:
        return Asked(text), caller, visit._replace(talk=None, said=())
    if asking.writer is None or not asking.settings.keeps_texts:
        turns = [turn for one in visit.said for turn in _turns(*one)][-MOST_TURNS:]
        return Asked(text, turns), caller, visit
    talk = visit.talk
    if talk is not None:
        try:
            history, caller = await asking.continued(talk, caller)
            return Asked(text, history), caller, visit
        except NotFoundError:
            pass  # it was removed elsewhere, or is too old
    talk = (await asking.begin_talk(caller.principal)).id
    return Asked(text), caller._replace(conversation=talk, after=0), visit._replace(talk=talk, said=())


def said_html(visit: Visit) -> str:
    """What was said before the answer that is shown."""
    before = visit.said[:-1]
    turns = "".join(f'<li><p class="asked">{escape(question)}</p><p>{escape(answer)}</p></li>' for question, answer in before)
    return f'<ol class="said" aria-label="The conversation so far">{turns}</ol>' if before else ""


def _turns(question: str, answer: str) -> list[dict[str, Any]]:
    turns = [{"role": "user", "content": question}]
    return [*turns, {"role": "assistant", "content": answer}] if answer else turns
