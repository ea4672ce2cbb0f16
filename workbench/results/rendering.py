"""A comparison as a table to read and to publish: plain cells, Markdown, LaTeX, and the caption that makes it stand alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import isinf, isnan
from pathlib import Path

from workbench.errors import InputError
from workbench.results import table_files
from workbench.results.compare import ALPHA, Compared, pair_rows
from workbench.results.rows import ComparisonRow

HEAD = ("system", "mean", "95 % interval", "letters", "failed", "difference", "95 % interval", "p (Holm)", "n needed")


def table(compared: Compared) -> list[tuple[str, ...]]:
    """One line of texts for each system, best first, in the columns of `HEAD`."""
    lines: list[tuple[str, ...]] = []
    for system in compared.order:
        one, other = compared.standing(system), compared.against_baseline.get(system)
        head = (one.name, f"{one.mean:.3f}", _interval(one.low, one.high), compared.letters[system], str(one.failed))
        if other is None:
            lines.append((*head, "baseline", "", "", ""))
        else:
            interval = _interval(other.low, other.high, "+")
            lines.append((*head, f"{other.difference:+.3f}", interval, p_text(other.p_holm), count(one.needed_n)))
    return lines


def caption(compared: Compared) -> str:
    """What the table shows, so that it can stand alone."""
    scores, k = compared.scores, len(compared.order)
    groups = len(set(scores.groups))
    grouped = f" in {groups} groups" if groups < len(scores.queries) else ""
    detectable = [one.smallest_detectable for one in compared.against_baseline.values() if not isnan(one.smallest_detectable)]
    smallest = f" Smallest detectable difference (80 % power): {_range(detectable)}." if detectable else ""
    chosen = (
        f" A best chosen on these very queries is flattered by about {compared.optimism:.3f} (split halves)." if k > 2 else ""
    )
    failures = f" A failure counts as {scores.worst:g}." if scores.failed.any() else ""
    where = f" on {scores.split}" if scores.split else ""
    robust = ", cluster-robust" if grouped else ""
    return (
        f"{scores.metric}{where}, n = {len(scores.queries)}{grouped}. Intervals: 95 %, t of the paired differences{robust}; p: "
        f"sign flips, adjusted by Holm over the {k - 1} differences from {compared.names[compared.baseline]}. Systems that share "
        f"a letter are not distinguishable at {ALPHA:g} (Holm over all {k * (k - 1) // 2} pairs). n needed: queries that would "
        f"show such a difference with 80 % power.{smallest}{chosen}{failures}"
    )


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return low if low == high else f"{low} to {high}"


def _interval(low: float, high: float, sign: str = "") -> str:
    return "" if isnan(low) else f"{low:{sign}.3f} to {high:{sign}.3f}"


def p_text(p: float | None) -> str:
    """A p-value for reading: ``.032``, ``< .001``, ``1``; a dash where there is none."""
    if p is None or isnan(p):
        return "–"
    if p < 0.001:
        return "< .001"
    return "1" if p >= 0.9995 else f"{p:.3f}"[1:]


def count(n: float) -> str:
    """A number of queries; nothing where it has none."""
    return "" if isnan(n) else "no number" if isinf(n) else f"{n:,.0f}"


def check(path: Path) -> None:
    """Refuses a file that `write` has no form for, or that cannot be made.

    Raises:
        InputError: another ending than .csv, .md or .tex, or no such folder.
    """
    if path.suffix not in FORMS:
        raise InputError(f"--out {path}: its ending is {path.suffix!r}; allowed: {', '.join(FORMS)}")
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: there is no folder {path.parent}")


def write(compared: Compared, path: Path) -> None:
    """Writes the pairs (.csv) or the table (.md, .tex)."""
    FORMS[path.suffix](compared, path)


def as_markdown(compared: Compared) -> str:
    """The table for a README or an issue."""
    lines = [HEAD, ("---", "--:", "---", "---", "--:", "--:", "---", "--:", "--:"), *table(compared)]
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped) + f"\n{caption(compared)}\n"


def as_latex(compared: Compared) -> str:
    """The table for a paper; needs the package booktabs."""
    rows = []
    for line in table(compared):
        name, mean, interval, letters, failed, difference, interval_2, p, needed = map(_tex, line)
        rows.append(" & ".join((name, f"{mean}$^{{{letters}}}$", interval, failed, difference, interval_2, p, needed)) + r" \\")
    head = " & ".join(_tex(name) for name in HEAD if name != "letters") + r" \\"
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(caption(compared))}}}",
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
    escaped = "".join(TEX.get(sign) or (f"\\{sign}" if sign in "&%$#_{}" else sign) for sign in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def _write_pairs(compared: Compared, path: Path) -> None:
    table_files.write(path, ComparisonRow, pair_rows(compared))


FORMS: dict[str, Callable[[Compared, Path], object]] = {
    ".csv": _write_pairs,
    ".md": lambda compared, path: path.write_text(as_markdown(compared), encoding="utf-8"),
    ".tex": lambda compared, path: path.write_text(as_latex(compared), encoding="utf-8"),
}
