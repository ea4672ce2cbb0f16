"""All runs of a folder as a page: what each found, what is running, and what did not finish."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

from workbench.errors import InputError
from workbench.results.example import unpacked
from workbench.results.run import MANIFEST, Run, finished
from workbench.results.running import running
from workbench.results.verdict import verdict
from workbench.results.words import run_name
from workbench.views.card import title
from workbench.views.html import box, foreign, page, section, text

PAGES = ("verdict", "questions", "training")
MOST = 200  # runs that are listed


def index(runs: Path) -> str:
    """The page.

    Args:
        runs: folder of all runs.
    """
    parts = [
        ("running", "Running", _running(runs)),
        ("runs", "Runs", _runs(runs)),
        ("unfinished", "Unfinished", _unfinished(runs)),
        ("example", "Recorded example", _example()),
    ]
    there = [(identity, title, body) for identity, title, body in parts if body]
    body = "".join(section(identity, title, found) for identity, title, found in there)
    return page("Runs", f"<h1>Runs</h1>{body}", {identity: title for identity, title, _ in there})


def _running(runs: Path) -> str:
    try:
        lines = "".join(f"<li>{text(one)}</li>" for one in running(runs) if not one.ended)
    except InputError as error:
        return box(str(error))
    return f"<ul class=wb-list>{lines}</ul>" if lines else ""


def _ended(runs: Path) -> str:
    """Experiments that ended before they had a folder of results; what is damaged is said where those under way are listed."""
    try:
        return "".join(f"<li>{text(one)}.</li>" for one in running(runs) if one.ended)
    except InputError:
        return ""


def _runs(runs: Path) -> str:
    found = sorted(finished(runs), key=lambda folder: (folder.name, str(folder)), reverse=True)
    if not found:
        return (
            f"<p>There is no finished run in {foreign(runs)}. This command makes one:</p>"
            f"<pre>workbench run configs/quickstart.yaml --runs {text(runs)}</pre>"
        )
    more = f"<p>{len(found) - MOST:,} older ones are not listed.</p>" if len(found) > MOST else ""
    return "".join(map(_run, found[:MOST])) + more


def _example() -> str:
    try:
        return f"<p>A run that comes with the workbench, to look at before there is one of your own.</p>{_run(unpacked())}"
    except InputError as error:
        return box(str(error))


def _run(folder: Path) -> str:
    name = f"{folder.parent.name}/{folder.name}"
    try:
        run = Run.open(folder)
        found = verdict(run)
        said = f"{text(found.sign)} {title(run, found)}"
    except InputError as error:
        return f"<article><h3>{foreign(run_name(folder))}</h3>{box(str(error))}</article>"
    links = [(one.capitalize(), f"voila/render/{one}.ipynb?{urlencode({'run': name})}") for one in PAGES]
    links.append(("Report", f"report?{urlencode({'run': name})}"))
    shown = " · ".join(f"<a href='{text(to)}'>{name}</a>" for name, to in links)
    return f"<article><h3>{foreign(run_name(folder))}</h3><p>{said}</p><p>{shown}</p></article>"


def _unfinished(runs: Path) -> str:
    folders = [folder for folder in sorted(runs.glob("[!.]*/*")) if folder.is_dir() and not (folder / MANIFEST).is_file()]
    lines = _ended(runs)
    lines += "".join(f"<li>{foreign(run_name(folder))} did not finish, or is still being written.</li>" for folder in folders)
    said = "<p>Running the same experiment again goes on from what the store holds.</p>"
    return f"<ul class=wb-list>{lines}</ul>{said}" if lines else ""
