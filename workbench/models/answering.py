"""What a generator, here or behind a server, gives for a prompt."""

from __future__ import annotations

from dataclasses import dataclass

TOO_LONG, WRITING = "prompt too long", "writing"


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        text: the answer; empty when it failed.
        prompt_tokens: tokens of the prompt.
        new_tokens: tokens of the answer, its end included.
        status: ``ok``, or why there is no answer; ``writing`` where it is only its beginning.
        served: what a server said of how it answered: ``model``, ``fingerprint`` and reason to ``finish``, as far as it says, and
            the ``date``; None: the answer was computed here.
    """

    text: str
    prompt_tokens: int
    new_tokens: int
    status: str = "ok"
    served: dict[str, str] | None = None
