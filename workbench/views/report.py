"""A run as one HTML file that asks for nothing outside itself: to open, to mail, to print."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from workbench.results import words
from workbench.results.run import Run
from workbench.views.asked import Asked, asked_of
from workbench.views.card import card
from workbench.views.curves import losses
from workbench.views.html import cell, foreign, or_box, page, section, sourced, table, text
from workbench.views.notebooks import notebooks
from workbench.views.questions import FILTER, everyone, strip, telling
from workbench.views.tables import matters, setups, slices, timing
from workbench.views.trust import trust


def report(run: Run) -> str:
    """The whole report; the same run gives the same bytes.

    Args:
        run: a finished run; its folder alone is read, neither its store nor its data.
    """
    asked = asked_of(run)
    parts: dict[str, tuple[str, Callable[[], str]]] = {
        "questions": ("Question by question", lambda: strip(run) + (telling(asked) if isinstance(asked, Asked) else "")),
        "matters": ("What matters", lambda: matters(run)),
        "setups": ("All setups", lambda: setups(run)),
        "slices": ("Parts of the questions", lambda: slices(run)),
        "time": ("Quality and time", lambda: timing(run)),
        "trust": ("Can you trust this?", lambda: trust(run)),
        "all": ("All questions", lambda: everyone(asked, filters=True) if isinstance(asked, Asked) else asked),
        "training": ("Training", lambda: training(run)),
        "origin": ("How it was made", lambda: origin(run)),
        "notebooks": ("Notebooks", lambda: notebooks(run)),
    }
    bodies = {identity: (title, or_box(make)) for identity, (title, make) in parts.items()}
    bodies = {identity: (title, body) for identity, (title, body) in bodies.items() if body}
    made = [
        f"<p class=wb-quiet>{foreign(run.manifest['experiment'])} · run {text(run.folder.resolve().name)}</p>",
        or_box(lambda: card(run)),
    ]
    made += [section(identity, title, body) for identity, (title, body) in bodies.items()]
    title = f"{run.manifest['experiment']}: what was found"
    return page(title, "".join(made), {identity: title for identity, (title, _) in bodies.items()}, FILTER)


def training(run: Run) -> str:
    """The losses of each training."""
    rows = run.training
    if not rows:
        return "<p>Nothing was trained.</p>"
    lines, curves = [], []
    for adapter, seed in dict.fromkeys((row.adapter, row.seed) for row in rows):
        own = [row for row in rows if (row.adapter, row.seed) == (adapter, seed)]
        steps = [row for row in own if row.loss is not None]
        if not steps:
            continue
        curves.append(losses(own))
        keys = {"adapter": adapter, "seed": str(seed)}
        ends = [
            sourced(f"{row.loss:.2f}", cell("training.csv", "loss", **keys, step=str(row.step))) for row in (steps[0], steps[-1])
        ]
        count = sourced(f"{steps[-1].step:,}", cell("training.csv", "step", **keys, step=str(steps[-1].step)))
        trained = sourced(str(seed), cell("training.csv", "seed", **keys, step=str(steps[-1].step)))
        lines.append((text(adapter), trained, count, *ends))
    head = ("adapter", "seed", "steps", "loss of the first step", "of the last")
    return "".join(curves) + table("Losses in nats per answer token", head, lines, right=(1, 2, 3, 4))


def origin(run: Run) -> str:
    """Where and on what the run was made, and the commands that check it."""
    machine, sizes = run.manifest["machine"], run.manifest["dataset"].get("sizes", {})
    counted = ", ".join(f"{n:,} {what}" for what, n in sizes.items())
    versions = ", ".join(f"{name} {version}" for name, version in sorted(run.manifest["libraries"].items()))
    facts = [
        sourced("; ".join(str(machine.get(name, "")) for name in ("processor", "arithmetic")), cell("manifest.json", "machine")),
        sourced(counted, cell("manifest.json", "dataset")),
        sourced(versions, cell("manifest.json", "libraries")),
    ]
    items = "".join(f"<li>{fact}</li>" for fact in facts)
    name = shlex.quote(f"runs/{run.manifest['experiment']}/{run.folder.resolve().name}")
    first = next((row["query_id"] for row in run.answers), None)
    again = "" if first is None else f"workbench replay {name} {shlex.quote(first)}\n"
    compare = f"workbench compare {name} --details\n" if len(run.configurations) > 1 else ""
    does = " and ".join(filter(None, ["compute an answer again" if again else "", "show every test" if compare else ""]))
    commands = f"<p>To {does}:</p><pre>{text((again + compare).rstrip())}</pre>" if does else ""
    return (
        f"<ul class=wb-list>{items}</ul>{commands}"
        f"<details><summary>The experiment’s file with every default filled in</summary><pre>{text(run.config)}</pre></details>"
        f"<p class=wb-quiet>Means and differences are points of {text(words.metric_name(run.select[1]))}, of 100.</p>"
    )
