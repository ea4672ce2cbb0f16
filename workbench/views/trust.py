"""Can you trust this? Every check of a run, said either way."""

from __future__ import annotations

import re

from workbench.results import words
from workbench.results.run import Run
from workbench.views.html import cell, sourced, text

FINE, CAREFUL = "✓", "!"
CAUTION = "CAUTION: "
NOT_READ = re.compile(r"\d+ of \d+ files? (?:is|are) not read")


def trust(run: Run) -> str:
    """What supports the figures of a run and what weakens them, one line each."""
    lines = [_fresh(run), _repeated(run), *_trained(run), _failures(run), *_cut(run), *_unread(run), *_data(run), *_enough(run)]
    items = "".join(f"<li>{sign}&nbsp; {said}</li>" for sign, said in lines)
    return f"<ul class=wb-checks>{items}</ul><p class=wb-quiet>✓ supports the figures; ! weakens them.</p>"


def _of_manifest(shown: str, key: str) -> str:
    return sourced(shown, cell("manifest.json", key))


def _fresh(run: Run) -> tuple[str, str]:
    return FINE, f"The setup was chosen on {text(run.select[0])} and is reported on {text(run.report_split)}: other questions."


def _repeated(run: Run) -> tuple[str, str]:
    found = run.manifest["repeated"].values()
    asked, differ = sum(row["answers"] for row in found), sum(len(row["differing"]) for row in found)
    if not asked:
        return FINE, "No answer was asked for again."
    said = _of_manifest(f"{asked - differ} of {asked} answers", "repeated")
    if differ:
        return CAREFUL, f"Asked again, {said} came out the same; small differences may be chance."
    return FINE, f"Asked again in other batches, {said} came out the same."


def _trained(run: Run) -> list[tuple[str, str]]:
    if not any("adapter" in row.keys for row in run.configurations):
        return []
    seeds = run.manifest["seeds"]
    if seeds == 1:
        return [
            (
                CAREFUL,
                "The model was trained once. Another training may do better or worse; the setting <code>seeds</code> would tell.",
            )
        ]
    return [
        (FINE, f"The model was trained {_of_manifest(f'{seeds} times', 'seeds')}; how the trainings differ is in the intervals.")
    ]


def _failures(run: Run) -> tuple[str, str]:
    failed = run.manifest["failures"]
    if not failed:
        return FINE, "No answer failed."
    told = ", ".join(f"{n} ({status})" for status, n in failed.items())
    return CAREFUL, f"Answers failed: {_of_manifest(told, 'failures')}. Each counts as the worst value of every metric."


def _cut(run: Run) -> list[tuple[str, str]]:
    lines = []
    for name, row in run.manifest["cut"].items():
        said = _of_manifest(f"{row['prompts']} prompts", "cut")
        lines.append((CAREFUL, f"{said} were too long for {text(name)}; their last passages were left out."))
    return lines


def _unread(run: Run) -> list[tuple[str, str]]:
    lines = []
    for row in run.manifest["truncation"]:
        cut = row["truncation"]
        if cut and cut["texts"]:
            said = _of_manifest(f"{cut['texts']:,} of {row['passages']:,} passages", "truncation")
            lines.append(
                (CAREFUL, f"{said} are too long for the embedder {text(row['embedder'])}; their ends cannot be found by meaning.")
            )
    return lines


def _data(run: Run) -> list[tuple[str, str]]:
    """What was said of the documents and questions that weakens every figure: too few of them, or files that were not read."""
    notes = [str(note) for note in run.manifest["dataset"].get("notes", [])]
    told = [note.removeprefix(CAUTION) for note in notes if note.startswith(CAUTION) or NOT_READ.match(note)]
    return [(CAREFUL, f"{_of_manifest(note[0].upper() + note[1:], 'dataset')}.") for note in told]


def _enough(run: Run) -> list[tuple[str, str]]:
    """What gain these questions would notice."""
    row = next((row for row in run.finalists if row.metric == run.select[1] and row.configuration == run.best), None)
    if row is None or row.smallest_detectable is None:
        return []
    keys = {"configuration": row.configuration, "split": row.split, "metric": row.metric}
    n = cell("finalists.csv", "n", **keys)
    if row.low is None:
        return [(CAREFUL, f"{sourced(f'{row.n:,}', n)} questions are too few to show anything.")]
    said = sourced(
        f"{row.n:,} questions notice gains of about {words.number(row.smallest_detectable)} points or more",
        n,
        cell("finalists.csv", "smallest_detectable", **keys),
    )
    return [(FINE if row.supported == "yes" else CAREFUL, f"{said}, in eight of ten samples of that size.")]
