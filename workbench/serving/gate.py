"""Whether a pipeline answers as it was measured: asked before anybody is let in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from workbench.data.readers.text import counted
from workbench.errors import StageFailedError

if TYPE_CHECKING:
    from workbench.pipeline import Pipeline, Replay

SAMPLE = 2  # measured answers that are computed again
CHECKED = 8  # likewise by `workbench serve --check`


def gate(pipeline: Pipeline, sample: int = SAMPLE) -> str:
    """Computes measured answers of the configuration to be served again, the first alone and all of them together.

    Args:
        pipeline: what is to be served.
        sample: how many answers, of those that the run holds first. Of a server's answers one, since they cost money.

    Returns:
        One line on what was found.

    Raises:
        StageFailedError: there is none, or one is not the same; the message names what differs.
    """
    label, folder = pipeline.configuration.label, pipeline.run.folder
    if pipeline.answering is None:
        return f"{label} only ranks passages: there is no recorded answer to replay before serving"
    served = pipeline.answering.writer.served
    names = _first(pipeline, 1 if served else sample)
    if not names:
        raise StageFailedError(_nothing_recorded(pipeline))
    found = [pipeline.replay(names[0]), *(pipeline.replays(names) if len(names) > 1 else [])]
    for one in found:
        if not one.same:
            raise StageFailedError(
                f"not served: {label} no longer answers query {one.query_id} as run {folder} recorded ({_differences(one)}). "
                f"Run the experiment again"
            )
    if found[0].differing:
        chance = found[0].chance or "how often the server's answers differ was not measured"
        return f"{label} shows query {names[0]} the same passages, its answer is another: {chance}"
    together = f", and with {counted(len(names) - 1, 'other')} together," if len(names) > 1 else ""
    return f"{label} answers query {names[0]}{together} as recorded"


def prompt_gate(pipeline: Pipeline, sample: int = SAMPLE) -> str:
    """Builds prompts of measured answers again, where a server answers that costs money, or time that there is not.

    Args:
        pipeline: what is to be served, whose generator is behind a server.
        sample: how many prompts, of the answers that the run holds first.

    Returns:
        One line on what was found.

    Raises:
        StageFailedError: one is not the same, or the run holds no answer of the configuration.
    """
    label, folder = pipeline.configuration.label, pipeline.run.folder
    if pipeline.answering is None:
        return f"{label} only ranks passages: there is no recorded answer to replay before serving"
    names = _first(pipeline, sample)
    if not names:
        raise StageFailedError(_nothing_recorded(pipeline))
    for name in names:
        if differing := pipeline.shown_as_recorded(name):
            raise StageFailedError(
                f"not served: {label} no longer shows the generator what run {folder} recorded of query {name} (other "
                f"{' and '.join(differing)}). Run the experiment again"
            )
    return f"{label} shows the generator what was recorded of {len(names)} queries"


def _nothing_recorded(pipeline: Pipeline) -> str:
    return (
        f"run {pipeline.run.folder} records no answer of {pipeline.configuration.label}, so nothing shows that it answers as it "
        f"was measured; run the experiment again"
    )


def _differences(one: Replay) -> str:
    recorded, replayed = one.recorded._asdict(), one.replayed._asdict()
    return "; ".join(f"{field}: recorded {_short(recorded[field])}, now {_short(replayed[field])}" for field in one.differing)


def _first(pipeline: Pipeline, n: int) -> list[str]:
    """Ids of the first queries whose answers by the configuration the run holds."""
    with (pipeline.run.folder / "answers.jsonl").open(encoding="utf-8") as lines:
        rows = (row for row in map(json.loads, lines) if row["configuration"] == pipeline.configuration.id)
        return [row["query_id"] for row, _ in zip(rows, range(n), strict=False)]


def _short(value: object, length: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 1] + "…"
