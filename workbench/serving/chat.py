"""OpenAI's forms of asking: ``/v1/chat/completions`` and ``/v1/models``, errors included.

The question is the last message of the user, what stands before it is its history. What would change how an answer is made
(system messages, a temperature, tools) is refused: what is served is what was measured.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from workbench.pipeline import Asked
from workbench.serving.asking import Answered, Asking
from workbench.serving.caller import Caller, caller_of
from workbench.serving.problems import InvalidError, NotFoundError, ProblemError
from workbench.serving.requests import MAX_CHARACTERS, MOST_TURNS, Form, read
from workbench.serving.streaming import EventStream, unless_left

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline

ID_DIGITS = 12  # of the identity in a model's name
# parameters and the values of them with which nothing changes
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "temperature": (0,), "top_p": (1,), "n": (1,), "presence_penalty": (0,), "frequency_penalty": (0,), "logprobs": (False,),
    "response_format": ({"type": "text"},), "stop": ([],), "tools": ([],), "tool_choice": ("none",),
}  # fmt: skip


class PartForm(Form):
    """A text as a part of a message."""

    type: Literal["text"]
    text: Annotated[str, Field(max_length=20_000)]


class MessageForm(Form):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=20_000)] | list[PartForm]
    name: str | None = None

    @property
    def text(self) -> str:
        """Its text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class StreamOptions(Form):
    """What a stream says besides."""

    include_usage: bool = False


class ChatForm(Form):
    """A conversation that ends with the question."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    messages: Annotated[list[MessageForm], Field(min_length=1, max_length=MOST_TURNS + 1)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    response_format: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    seed: int | None = None  # answers do not depend on chance
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None


def model_name(pipeline: Pipeline) -> str:
    """The label of the configuration and the beginning of the identity: another promotion is another model."""
    return f"{pipeline.configuration.label}@{pipeline.identity[:ID_DIGITS]}"


def models(asking: Asking) -> Callable[[Request], Awaitable[Response]]:
    """The route that lists what can be asked."""

    async def listed(request: Request) -> Response:
        run = asking.service.pipeline.run.manifest
        one = {"id": model_name(asking.service.pipeline), "object": "model", "created": 0, "owned_by": run["experiment"]}
        return JSONResponse({"object": "list", "data": [one]})

    return listed


def completions(asking: Asking) -> Callable[[Request], Awaitable[Response]]:
    """The route that answers a conversation.

    Args:
        asking: what answers.
    """

    async def completed(request: Request) -> Response:
        form = read(await request.body(), ChatForm, request.headers.get("content-type"))
        name = model_name(asking.service.pipeline)
        if form.model != name:
            raise NotFoundError(f"there is no model {form.model!r}; there is {name!r}", param="model", code="model_not_found")
        asked = _asked(form, asking.service.pipeline)
        request_id = f"chatcmpl-{request.state.request_id}"
        if form.stream:
            usage = bool(form.stream_options and form.stream_options.include_usage)
            return EventStream(request, _chunks(asking, asked, caller_of(request), request_id, name, usage), _failed)
        answered = await unless_left(request.receive, asking.answer(asked, caller_of(request)))
        return JSONResponse(_completion(answered, request_id, name))

    return completed


def _asked(form: ChatForm, pipeline: Pipeline) -> Asked:
    """The question and its history.

    Raises:
        InvalidError: something that would change how the answer is made, or no question at the end.
    """
    for name, neutral in NEUTRAL.items():
        value = getattr(form, name)
        if value is not None and value not in neutral:
            allowed = " or ".join(json.dumps(one) for one in neutral)
            raise InvalidError(
                f"{name} is not taken: answers are made as they were measured; leave it out, or send {allowed}",
                param=name,
                code="unsupported",
            )
    longest = pipeline.answering.writer.generator.longest if pipeline.answering else 0
    for name in ("max_tokens", "max_completion_tokens"):
        if (value := getattr(form, name)) is not None and value < longest:
            raise InvalidError(f"{name} is {value}, and a measured answer may have {longest}; leave it out", param=name)
    for i, message in enumerate(form.messages):
        if message.role in ("system", "developer"):
            raise InvalidError(
                f"messages.{i} is a {message.role} message, which the measured prompt has no place for; leave it out",
                param=f"messages.{i}", code="unsupported",
            )  # fmt: skip
    *before, last = form.messages
    if last.role != "user" or not last.text.strip():
        raise InvalidError("the last message is to be the user's question", param="messages")
    if len(last.text) > MAX_CHARACTERS:
        raise InvalidError(f"the question has {len(last.text):,} characters; allowed: 1 to {MAX_CHARACTERS:,}", param="messages")
    return Asked(last.text, [{"role": message.role, "content": message.text} for message in before])


def _text(values: dict[str, Any]) -> str:
    """What is shown of an answer: as it is read, or what the generator wrote where nothing is read in it."""
    return values["answer"] or values["reply"] or ""


def _usage(values: dict[str, Any]) -> dict[str, int]:
    prompt, answer = values["tokens"].get("prompt", 0), values["tokens"].get("answer", 0)
    return {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}


def _beside(values: dict[str, Any], answered: Answered) -> dict[str, Any]:
    """The whole answer, which OpenAI's form has no place for."""
    return values | {"served": answered.served}


def _completion(answered: Answered, request_id: str, name: str) -> dict[str, Any]:
    values = json.loads(answered.body)
    message = {"role": "assistant", "content": _text(values), "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {
        "id": request_id, "object": "chat.completion", "created": int(time.time()), "model": name, "choices": [choice],
        "usage": _usage(values), "workbench": _beside(values, answered),
    }  # fmt: skip


async def _chunks(asking: Asking, asked: Asked, caller: Caller, request_id: str, name: str, usage: bool) -> AsyncIterator[bytes]:
    """Parts of the answer as they come; the one that ends it holds the whole answer besides."""
    created, said = int(time.time()), ""

    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        values = {"id": request_id, "object": "chat.completion.chunk", "created": created, "model": name, "choices": [choice]}
        return _data(values | more)

    first = True
    async with aclosing(asking.growing(asked, caller)) as replies:
        async for found in replies:
            if first:
                yield chunk({"role": "assistant", "content": ""})
                first = False
            if isinstance(found, Answered):
                values = json.loads(found.body)
                text = _text(values)
                if text != said and text.startswith(said):
                    yield chunk({"content": text[len(said) :]})
                yield chunk({}, "stop", workbench=_beside(values, found))
                if usage:
                    total = {
                        "id": request_id,
                        "object": "chat.completion.chunk",
                        "created": created,
                        "model": name,
                        "choices": [],
                    }
                    yield _data(total | {"usage": _usage(values)})
            elif found.answer and found.answer.startswith(said):
                yield chunk({"content": found.answer[len(said) :]})
                said = found.answer
    yield b"data: [DONE]\n\n"


def _data(values: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % json.dumps(values, ensure_ascii=False).encode()


def refused(problem: ProblemError) -> bytes:
    """A problem in the form that OpenAI's clients read."""
    return json.dumps({"error": _error(problem)}, ensure_ascii=False).encode()


def _error(problem: ProblemError) -> dict[str, Any]:
    kinds = {404: "invalid_request_error", 422: "invalid_request_error", 429: "rate_limit_error"}
    kind = kinds.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    return {
        "message": problem.detail,
        "type": kind,
        "param": problem.more.get("param") or problem.more.get("pointer", "").strip("/").replace("/", ".") or None,
        "code": problem.more.get("code", problem.name),
    }


def _failed(problem: ProblemError) -> bytes:
    return _data({"error": _error(problem)})
