"""The official clients of OpenAI's and Anthropic's protocols: one request each time, its answer in one form.

They try nothing again, follow no redirect and send no key but the one given; `workbench.models.patience` does the rest.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from workbench.errors import MissingExtraError
from workbench.models.chat import Message
from workbench.models.patience import AGAIN, SHOWN, AttemptError, hidden, said

Dialect = Literal["openai", "anthropic"]
SECRET = 8  # characters of a key that is hidden in answers, at least
CONTEXTS = ("max_model_len", "context_length", "context_window", "max_input_tokens")  # a context's names in a list of models


@dataclass(frozen=True)
class Reply:
    """What a server answers.

    Attributes:
        text: the answer.
        finish: why it ended, in the server's word; empty: it does not say.
        prompt_tokens: as the server counts them; None: it does not say.
        new_tokens: likewise, tokens thought before the answer included.
        model: name of the model that answered; empty: it does not say.
        fingerprint: of the system that answered; empty: it does not say.
    """

    text: str
    finish: str
    prompt_tokens: int | None
    new_tokens: int | None
    model: str
    fingerprint: str


class Client(ABC):
    """Base of the clients: `ask` is one request.

    Attributes:
        where: the address that is asked, for messages.
        strict: whether an answer that cannot be read means a wrong address, rather than a fault that passes.
    """

    def __init__(self, where: str, key: str | None) -> None:
        self.where = where
        self.strict = True
        self._key = key
        # what stands for a key at a server that wants none ("x", "ollama") may well be a word of an answer
        self._secret = key if key and len(key) >= SECRET else None

    @abstractmethod
    def send(self, model: str, messages: Sequence[Message], parameters: dict[str, Any]) -> Any:
        """The raw response of the official client."""

    @abstractmethod
    def listed(self) -> Any:
        """The raw response to the question which models there are."""

    @abstractmethod
    def read(self, answer: Any) -> Reply:
        """The answer in the server's JSON; raises what Python does where a part of it is missing or is something else."""

    @abstractmethod
    def close(self) -> None:
        """Ends the requests that are under way."""

    def ask(self, model: str, messages: Sequence[Message], parameters: dict[str, Any]) -> Reply:
        """One request and its answer.

        Raises:
            AttemptError: there is none.
        """
        answer = self._json(lambda: self.send(model, messages, parameters))
        try:
            return self.read(answer)
        except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
            shown = hidden(json.dumps(answer, ensure_ascii=False), self._key)[:SHOWN]
            reason = f"answers otherwise than its protocol says ({type(error).__name__}: {error}): {shown}"
            raise AttemptError(reason, again=not self.strict) from None

    def context(self, model: str) -> int | None:
        """Tokens that a model reads, where the server's list of models says it."""
        try:
            rows = self._json(self.listed)["data"]
            row = next(row for row in rows if row["id"] == model)
        except (AttemptError, KeyError, TypeError, StopIteration):
            return None
        found = [_count(row.get(name)) for name in CONTEXTS]
        return next((value for value in found if value), None)

    def _json(self, send: Callable[[], Any]) -> Any:
        import httpx2

        try:
            text = str(send().http_response.text)
        except httpx2.HTTPError as error:  # the body breaks off
            raise AttemptError(hidden(f"{type(error).__name__}: {error}", self._key)) from None
        except Exception as error:
            raise self._failed(error) from None
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            shown = hidden(" ".join(text.split()), self._key)[:SHOWN]
            reason = f"answers no JSON: {shown!r}; check the address, which mostly ends in /v1"
            raise AttemptError(reason, again=not self.strict) from None

    def _failed(self, error: Exception) -> Exception:
        """A client's error as an attempt without an answer; any other error as it is."""
        response = getattr(error, "response", None)
        if response is not None:
            code = int(response.status_code)
            reason = f"{code} {said(response.text, response.reason_phrase, self._key)}"
            if code in range(300, 400) and (place := response.headers.get("Location")):
                reason += f" (to {hidden(place, self._key)[:SHOWN]})"
            return AttemptError(reason, code, code in AGAIN, response.headers.get("Retry-After"))
        if type(error).__name__ in ("APIConnectionError", "APITimeoutError"):
            reason = f"{type(error).__name__}: {error} {error.__cause__ or ''}".strip()
            return AttemptError(hidden(reason, self._key))
        return error


