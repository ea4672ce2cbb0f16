"""What is found out about a server before it is asked: what it accepts, and whether it reads whole prompts.

It is asked only when at least one prompt has to be. Canaries, prompts that stay the same, show whether it still serves the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from typing import Any, NamedTuple, TypedDict

from workbench.errors import InputError
from workbench.models.chat import Message
from workbench.models.patience import RefusedError
from workbench.models.served import OWN, READY, LoadedEndpointGenerator

SLACK = 8  # tokens by which two halves of a prompt and the whole may differ
ROLES = ("system", "user")
ALARM = 0.05  # odds of taking chance for another model, at most
CANARIES: tuple[str, ...] = (
    "Name the capital of Australia and one river that flows through it.",
    "Write the numbers from eleven to fifteen as words, separated by commas.",
    "What is 17 times 23? Show each step.",
    "Explain in two sentences why the sky is blue.",
    "Translate into French: The library closes at six on Sundays.",
    "List four animals that lay eggs and are no birds.",
    "Finish the sentence in your own words: A good experiment needs",
    "Write a Python function that returns the second largest number of a list.",
)


class ProbeRecord(TypedDict):
    """What a server was found to accept, and to say of itself.

    `parameters` are those sent, all of them accepted; `system` is false where no prompt has a system turn and the server refuses
    one; `usage` is whether it counts tokens; `context` the tokens that it says the model reads, None where it does not say;
    `whole` the tokens of the longest prompt that was shown to be read whole, None where it cannot be shown.
    """

    model: str
    fingerprint: str
    system: bool
    parameters: list[str]
    usage: bool
    context: int | None
    whole: int | None


class Drift(NamedTuple):
    """How canaries were answered: how many there are, how many were answered otherwise at once, and how many since."""

    canaries: int
    floor: int
    changed: int

    @property
    def shown(self) -> bool:
        """Whether more have changed than chance lets change."""
        return beyond_chance(self.floor, self.canaries, self.changed, self.canaries)


def beyond_chance(floor: int, asked: int, changed: int, again: int) -> bool:
    """Whether answers differ more often now than when they were only asked twice (Fisher's exact test, one-sided, at 5 %).

    Args:
        floor: answers that differed when they were asked twice.
        asked: of so many.
        changed: answers that differ now.
        again: of so many.
    """
    both = floor + changed
    ways = [comb(again, k) * comb(asked, both - k) for k in range(changed, min(again, both) + 1)]
    return changed > 0 and sum(ways) / comb(asked + again, both) <= ALARM


def examined(loaded: LoadedEndpointGenerator, prompts: Sequence[Sequence[Message]]) -> ProbeRecord:
    """What a server accepts of what it is about to be sent.

    Args:
        loaded: the server's client.
        prompts: those it is about to be sent; the longest is sent whole and in two halves.

    Raises:
        InputError: it refuses a parameter or the system turn that prompts have, or drops part of a long prompt unsaid.
        StageFailedError: it gives no answer.
    """
    needs_system = any(message["role"] == "system" for prompt in prompts for message in prompt)
    try:
        ready, system = loaded.reply(READY), True
    except RefusedError as error:
        if error.status not in OWN:
            raise
        ready, system = _mended(loaded, needs_system, error), False
    loaded.client.strict = False  # the address is right: from now on, what cannot be read is a fault that passes
    context, stated = loaded.client.context(loaded.settings.model), loaded.settings.context
    if context and stated and stated > context:
        raise InputError(
            f"{loaded.name} reads {context:,} tokens, as it says; the setting context says {stated:,}: write context: {context}"
        )
    return {
        "model": ready.model,
        "fingerprint": ready.fingerprint,
        "system": system,
        "parameters": sorted(loaded.settings.sent()),
        "usage": ready.prompt_tokens is not None,
        "context": context,
        "whole": read_whole(loaded, max(prompts, key=size), ready.prompt_tokens),
    }


def _mended(loaded: LoadedEndpointGenerator, needs_system: bool, refused: RefusedError) -> Any:
    """The answer without a system turn, where no prompt needs one.

    Raises:
        InputError: that is not what is refused, or prompts need it; says what is refused, where leaving one thing out helps.
    """
    sent = loaded.settings.sent()
    for name in sent:
        if name == "max_tokens" and loaded.settings.dialect == "anthropic":
            continue  # nothing can be asked without it
        left = {other: value for other, value in sent.items() if other != name}
        if _accepted(loaded, READY, left):
            way_out = " and name max_completion_tokens among the parameters" if name == "max_tokens" else ""
            raise InputError(
                f"{loaded.name} refuses the parameter {name}: it accepts the same request without it. Leave it out{way_out}. "
                f"The server's words: {refused}"
            ) from None
    if not _accepted(loaded, READY[1:], sent):
        raise refused
    if needs_system:
        raise InputError(
            f"{loaded.name} refuses system turns: it accepts the same request without one. Use a prompt template whose "
            f"'system' is empty. The server's words: {refused}"
        ) from None
    return loaded.reply(READY[1:])


def _accepted(loaded: LoadedEndpointGenerator, messages: Sequence[Message], parameters: dict[str, Any]) -> bool:
    try:
        loaded.reply(messages, parameters)
    except RefusedError:
        return False
    return True


def read_whole(loaded: LoadedEndpointGenerator, prompt: Sequence[Message], small: int | None) -> int | None:
    """Tokens of a prompt that the server reads whole: as many as its two halves together. None where it does not count tokens.

    Args:
        loaded: the server's client.
        prompt: the one looked at.
        small: tokens of a prompt of a few words, hence about what the server adds to each prompt.

    Raises:
        InputError: the whole has fewer tokens than its halves, so that the server drops a part without a word.
    """
    if small is None:
        return None
    whole, first, second = (loaded.reply(part).prompt_tokens for part in (prompt, _half(prompt, 0), _half(prompt, 1)))
    if whole is None or first is None or second is None:
        return None
    if whole < first + second - small - SLACK:
        raise InputError(
            f"{loaded.name} drops a part of long prompts without saying so: it counts {whole:,} tokens in a prompt whose halves "
            f"have {first:,} and {second:,}. Let the server read more (Ollama: a model made with a larger num_ctx), or write "
            f"context: {whole} at its place below components.generators, so that fewer passages are shown, which is counted"
        )
    return whole


def size(prompt: Sequence[Message]) -> int:
    """Length of a conversation, in bytes of UTF-8."""
    return sum(len(message["content"].encode()) for message in prompt)


def _half(prompt: Sequence[Message], which: int) -> list[Message]:
    """The first or the second half of a prompt: of its system turn, and of all others in one turn, each cut at a space.

    In one turn, because a server adds tokens to each: halves with many turns would have more of those than the whole.
    """
    texts = [(role, "\n\n".join(m["content"] for m in prompt if (m["role"] == "system") == (role == "system"))) for role in ROLES]
    found: list[Message] = []
    for role, text in texts:
        middle = text.find(" ", len(text) // 2)
        middle = len(text) // 2 if middle < 0 else middle
        half = text[middle:] if which else text[:middle]
        if half or role == "user":  # there is always a turn to answer
            found.append({"role": role, "content": half})
    return found


def canaries(loaded: LoadedEndpointGenerator) -> dict[str, str]:
    """Canary -> its answer now; canaries without one are left out."""
    asked: list[list[Message]] = [[{"role": "user", "content": text}] for text in CANARIES]
    answers = {i: one for batch in loaded.generate(asked) for i, one in batch}
    return {CANARIES[i]: one.text for i, one in sorted(answers.items()) if one.status == "ok"}


def drift(first: Mapping[str, str], again: Mapping[str, str], now: Mapping[str, str]) -> Drift:
    """How today's answers to the canaries differ from those of the first time, when each was asked twice.

    Args:
        first: canary -> answer.
        again: canary -> answer right after it.
        now: canary -> answer today.
    """
    known = [text for text in CANARIES if text in first and text in again and text in now]
    floor = sum(first[text] != again[text] for text in known)
    return Drift(len(known), floor, sum(now[text] not in (first[text], again[text]) for text in known))
