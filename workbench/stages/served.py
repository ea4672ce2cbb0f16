"""What a session finds out and keeps of the servers it asks: probes, canaries, what answered, what it took."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

from workbench.component import canonical, digest
from workbench.models import probe
from workbench.models.answering import Generation
from workbench.models.chat import Message
from workbench.models.probe import ProbeRecord
from workbench.models.served import READY, EndpointGenerator, LoadedEndpointGenerator, most_tokens
from workbench.store.items import input_key
from workbench.store.session import Session

PROBE, FIRST, AGAIN, LAST = "probe", "canaries", "canaries again", "drift"
GROWN = 1.1  # times as long as the longest prompt examined: then a longer one is

T = TypeVar("T")


def answered(
    loaded: LoadedEndpointGenerator, namespace: str, prompts: Sequence[Sequence[Message]], session: Session, purpose: str
) -> Iterator[list[tuple[int, Generation]]]:
    """Answers to prompts that the store lacks, as many as the budget allows for; the server is examined first.

    Args:
        loaded: the server's client.
        namespace: what its answers have in common.
        prompts: those to be sent.
        session: keeps what is found out, and counts what is spent.
        purpose: what the answers are for, see `Spending`.

    Yields:
        Pairs of position and answer.

    Raises:
        BudgetError: the next prompt might take more than the budget leaves.
    """
    if not session.recording:  # a visitor's question: nothing is measured, so nothing is examined
        yield from loaded.generate(prompts)
        return
    settings = loaded.settings
    bounds = [_most(settings, [prompt]) for prompt in prompts]
    if _unexamined(loaded, prompts):
        tokens, money = _examination(loaded, prompts)
        session.spending.reserve(tokens + bounds[0][0], money + bounds[0][1])
        _examine(loaded, namespace, prompts, session)
    spent, done = session.spending.of(settings.model, purpose), 0
    while done < len(prompts):
        n = session.spending.affordable(bounds[done:])
        sent = loaded.patience.sent
        try:
            for batch in loaded.generate(prompts[done : done + n]):
                for i, one in batch:
                    read, written = _taken(settings, prompts[done + i], one)
                    spent.prompt_tokens += read
                    spent.new_tokens += written
                    spent.money += settings.price.of(read, written) if settings.price else 0.0
                session.note(loaded.notes)
                yield [(done + i, one) for i, one in batch]
        finally:
            spent.requests += loaded.patience.sent - sent
        done += n


def _most(settings: EndpointGenerator, prompts: Sequence[Sequence[Message]]) -> tuple[int, float]:
    """Tokens and money that prompts and their answers take at most."""
    read, written = sum(map(most_tokens, prompts)), settings.longest * len(prompts)
    return read + written, settings.price.of(read, written) if settings.price else 0.0


def _taken(settings: EndpointGenerator, prompt: Sequence[Message], one: Generation) -> tuple[int, int]:
    """Tokens of a prompt and its answer: as the server counts them, or the most there can be where it says none."""
    if one.served and one.served.get("usage"):
        return most_tokens(prompt), settings.longest
    return one.prompt_tokens, one.new_tokens


def _unexamined(loaded: LoadedEndpointGenerator, prompts: Sequence[Sequence[Message]]) -> bool:
    """Whether a server was not examined in this session, or only with shorter prompts."""
    return not loaded.longest_examined or max(map(probe.size, prompts)) > GROWN * loaded.longest_examined


def _examination(loaded: LoadedEndpointGenerator, prompts: Sequence[Sequence[Message]]) -> tuple[int, float]:
    """Tokens and money that examining a server takes at most, where it refuses nothing."""
    longest = max(prompts, key=probe.size)
    asked: list[Sequence[Message]] = [READY, longest, longest, READY]  # two halves are as long as the whole and another turn
    if not loaded.longest_examined:
        asked += [[{"role": "user", "content": text}] for text in probe.CANARIES] * 2
    return _most(loaded.settings, asked)


def examination(settings: EndpointGenerator, prompt_tokens: float) -> tuple[int, float]:
    """Tokens and money that examining a server takes at most, as far as it is known before a prompt is made.

    Args:
        settings: of the server.
        prompt_tokens: of the longest prompt, about.
    """
    canaries = [[{"role": "user", "content": text}] for text in probe.CANARIES] * 2
    read = int(2 * prompt_tokens) + sum(map(most_tokens, [READY, READY, *canaries]))
    written = settings.longest * (4 + len(canaries))
    return read + written, settings.price.of(read, written) if settings.price else 0.0


def _examine(loaded: LoadedEndpointGenerator, namespace: str, prompts: Sequence[Sequence[Message]], session: Session) -> None:
    """Probes the server and asks the canaries, once in a session; the probe again where prompts become longer."""
    largest = max(map(probe.size, prompts))
    first = not loaded.longest_examined
    record = _counted(loaded, session, "probe", lambda: probe.examined(loaded, prompts))
    loaded.longest_examined = largest
    _keep(session, namespace, PROBE, record)
    if not record["usage"]:
        loaded.notes.append(f"{loaded.name} counts no tokens: neither cost nor whether it reads whole prompts can be checked")
    if first:
        _counted(loaded, session, "canaries", lambda: _ask_canaries(loaded, namespace, session))


def _ask_canaries(loaded: LoadedEndpointGenerator, namespace: str, session: Session) -> None:
    """The first time each canary is asked twice; later once, and what has changed is said."""
    before, again = _kept(session, namespace, FIRST), _kept(session, namespace, AGAIN)
    now = probe.canaries(loaded)
    if before is None or again is None:  # the first time, or it was ended before they were asked twice
        _keep(session, namespace, FIRST, now)
        _keep(session, namespace, AGAIN, probe.canaries(loaded))
        return
    drift = probe.drift(before, again, now)
    _keep(session, namespace, LAST, drift._asdict())
    if drift.shown:
        loaded.notes.append(
            f"CAUTION: {loaded.name} serves something else than before: it answers {drift.changed} of {drift.canaries} fixed "
            f"prompts otherwise than when it was first asked, and {drift.floor} differed then by chance. Answers stored before "
            f"and new ones are not of one model; give the generator another revision, so that all are asked anew"
        )


def _counted(loaded: LoadedEndpointGenerator, session: Session, purpose: str, ask: Callable[[], T]) -> T:
    """What `ask` gives; its requests are counted apart from those for answers."""
    spent, sent = session.spending.of(loaded.settings.model, purpose), loaded.patience.sent
    tokens, loaded.tokens = loaded.tokens, (0, 0)
    try:
        return ask()
    finally:
        spent.requests += loaded.patience.sent - sent
        read, written = loaded.tokens
        spent.prompt_tokens += read
        spent.new_tokens += written
        spent.money += loaded.settings.price.of(read, written) if loaded.settings.price else 0.0
        loaded.tokens = tokens


def probed(namespace: str, session: Session) -> ProbeRecord | None:
    """What was found out about the server when it was last asked; None where it never was."""
    found = _kept(session, namespace, PROBE)
    return cast(ProbeRecord, found) if found else None


def drifted(namespace: str, session: Session) -> probe.Drift | None:
    """How the canaries were answered when they were last asked again; None where they never were."""
    found = _kept(session, namespace, LAST)
    return probe.Drift(**found) if found else None


def _space(namespace: str) -> str:
    return digest(["server", namespace])


def _keep(session: Session, namespace: str, name: str, value: Any) -> None:
    session.store.items.put(_space(namespace), {input_key(name): canonical(value).encode()})


def _kept(session: Session, namespace: str, name: str) -> Any:
    found = session.store.items.get(_space(namespace), [input_key(name)])
    return json.loads(next(iter(found.values()))) if found else None
