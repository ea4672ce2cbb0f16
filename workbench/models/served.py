"""Generators behind a server of OpenAI's or Anthropic's protocol (OpenAI, Ollama, vLLM, llama.cpp, Anthropic and others)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, as_completed, wait
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, JsonValue, model_validator

from workbench.component import Component, digest
from workbench.errors import InputError
from workbench.machine import Machine
from workbench.models.answering import Generation
from workbench.models.chat import Message
from workbench.models.dialects import CLIENTS, Client, Dialect, Reply
from workbench.models.endpoint import ATTEMPTS, check_url
from workbench.models.generator import Generator
from workbench.models.patience import NoAnswerError, Patience, RefusedError, hidden, key_of

BYTES = 2  # of UTF-8 that count as a token where none can be counted: more tokens than any text in a natural language has
ASSUMED = 256  # tokens of an answer whose length is not limited, for estimates
OWN = frozenset({400, 413, 422})  # refusals that may be about one prompt alone
OUTAGE = 3  # prompts in a row without an answer, after which the server is asked whether it answers at all
REFUSED, SILENT, EMPTY = "refused by the server", "no answer from the server", "no text within the limit"
SERVED = "served"  # kind of arithmetic of what a server computes
CALLED = "a tool called instead of an answer"
NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
LIMITS = ("max_tokens", "max_completion_tokens")
WITHHELD = {
    "model": "it is a key of its own",
    "messages": "the prompt template says what is asked",
    "system": "the prompt template says what is asked",
    "max_tokens": "write it as max_new_tokens",
    "stream": "answers are read whole",
    "n": "each prompt is answered once",
}
READY: list[Message] = [
    {"role": "system", "content": "You answer in one word."},
    {"role": "user", "content": "Say the word: ready"},
]


class Price(Component):
    """What a server takes for a million tokens.

    Attributes:
        input: of prompts.
        output: of answers, what is thought before them included.
        currency: as it is shown.
    """

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    currency: str = Field(default="USD", pattern=r"^\S{1,8}$")

    def of(self, prompt_tokens: float, new_tokens: float) -> float:
        """Money for some tokens."""
        return (prompt_tokens * self.input + new_tokens * self.output) / 1e6


class EndpointGenerator(Component):
    """Settings of a generator behind a server.

    What its answers are stored by is the dialect, the served name, `revision`, the parameters sent, the prompt and the number
    of the draw: neither the address nor the weights, which a server does not show.

    Attributes:
        endpoint: the server's root, e.g. ``http://localhost:11434/v1``.
        model: name under which it serves the model.
        dialect: protocol it speaks.
        revision: anything; another one means other answers.
        max_new_tokens: longest answer in tokens, sent as ``max_tokens``; default: nothing is sent.
        parameters: whatever else is sent with each prompt, as the server names it, e.g. ``{temperature: 0}``.
        context: tokens that the model reads, prompt and answer together; passages that would not fit are left out. Default: all
            are sent.
        draws: answers to each of the prompts that the noise floor is measured on; 1: it is not measured.
        price: what a million tokens cost.
        api_key_env: environment variable that holds the key, e.g. ``OPENAI_API_KEY``; default: no key is sent.
        parallel: requests under way at a time, at most.
        timeout: seconds that one request may take.
    """

    references: ClassVar = ("endpoint", "api_key_env", "parallel", "timeout", "price", "draws")
    lora: ClassVar[None] = None
    merge: ClassVar[bool] = True
    work: ClassVar[str] = "served"

    endpoint: Annotated[str, AfterValidator(check_url)]
    model: str
    dialect: Dialect = "openai"
    revision: str | int | None = None
    max_new_tokens: int | None = Field(default=None, ge=1)
    parameters: dict[str, JsonValue] = Field(default={})
    context: int | None = Field(default=None, ge=1)
    draws: int = Field(default=2, ge=1)
    price: Price | None = None
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    parallel: int = Field(default=4, ge=1)
    timeout: float = Field(default=120, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _weights_are_elsewhere(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name in ("lora", "merge", "precision"):
                if name in values:
                    raise ValueError(
                        f"{name}: the weights are a server's, so that nothing can be trained on them or computed otherwise here; "
                        f"leave {name} out, or name weights on this machine as model without endpoint"
                    )
        return values

    @model_validator(mode="after")
    def _parameters_can_be_sent(self) -> EndpointGenerator:
        for name, reason in WITHHELD.items():
            if name in self.parameters:
                raise ValueError(f"parameters: {name} cannot be named here: {reason}")
        if self.max_new_tokens is not None and "max_completion_tokens" in self.parameters:
            raise ValueError("max_new_tokens and parameters.max_completion_tokens both limit an answer; name one of them")
        if self.dialect == "anthropic" and self.max_new_tokens is None:
            raise ValueError("max_new_tokens: servers of the dialect anthropic refuse prompts without it; name it")
        if self.context is not None and self.longest >= self.context:
            raise ValueError(f"context: of {self.context} tokens none are left for a prompt beside an answer of {self.longest}")
        return self

    def definition(self) -> dict[str, Any]:
        """Adds what stands for the weights: that they are a server's."""
        return super().definition() | {"weights": digest(["served", self.dialect, self.model, self.revision])}

    def asked(self) -> dict[str, Any]:
        """What decides an answer beside its prompt: as `definition`, without what only decides the prompt."""
        found = self.definition()
        return found | {"settings": {name: value for name, value in found["settings"].items() if name != "context"}}

    def sent(self) -> dict[str, Any]:
        """The parameters sent with each prompt."""
        return self.parameters | ({"max_tokens": self.max_new_tokens} if self.max_new_tokens else {})

    @property
    def longest(self) -> int:
        """Tokens of the longest answer, for estimates; 256 where it is not limited."""
        limits = (self.sent().get(name) for name in LIMITS)
        return next((limit for limit in limits if isinstance(limit, int)), ASSUMED)

    def writing(self, max_new_tokens: int) -> EndpointGenerator:
        """The same model with answers of another length."""
        if "max_completion_tokens" in self.parameters:
            return self.model_copy(update={"parameters": self.parameters | {"max_completion_tokens": max_new_tokens}})
        return self.model_copy(update={"max_new_tokens": max_new_tokens})

    def untuned(self) -> EndpointGenerator:
        """Itself: nothing is trained."""
        return self

    def arithmetic(self, machine: Machine) -> str:
        """The server's, whatever machine asks it."""
        return SERVED

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether a conversation and its answer fit into the stated context, with a token for each two bytes."""
        return self.context is None or most_tokens(messages) + self.longest <= self.context

    def load(self, machine: Machine) -> LoadedEndpointGenerator:
        """The client that asks the server.

        Raises:
            InputError: the key is not in the environment, or the client is not installed.
        """
        return LoadedEndpointGenerator(self)


AnyGenerator = Generator | EndpointGenerator


def generator_class(values: dict[str, Any]) -> type[Generator] | type[EndpointGenerator]:
    """Of which kind the settings of a generator are: weights here, or a server's."""
    return EndpointGenerator if "endpoint" in values else Generator


