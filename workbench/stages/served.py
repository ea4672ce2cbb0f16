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
from workbench.models.served import LoadedEndpointGenerator, most_tokens
from workbench.store.items import input_key
from workbench.store.session import Session

PROBE, FIRST, AGAIN, LAST = "probe", "canaries", "canaries again", "drift"
GROWN = 1.1  # times as long as the longest prompt examined: then a longer one is

T = TypeVar("T")


def answered(
    loaded: LoadedEndpointGenerator, namespace: str, prompts: Sequence[Sequence[Message]], session: Session, purpose: str
) -> Iterator[list[tuple[int, Generation]]]:
    """Answers to prompts that the store lacks, within the budget; the server is examined first.

    Args:
        loaded: the server's client.
        namespace: what its answers have in common.
        prompts: those to be sent.
        session: keeps what is found out, and counts what is spent.
        purpose: what the answers are for, see `Spending`.

    Yields:
        Pairs of position and answer.

    Raises:
        BudgetError: the prompts might take more than the budget leaves.
    """
    if not session.recording:  # a visitor's question: nothing is measured, so nothing is examined
        yield from loaded.generate(prompts)
        return
    settings = loaded.settings
    bound = sum(map(most_tokens, prompts))
    money = settings.price.of(bound, settings.longest * len(prompts)) if settings.price else 0.0
    session.spending.reserve(bound + settings.longest * len(prompts), money)
    _examine(loaded, namespace, prompts, session)
    spent, sent = session.spending.of(settings.model, purpose), loaded.patience.sent
    try:
        for batch in loaded.generate(prompts):
            for _, one in batch:
                spent.prompt_tokens += one.prompt_tokens
                spent.new_tokens += one.new_tokens
                spent.money += settings.price.of(one.prompt_tokens, one.new_tokens) if settings.price else 0.0
            session.note(loaded.notes)
            yield batch
    finally:
        spent.requests += loaded.patience.sent - sent


def _examine(loaded: LoadedEndpointGenerator, namespace: str, prompts: Sequence[Sequence[Message]], session: Session) -> None:
    """Probes the server and asks the canaries, once in a session; the probe again where prompts become longer."""
    largest = max(map(probe.size, prompts))
    if loaded.longest_examined and largest <= GROWN * loaded.longest_examined:
        return
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
    before = _kept(session, namespace, FIRST)
    now = probe.canaries(loaded)
    if before is None:
        _keep(session, namespace, FIRST, now)
        _keep(session, namespace, AGAIN, probe.canaries(loaded))
        return
    drift = probe.drift(before, _kept(session, namespace, AGAIN) or {}, now)
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