class OpenAIClient(Client):
    """Chat completions."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        try:
            import openai
        except ModuleNotFoundError:
            raise MissingExtraError("openai", "endpoints", "a generator behind a server") from None
        super().__init__(f"{url}/chat/completions", key)
        # nothing of what the environment holds for OpenAI's own server is sent: neither another key nor whose account it is
        kept = {name: openai.Omit() for name in ("OpenAI-Organization", "OpenAI-Project")}
        signed = f"Bearer {key}" if key else openai.Omit()
        self._headers = cast("dict[str, str]", kept | {"Authorization": signed})
        self.client = openai.OpenAI(
            api_key=key or "none",
            base_url=url,
            timeout=timeout,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(follow_redirects=False),
        )

    def send(self, model: str, messages: Sequence[Message], parameters: dict[str, Any]) -> Any:
        asked = cast(Any, list(messages))
        return self.client.chat.completions.with_raw_response.create(
            model=model, messages=asked, extra_body=parameters, extra_headers=self._headers
        )

    def listed(self) -> Any:
        return self.client.models.with_raw_response.list(extra_headers=self._headers)

    def read(self, answer: Any) -> Reply:
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        message = choice["message"]
        finish = "refusal" if message.get("refusal") else choice.get("finish_reason")
        return Reply(
            hidden(_text(message.get("content")), self._secret),
            hidden(str(finish or ""), self._secret),
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            hidden(str(answer.get("model") or ""), self._secret),
            hidden(str(answer.get("system_fingerprint") or ""), self._secret),
        )

    def close(self) -> None:
        self.client.close()


class AnthropicClient(Client):
    """Messages; a system turn is sent as the field ``system``."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        try:
            import anthropic
        except ModuleNotFoundError:
            raise MissingExtraError("anthropic", "endpoints", "a generator behind a server of that dialect") from None
        root = url.removesuffix("/v1")
        super().__init__(f"{root}/v1/messages", key)
        unsigned = {} if key else {"Authorization": anthropic.Omit(), "X-Api-Key": anthropic.Omit()}
        self._headers = cast("dict[str, str]", unsigned)
        self.client = anthropic.Anthropic(
            api_key=key or "none",
            base_url=root,
            timeout=timeout,
            max_retries=0,
            http_client=anthropic.DefaultHttpxClient(follow_redirects=False),
        )

    def send(self, model: str, messages: Sequence[Message], parameters: dict[str, Any]) -> Any:
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        body = parameters | ({"system": system} if system else {})
        asked = cast(Any, [message for message in messages if message["role"] != "system"])
        return self.client.messages.with_raw_response.create(
            model=model, messages=asked, max_tokens=parameters["max_tokens"], extra_body=body, extra_headers=self._headers
        )

    def listed(self) -> Any:
        return self.client.models.with_raw_response.list(extra_headers=self._headers)

    def read(self, answer: Any) -> Reply:
        usage = answer.get("usage") or {}
        reads = [_count(usage.get(name)) for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")]
        text = "".join(_text(block["text"]) for block in answer["content"] if block["type"] == "text")
        return Reply(
            hidden(text, self._secret),
            hidden(str(answer.get("stop_reason") or ""), self._secret),
            sum(n or 0 for n in reads) if reads[0] is not None else None,
            _count(usage.get("output_tokens")),
            hidden(str(answer.get("model") or ""), self._secret),
            "",
        )

    def close(self) -> None:
        self.client.close()


CLIENTS: dict[str, Callable[[str, str | None, float], Client]] = {"openai": OpenAIClient, "anthropic": AnthropicClient}


def _count(value: object) -> int | None:
    """A number of tokens; None where a server says none, or something that is no such number."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(content: object) -> str:
    """The text of an answer; none where a server sends null.

    Raises:
        TypeError: it is no text.
    """
    if content is None:
        return ""
    if not isinstance(content, str):
        raise TypeError(f"its text is {type(content).__name__}")
    return content
