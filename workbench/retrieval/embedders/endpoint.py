"""Embeddings from a server that speaks OpenAI's protocol (OpenAI, Ollama, vLLM, llama.cpp, LM Studio and others)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator, Field

from workbench.component import digest
from workbench.errors import InputError
from workbench.machine import Machine
from workbench.models.endpoint import ATTEMPTS, Endpoint, check_url
from workbench.models.patience import Patience
from workbench.retrieval.embedders.base import AnyEmbedder, LoadedEmbedder


class EndpointEmbedder(AnyEmbedder):
    """Settings of an embedder behind a server.

    What its vectors are stored by is the served name, `dimensions`, `revision` and the prefixes: neither the address nor the
    weights, which a server does not show. When a server changes what it serves under a name, raise `revision`; nothing here
    can notice. Whether a vector depends on the texts sent beside it, and how much of a long text is read, is the server's.

    Attributes:
        endpoint: the server's root, e.g. ``http://localhost:11434/v1``.
        model: name under which it serves the model.
        dimensions: length of the vectors, asked of the server; default: as many as the model gives.
        revision: anything; another one means other vectors.
        query_prefix: put before queries, for models that were trained so.
        passage_prefix: put before passages.
        api_key_env: environment variable that holds the key, e.g. ``OPENAI_API_KEY``; default: no key is sent.
        batch_size: texts in one request.
        parallel: requests under way at a time.
        timeout: seconds that one request may take.
    """

    references: ClassVar = ("endpoint", "api_key_env", "batch_size", "parallel", "timeout")

    endpoint: Annotated[str, AfterValidator(check_url)]
    model: str
    dimensions: int | None = Field(default=None, ge=1)
    revision: str | int | None = None
    query_prefix: str = ""
    passage_prefix: str = ""
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    batch_size: int = Field(default=64, ge=1)
    parallel: int = Field(default=2, ge=1)
    timeout: float = Field(default=120, gt=0)

    def definition(self) -> dict[str, Any]:
        """Adds what stands for the weights: that they are a server's."""
        return super().definition() | {"weights": digest(["served", self.model, self.revision])}

    def load(self, machine: Machine) -> LoadedEndpoint:
        return LoadedEndpoint(self)

    def arithmetic(self, machine: Machine) -> str:
        """The server's, whatever machine asks it."""
        return "served"

    def query(self, text: str) -> str:
        return self.query_prefix + text

    def passage(self, text: str) -> str:
        return self.passage_prefix + text


class LoadedEndpoint(LoadedEmbedder):
    """Requests to a server, and checks of what it answers."""

    def __init__(self, settings: EndpointEmbedder) -> None:
        self.settings = settings
        self.server = Endpoint(settings.endpoint, settings.api_key_env, settings.timeout, Patience(ATTEMPTS, settings.parallel))
        self.dimensions = settings.dimensions

    def encode(self, texts: Sequence[str]) -> Iterator[list[tuple[int, np.ndarray]]]:
        """As in the base class, float32 (d,). An empty text is sent as a space, since servers refuse empty ones.

        Raises:
            InputError: the server refuses, or answers with other vectors than were asked for.
            StageFailedError: it gives no usable answer after several attempts.
        """
        size = self.settings.batch_size
        starts = range(0, len(texts), size)
        pool = ThreadPoolExecutor(self.settings.parallel)
        try:
            asked = [pool.submit(self._vectors, texts[start : start + size]) for start in starts]
            for start, vectors in zip(starts, asked, strict=True):
                yield list(enumerate(self._checked(vectors.result()), start))
        finally:  # whoever gives up does not wait for requests under way
            pool.shutdown(wait=False, cancel_futures=True)

    def encode_tokens(self, texts: Sequence[str]) -> Iterator[list[tuple[int, np.ndarray]]]:
        raise InputError(f"{self._name} gives one vector for a text, none for its tokens; use an embedder with weights here")

    @property
    def _name(self) -> str:
        return f"model {self.settings.model!r} at {self.settings.endpoint}"

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        """What the server gives for a batch, float64 (len(texts), d), in the order of `texts`."""
        body: dict[str, Any] = {"model": self.settings.model, "input": [text or " " for text in texts]}
        if self.settings.dimensions:
            body["dimensions"] = self.settings.dimensions
        answer = self.server.post("/embeddings", body)
        try:
            rows = {row["index"]: row["embedding"] for row in answer["data"]}
            if len(answer["data"]) != len(texts) or sorted(rows) != list(range(len(texts))):
                raise ValueError(f"positions {sorted(rows)[:5]} ... of {len(answer['data'])} vectors for {len(texts)} texts")
            vectors = np.array([rows[i] for i in range(len(texts))], np.float64)
            if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
                raise ValueError("what it calls an embedding is no list of numbers")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(
                f"{self._name} does not answer as OpenAI's protocol says ({reason}); is this an embedder?"
            ) from error
        return vectors

    def _checked(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors of unit length, float32; all batches have to be equally long."""
        found = vectors.shape[1]
        if self.dimensions not in (None, found):
            before = "asked for" if self.settings.dimensions else "answered before"
            raise InputError(f"{self._name} answers vectors of {found} dimensions; {self.dimensions} were {before}")
        self.dimensions = found
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not lengths.all():
            raise InputError(f"{self._name} answers a vector of zeros, which has no direction to compare")
        unit: np.ndarray = (vectors / lengths).astype(np.float32)
        return unit
