"""The verdict card: whether the best setup beats the baseline on questions that had no part in choosing it."""

from __future__ import annotations

from workbench.results import words
from workbench.results.conclusions import flattery, named, overlooked
from workbench.results.rows import LeaderboardRow, Tested
from workbench.results.run import Run
from workbench.results.verdict import BASELINE, BETTER, LEANING, OPEN, UNCOMPARED, WORSE, Verdict, verdict
from workbench.views.html import cell, foreign, sourced, text

LOOKS = {BETTER: "wb-better", WORSE: "wb-worse"}
HEADS = {BETTER: "Better: {}", WORSE: "Worse: {}", OPEN: "These questions do not show whether {} is better"}
NEAR = 0.12  # of a picture's width: a number so near to zero would stand on the line
SEEMS = "{} looks %s, but these questions do not prove it"


def card(run: Run, level: int = 1) -> str:
    """The verdict on the chosen setup against the baseline, with its picture.

    Args:
        run: a finished run.
        level: of the heading.
    """
    found = verdict(run)
    better = overlooked(run) if found.word == BASELINE else []
    sign = f"<span class=wb-sign aria-hidden=true>{text(found.sign)}</span> "
    body = [f"<h{level}>{sign}{title(run, found)}</h{level}>", f"<p>{_standing(run, found)}</p>"]
    if meaning := words.meaning(found.metric):
        body.append(f"<p class=wb-quiet>{text(meaning)}</p>")
    if found.row is not None:
        body += [f"<p>{_gain(run, found)}</p>", _picture(run, found, found.row)]
    elif found.word == BASELINE and len(run.configurations) > 1:
        body.append(f"<p>It is {text(run.today)} itself: {text(found.word)} where it was chosen ({text(run.select[0])}).</p>")
        body += [f"<p>{sourced(line, cell('comparisons.csv', 'difference'))}</p>" for line in better]
    elif found.word == UNCOMPARED:
        body.append(f"<p>It was {text(found.word)} with {text(run.today)} on {text(found.split)}.</p>")
    return f"<section class='wb-card {LOOKS.get(found.word, '')}' aria-label='Verdict'>{''.join(body)}</section>"


def title(run: Run, found: Verdict) -> str:
    """What follows for the chosen setup, in one line of HTML: ``Better: re-ranked``."""
    if found.word == BASELINE:
        if len(run.configurations) == 1:
            return "One setup was measured"
        today = text(run.today)
        return f"{today[0].upper()}{today[1:]} was chosen" if overlooked(run) else f"Nothing tried did better than {today}"
    head = HEADS.get(found.word, found.word[0].upper() + found.word[1:] + ": {}")
    if found.word == LEANING and found.row is not None:
        head = SEEMS % ("better" if found.row.difference > 0 else "worse")
    return text(head).format(foreign(run.names[found.a]))


def mean_of(row: LeaderboardRow, signed: bool = False) -> str:
    """A mean of leaderboard.csv in points, with its address."""
    address = cell("leaderboard.csv", "mean", configuration=row.configuration, split=row.split, metric=row.metric)
    return sourced(words.number(row.mean, signed=signed), address)


def interval_of(row: LeaderboardRow) -> str:
    """The interval of a mean of leaderboard.csv in points, with its address; empty where there is none."""
    keys = {"configuration": row.configuration, "split": row.split, "metric": row.metric}
    said = words.between(row.ci_low, row.ci_high)
    return sourced(said, cell("leaderboard.csv", "ci_low", **keys), cell("leaderboard.csv", "ci_high", **keys)) if said else ""


def compared(run: Run, a: str, b: str, split: str, metric: str, column: str) -> str:
    """The address of a cell of the comparison of two configurations, whichever way round comparisons.csv has them.

    Args:
        run: the run.
        a: id of the first.
        b: id of the second.
        split: both were measured on it.
        metric: both were measured by it.
        column: of the cell.
    """
    first, second = (a, b) if any(row.a == a and row.b == b for row in run.comparisons) else (b, a)
    return cell("comparisons.csv", column, a=first, b=second, split=split, metric=metric)


def _standing(run: Run, found: Verdict) -> str:
    metric = run.select[1]
    measured = [row for row in run.leaderboard if (row.split, row.metric) == run.select]
    row = run.row(found.a, run.report_split, metric) or run.best_row
    address = cell("leaderboard.csv", "n", configuration=row.configuration, split=row.split, metric=metric)
    fresh = "fresh questions" if row.split != run.select[0] else "questions it was picked by"
    n, interval = sourced(f"{row.n:,}", address), interval_of(row)
    plausibly = f" (plausibly {interval})" if interval else ""
    who = text(run.today) if found.word == BASELINE else "it"
    said = f"On {n} {fresh} ({text(row.split)}) {who} scores <strong>{mean_of(row)} of 100</strong> by "
    said += f"{text(words.metric_name(metric))}{plausibly}"
    base = run.row(run.manifest["baseline"], row.split, metric)
    if base is not None and base.configuration != row.configuration:
        said += f"; {text(run.today)}, {foreign(named(run, base.configuration))}, scores {mean_of(base)}"
    failed = f" {sourced(str(row.failed), address.replace('#n', '#failed'))} of its answers failed." if row.failed else ""
    of = sourced(f"{run.selection.candidates:,}", cell("selection.csv", "candidates"))
    compared_with = f" {of} setups were compared." if len(measured) > 1 else ""
    return f"{said}.{failed}{compared_with}"