def most_tokens(messages: Sequence[Message]) -> int:
    """More tokens than a conversation has, without a tokenizer: one for each two bytes, and 16 for each turn."""
    return sum(len(message["content"].encode()) // BYTES + 16 for message in messages)


class LoadedEndpointGenerator:
    """Requests to a server, and checks of what it answers.

    Attributes:
        settings: which server and model.
        patience: how it is asked.
        client: sends the requests.
        notes: what people should know of how answers were made.
        longest_examined: bytes of the longest prompt that the server was shown to read whole; 0: none yet.
        tokens: of all prompts and of all answers so far, as the server counts them, or the most there can be.
    """

    def __init__(self, settings: EndpointGenerator) -> None:
        self.settings = settings
        self.notes: list[str] = []
        self._connect()

    def _connect(self) -> None:
        settings = self.settings
        self.patience = Patience(ATTEMPTS, settings.parallel)
        key = key_of(settings.endpoint, settings.api_key_env)
        try:
            self.client: Client = CLIENTS[settings.dialect](settings.endpoint, key, settings.timeout)
        except InputError:
            raise
        except Exception as error:  # what the environment says of proxies and certificates
            raise InputError(
                f"no request can be sent to {settings.endpoint} ({type(error).__name__}: {hidden(str(error), key)}); check the "
                f"environment variables {', '.join(NETWORK)}, in capitals or not"
            ) from error
        self.longest_examined = 0
        self.tokens = (0, 0)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Model and address, for messages."""
        return f"model {self.settings.model!r} at {self.settings.endpoint}"

    def reply(self, messages: Sequence[Message], parameters: dict[str, Any] | None = None) -> Reply:
        """What the server answers to a conversation, asked again where that helps.

        Args:
            messages: the conversation.
            parameters: sent with it; default: those of the settings.

        Raises:
            RefusedError: the server refuses it.
            NoAnswerError: there is no usable answer.
        """
        sent = self.settings.sent() if parameters is None else parameters
        once = lambda: self.client.ask(self.settings.model, messages, sent)  # noqa: E731
        found = self.patience.until_answered(self.client.where, once, self.settings.api_key_env)
        with self._lock:
            if found.prompt_tokens is None or found.new_tokens is None:
                read, written = most_tokens(messages), self.settings.longest
            else:
                read, written = found.prompt_tokens, found.new_tokens
            self.tokens = self.tokens[0] + read, self.tokens[1] + written
        return found

    def generate(
        self, prompts: Sequence[Sequence[Message]], batch_size: int | None = None
    ) -> Iterator[list[tuple[int, Generation]]]:
        """Answers to all prompts, each as soon as it is there.

        No more requests are begun than answers have been taken over by the caller, so that one who stores each answer loses at
        most `parallel` of them. A prompt that the server refuses or gives no answer to has a status that says so, as long as the
        server answers others; one without an answer is asked once more before, since the server may have been down for a while.

        Args:
            prompts: conversations that end with the user's turn.
            batch_size: has no meaning here.

        Raises:
            InputError: the server refuses all prompts.
            StageFailedError: the server is down.
        """
        if self.patience.stopped:  # someone broke off, and asks again
            self._connect()
        silent: list[tuple[int, Generation]] = []  # those without an answer since the last answer: their fault, or the server's?
        waiting = deque(range(len(prompts)))
        again: set[int] = set()  # those that were asked once more
        running: dict[Future[Generation], int] = {}
        failed: Exception | None = None
        try:
            while True:
                while failed is None and len(running) < self.settings.parallel and waiting:
                    position = waiting.popleft()
                    running[self._begun(prompts[position])] = position
                if not running and silent and failed is None and (failed := self._down()) is None:
                    yield from self._given_up(silent, again, waiting)
                    silent = []
                    continue
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    position = running.pop(future)
                    if isinstance(error := future.exception(), (InputError, NoAnswerError)):
                        failed = failed or error  # what is under way is paid for, and is still taken over
                        continue
                    generation = future.result()
                    if generation.status == SILENT:
                        silent.append((position, generation))
                        if failed is None and len(silent) >= OUTAGE and (failed := self._down()) is None:
                            yield from self._given_up(silent, again, waiting)
                            silent = []
                    elif failed is None:
                        yield [(position, generation)]
                        yield from self._given_up(silent, again, waiting)
                        silent = []
                    else:
                        yield [(position, generation)]
            if failed:
                raise failed
        finally:
            if running:  # whoever gives up does not wait for requests under way
                self.patience.stop()
                self.client.close()

    @staticmethod
    def _given_up(
        silent: list[tuple[int, Generation]], again: set[int], waiting: deque[int]
    ) -> Iterator[list[tuple[int, Generation]]]:
        """Those without an answer, of a server that answers now, that were asked once more already; the others wait for that."""
        given_up = [one for one in silent if one[0] in again]
        waiting.extend(position for position, _ in silent if position not in again)
        again.update(position for position, _ in silent)
        if given_up:
            yield given_up

    def _begun(self, messages: Sequence[Message]) -> Future[Generation]:
        """A request under way, in a thread that nothing waits for when the program ends."""
        future: Future[Generation] = Future()

        def ask() -> None:
            try:
                future.set_result(self._generation(messages))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=ask, daemon=True).start()
        return future

    def written(self, messages: Sequence[Message]) -> Iterator[Generation]:
        """The answer to one conversation, or why there is none: whoever asks a question can mend neither key nor server."""
        yield self._said(messages)

    def growing(
        self, prompts: Sequence[Sequence[Message]], wanted: Callable[[int], bool] = lambda prompt: True
    ) -> Iterator[tuple[int, Generation]]:
        """The answers to conversations that are asked side by side, each as soon as it is there, as `written` gives it.

        Args:
            prompts: conversations that end with the user's turn.
            wanted: has no meaning here: what was sent is paid for.

        Yields:
            Pairs of position in `prompts` and answer.
        """
        with ThreadPoolExecutor(self.settings.parallel) as pool:
            asked = {pool.submit(self._said, messages): i for i, messages in enumerate(prompts)}
            for future in as_completed(asked):
                yield asked[future], future.result()

    def _said(self, messages: Sequence[Message]) -> Generation:
        try:
            return self._generation(messages)
        except (InputError, NoAnswerError) as error:
            return Generation("", 0, 0, SILENT, {"reason": str(error)})

    def _down(self) -> Exception | None:
        """The reason why not even a word comes back; None where one does."""
        try:
            self.reply(READY[1:])
        except (InputError, NoAnswerError) as error:
            return error
        return None

    def _generation(self, messages: Sequence[Message]) -> Generation:
        """An answer, or why there is none.

        Raises:
            InputError: the server refuses any prompt.
            NoAnswerError: the server wants nobody to ask it for more than a minute.
        """
        try:
            reply = self.reply(messages)
        except RefusedError as error:
            if error.status not in OWN:
                raise
            return Generation("", 0, 0, REFUSED, {"reason": str(error)})
        except NoAnswerError as error:
            if error.status == 429:
                raise
            return Generation("", 0, 0, SILENT, {"reason": str(error)})
        return generation(reply)


# why an answer ended, in a server's word -> status of one without text; after any other word it is an empty answer
WITHOUT_TEXT = {"length": EMPTY, "max_tokens": EMPTY, "tool_calls": CALLED, "function_call": CALLED, "tool_use": CALLED}


def generation(reply: Reply) -> Generation:
    """A server's answer as it is stored: with what it said of how it answered, and the day."""
    observed = {"model": reply.model, "fingerprint": reply.fingerprint, "finish": reply.finish}
    observed |= {"date": f"{datetime.now(UTC):%Y-%m-%d}"}
    if reply.prompt_tokens is None or reply.new_tokens is None:
        observed |= {"usage": "not said"}
    text, finish = reply.text.strip(), reply.finish
    status = "ok" if text else WITHOUT_TEXT.get(finish, "ok")
    if finish in ("content_filter", "refusal"):
        text, status = "", REFUSED
    served = {name: value for name, value in observed.items() if value}
    return Generation(text, reply.prompt_tokens or 0, reply.new_tokens or 0, status, served)
