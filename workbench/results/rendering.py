"""A comparison as a table to read and to publish: plain cells, Markdown, LaTeX, and the caption that makes it stand alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from math import isinf, isnan
from pathlib import Path

from workbench.data.readers.text import counted
from workbench.errors import InputError
from workbench.evaluation.families import FAMILIES
from workbench.results import table_files, words
from workbench.results.compare import Compared, pair_rows
from workbench.results.rows import ComparisonRow
from workbench.results.verdict import graded, shown
from workbench.results.words import MINUS

HEAD = ("system", "mean", "95 % interval", "beside the best", "failed", "gain", "plausibly", "verdict", "questions needed")
DETAILS = ("family", "p", "p adjusted", "p (Holm)", "letters")  # for statisticians
RIGHT = (1, 4, 5, 8)  # columns of numbers


def table(compared: Compared, details: bool = False) -> list[tuple[str, ...]]:
    """One line of texts for each system, best first, in the columns of `HEAD`, and of `DETAILS` where these are wanted."""
    lines: list[tuple[str, ...]] = []
    unit = compared.unit
    for system in compared.order:
        one, other = compared.standing(system), compared.against_baseline.get(system)
        head = one.name, words.number(one.mean, unit), words.between(one.low, one.high, unit)
        place = compared.beside_the_best[system], str(one.failed)
        letters = compared.letters[system]
        if other is None:
            lines.append((*head, *place, "baseline", "", "", "", *(("", "", "", "", letters) if details else ())))
            continue
        word = graded(other, compared.matters)
        gain = words.number(other.difference, unit, signed=True), words.between(other.low, other.high, unit, signed=True)
        needed = "" if shown(other) or other.n_needed is None else count(other.n_needed)
        p = tuple(map(words.p_text, (other.p, other.p_adjusted, other.p_holm)))
        lines.append((*head, *place, *gain, word, needed, *((other.family, *p, letters) if details else ())))
    return lines


def caption(compared: Compared, details: bool = False) -> str:
    """What the table shows, so that it can stand alone; with details also the tests behind it."""
    scores, k = compared.scores, len(compared.order)
    groups = len(set(scores.groups))
    grouped = f" in {groups} groups" if groups < len(scores.queries) else ""
    in_points = " in points of 100" if compared.unit == words.POINTS else ""
    where = f" on {scores.split}" if scores.split else ""
    by = words.number(compared.optimism, compared.unit)
    flattered = f"Whatever is chosen as the best on these very questions is flattered by about {by}."
    if compared.optimism <= 0:
        flattered = "There is no sign that choosing the best on these very questions flatters it."
    sentences = [
        f"{words.metric_name(scores.metric)}{where}{in_points}, {counted(len(scores.queries), 'question')}{grouped}.",
        f"Gain: over {compared.names[compared.baseline]} on the same questions, with the interval in which the true gain "
        "plausibly lies; that leaves out 0 exactly when the difference is shown. Not shown does not mean equal.",
        "Questions needed: with so many, 8 of 10 tries would show such a gain.",
        flattered if k > 2 else "",
        f"A failure counts as {words.number(scores.worst, compared.unit)}." if scores.failed.any() else "",
        _tests(compared) if details else "",
    ]
    return " ".join(filter(None, sentences))


def _tests(compared: Compared) -> str:
    """What the numbers of the details mean."""
    families = Counter(row.family for row in compared.pairs)
    named = ", ".join(f"{name} ({families[name]})" for name in FAMILIES if name in families)
    return (
        "Intervals of gains are sign-flip tests inverted at the level .05 of their family of tests; pairs by family: "
        f"{named}. Systems that share a letter are not shown to differ. What choosing flatters is estimated from split halves."
    )


def count(n: float) -> str:
    """A number of queries; nothing where it has none."""
    return "" if isnan(n) else "no number" if isinf(n) else f"{n:,.0f}"


def check(path: Path, forms: Iterable[str] = ()) -> None:
    """Refuses a file that has no form to be written in, or that cannot be made.

    Args:
        path: the file.
        forms: endings that have one; default: those of `write`.

    Raises:
        InputError: another ending, or no such folder.
    """
    allowed = tuple(forms or FORMS)
    if path.suffix not in allowed:
        raise InputError(f"--out {path}: its ending is {path.suffix!r}; allowed: {', '.join(allowed)}")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}")


def write(compared: Compared, path: Path) -> None:
    """Writes the pairs (.csv) or the table (.md, .tex)."""
    FORMS[path.suffix](compared, path)


def as_markdown(compared: Compared) -> str:
    """The table for a README or an issue."""
    return f"{markdown(HEAD, table(compared), RIGHT)}\n{caption(compared)}\n"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], right: Container[int]) -> str:
    """A table in Markdown.

    Args:
        head: names of the columns.
        lines: texts of the cells.
        right: columns of numbers, which are aligned on the right.
    """
    marks = ["--:" if number in right else "---" for number in range(len(head))]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in (head, marks, *lines)]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def as_latex(compared: Compared) -> str:
    """The table for a paper; needs the package booktabs."""
    rows = []
    for line in table(compared, details=True):
        name, mean, interval, _, failed, gain, plausibly, _, needed, _, _, p, _, letters = map(_tex, line)
        rows.append(" & ".join((name, f"{mean}$^{{{letters}}}$", interval, failed, gain, plausibly, p, needed)) + r" \\")
    names = "system", "mean", "95 % interval", "failed", "gain", "interval", "p (adjusted)", "questions needed"
    head = " & ".join(map(_tex, names)) + r" \\"
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(caption(compared, details=True))}}}",
        r"\begin{tabular}{lrlrrlrr}",
        r"\toprule",
        head,
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}


def _tex(text: str) -> str:
    """A text with LaTeX's own signs escaped, and a true minus."""
    text = text.replace(MINUS, "-")
    escaped = "".join(TEX.get(sign) or (f"\\{sign}" if sign in "&%$#_{}" else sign) for sign in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def _write_pairs(compared: Compared, path: Path) -> None:
    table_files.write(path, ComparisonRow, pair_rows(compared))


FORMS: dict[str, Callable[[Compared, Path], object]] = {
    ".csv": _write_pairs,
    ".md": lambda compared, path: path.write_text(as_markdown(compared), encoding="utf-8"),
    ".tex": lambda compared, path: path.write_text(as_latex(compared), encoding="utf-8"),
}