def _gain(run: Run, found: Verdict) -> str:
    row = found.row
    if row is None:
        return ""
    where = {
        name: compared(run, found.a, found.b, found.split, found.metric, name)
        for name in ("difference", "low", "high", "p_adjusted")
    }
    gain = sourced(f"{words.number(row.difference, signed=True)} points", where["difference"])
    interval = words.between(row.low, row.high, signed=True)
    plausibly = f" (plausibly {sourced(interval, where['low'], where['high'])})" if interval else ""
    surprise = " What looked best where it was picked is worse here." if found.word == WORSE else ""
    return (
        f"That is <strong>{gain}</strong>{plausibly}: <strong>{text(found.word)}</strong>. "
        f"{sourced(found.sentence, where['p_adjusted'])}{surprise}"
    )


def _picture(run: Run, found: Verdict, row: Tested) -> str:
    """The interval of the gain as a bar beside zero, and below it what the gain seemed to be where the setup was picked."""
    picked = run.selection.select_margin if run.selection.configuration == found.a else None
    ends = [0.0, row.difference, *(end for end in (row.low, row.high, picked) if end is not None)]
    low, high = min(ends), max(ends)
    margin = max(0.12 * (high - low), 0.01)
    low, high = low - margin, high + margin

    def at(value: float) -> str:
        return f"{100 * (value - low) / (high - low):.1f}%"

    def beside(value: float) -> str:
        """Where the number of a mark stands: above it, and where that is on the line at zero, on the line's other side."""
        if abs(value) >= NEAR * (high - low):
            return f"left:{at(value)}"
        return f"left:calc({at(value)} {'+ .7rem);transform:none' if value >= 0 else '- .7rem);transform:translateX(-100%)'}"

    # words stand on the side of zero where there is more room, so that none crosses the line
    right = -low < high
    side = f"left:{at(0)}" if right else f"right:{100 - 100 * (0 - low) / (high - low):.1f}%"
    label = f"<p class=wb-lab style='margin-{side.replace(':', ':calc(')} + .4rem)'>"
    where = [compared(run, found.a, found.b, found.split, found.metric, name) for name in ("difference", "low", "high")]
    bar = ""
    if row.low is not None and row.high is not None:
        bar = f"<div class=wb-bar style='left:{at(row.low)};width:{100 * (row.high - row.low) / (high - low):.1f}%'></div>"
    number = sourced(words.number(row.difference, signed=True), where[0])
    asked = sourced(f"{row.n:,}", compared(run, found.a, found.b, found.split, found.metric, "n"))
    parts = [
        f"<div class=wb-zero style='left:{at(0)}'></div>",
        f"{label}on {asked} fresh questions</p>",
        f"<div class=wb-row>{bar}<div class=wb-dot style='left:{at(row.difference)}'></div>"
        f"<span class=wb-num style='{beside(row.difference)}'>{number}</span></div>",
    ]
    caption = "Bar: where the true gain plausibly lies."
    if picked is not None and run.report_split != run.select[0]:
        seemed = sourced(words.number(picked, signed=True), cell("selection.csv", "select_margin"))
        n = sourced(
            f"{run.best_row.n:,}", cell("leaderboard.csv", "n", configuration=found.a, split=run.select[0], metric=run.select[1])
        )
        parts += [
            f"{label}on the {n} questions it was picked by (flattering)</p>",
            f"<div class=wb-row><div class=wb-dia style='left:{at(picked)}'></div>"
            f"<span class=wb-num style='{beside(picked)}'>{seemed}</span></div>",
        ]
        caption += " Diamond: what it seemed to gain where it was picked."
    zero = f"<div class=wb-axis><span style='{side}'>no difference</span></div>"
    flattered = flattery(run)
    careful = (
        f"<p class=wb-quiet>{sourced(flattered, cell('selection.csv', 'select_margin'), cell('selection.csv', 'candidates'))}</p>"
        if flattered
        else ""
    )
    said = f"Gain {words.gain(row.difference, row.low, row.high)}; {found.word}."
    return (
        f"<figure class=wb-plot><div class=wb-drawn role=img aria-label='{text(said)}'>{''.join(parts)}{zero}</div>"
        f"<figcaption>Points of {text(words.metric_name(found.metric))}, of 100. {caption}</figcaption></figure>{careful}"
    )
