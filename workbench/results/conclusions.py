"""A run's conclusions as sentences, each backed by a row of its tables: plain ones, and what a statistician asks for besides."""

from __future__ import annotations

from statistics import geometric_mean

from workbench.evaluation.search import MODELS_FIRST, greedy
from workbench.evaluation.statistics import letters
from workbench.results import words
from workbench.results.rows import EffectRow, InteractionRow, Tested
from workbench.results.run import Run
from workbench.results.verdict import (
    BASELINE,
    BETTER,
    OLDER,
    UNCOMPARED,
    UNKNOWN,
    WORSE,
    Verdict,
    counts,
    graded,
    phrase,
    shown,
    verdict,
)

PICKED = "The best setup was picked by these questions, so its choices look a little better here than they are."
SLICES_TOLD = 6  # of each column


def conclusions(run: Run) -> list[str]:
    """What the run shows, in plain words: the winner, its gain over the baseline, and what each choice brings."""
    best = run.best
    meaning = words.meaning(run.select[1])
    lines = [*headline(run), *([meaning] if meaning else []), *_counted(run, best, run.manifest["baseline"])]
    for twin in _twins(run, best):
        found = verdict(run, best, twin)
        if found.word != UNCOMPARED:
            lines.append(f"Against {run.names[twin]}, all else equal: {found.phrase}.")
    lines += [*_saved(run), *filter(None, [flattery(run)])]
    lines += [
        f"{words.count(n, 'answer')} failed while generating ({status}); each counts as the worst value of every metric."
        for status, n in run.manifest["failures"].items()
    ]
    lines += [
        f"{cut['prompts']} prompts were too long for {name}: their last {cut['passages']} passages were left out."
        for name, cut in run.manifest["cut"].items()
    ]
    rest = _slices(run), _effects(run), _interplay(run), _noise_floor(run), _adapters(run), _truncation(run)
    return [*lines, *(line for part in rest for line in part)]


def headline(run: Run) -> list[str]:
    """The best setup with its score on the report split, and the verdict on its gain over the baseline there."""
    found = verdict(run)
    if found.word == BASELINE:
        better = overlooked(run)
        itself = f"It is {run.today} itself: {found.word} where it was chosen ({run.select[0]})."
        return [_standing(run, found.a), *([itself, *better] if len(run.configurations) > 1 else [])]
    if found.word == UNCOMPARED:
        return [_standing(run, found.a), f"It was {found.word} with {run.today} on {found.split}."]
    return [_standing(run, found.a), _gain(run, found)]


def overlooked(run: Run) -> list[str]:
    """What is shown better than the baseline on the report split although the baseline was chosen; nothing as a rule."""
    split, metric = run.report_split, run.select[1]
    found = [(c, run.comparison(c, run.best, split, metric)) for c in run.names if c != run.best]
    lines = [
        f"On {split}, {named(run, c)} is {graded(row, run.matters)} ({words.gain(row.difference, row.low, row.high)})."
        for c, row in found
        if row is not None and graded(row, run.matters) == BETTER
    ]
    return [*lines, "It was not chosen, so ask other questions before relying on it."] if lines else []


def details(run: Run) -> list[str]:
    """What a statistician asks for: families, p, adjusted p, Holm's p, power, optimism, letters, a greedy search's choice."""
    split, metric = run.select
    by, base = words.metric_name(metric), run.labels[run.manifest["baseline"]]
    parts = {
        f"Each finalist less {base}, on {run.report_split}, by {by}:": [
            f"{run.labels[row.configuration]}: {_tested(run, row)}" for row in run.finalists if row.metric == metric
        ],
        f"Each axis, averaged over the others, on {split}, by {by}:": [
            f"{row.axis}, {row.a} less {row.b}: {_tested(run, row)}" for row in run.effects if row.metric == metric
        ],
        f"Interactions: what a choice brings with one value of another axis, less with another, on {split}, by {by}:": [
            f"{row.axis}, {row.a} less {row.b}, with {row.given} {row.given_a} less with {row.given_b}: {_tested(run, row)}"
            for row in run.interactions
            if row.metric == metric
        ],
    }
    lines = [line for head, rows in parts.items() if rows for line in (head, *(f"  {row}" for row in rows))]
    return [*lines, *_optimism(run), *_greedy(run, split, metric), *_letters(run)]


def _tested(run: Run, row: Tested) -> str:
    word, p = graded(row, run.matters), words.p_text
    found = (
        f"{phrase(row, word)}; family {row.family or 'none'}, p {p(row.p)}, adjusted {p(row.p_adjusted)}, Holm {p(row.p_holm)}"
    )
    power = f", smallest detectable {words.number(row.smallest_detectable)}" if row.smallest_detectable is not None else ""
    needed = f", {words.questions(row.n_needed)} needed" if row.n_needed is not None and not shown(row) else ""
    return f"{found}, n = {row.n:,}{power}{needed}"


def _letters(run: Run) -> list[str]:
    """Groups of configurations on the selection split that the data do not tell apart."""
    split, metric = run.select
    rows = [row for row in run.leaderboard if (row.split, row.metric) == (split, metric)]
    order = [row.configuration for row in sorted(rows, key=lambda row: (-row.mean, row.configuration))]
    pairs = [row for row in run.comparisons if (row.split, row.metric) == (split, metric)]
    if len(order) < 2:
        return []
    found = letters([(row.a, row.b) for row in pairs if shown(row)], order)
    told = ", ".join(f"{run.labels[c]} {found[c]}" for c in order)
    return [f"Letters on {split} (setups that share one are not shown to differ): {told}."]


def _standing(run: Run, best: str) -> str:
    (split, metric), name = run.select, words.metric_name(run.select[1])
    measured = sum((row.split, row.metric) == (split, metric) for row in run.leaderboard)
    start = f"Of {measured} setups the best is {named(run, best)}." if measured > 1 else f"The only setup is {named(run, best)}."
    row = run.row(best, run.report_split, metric) or run.best_row
    asked = f"{row.n:,} fresh questions" if row.split != split else f"the {row.n:,} questions it was picked by"
    interval = words.between(row.ci_low, row.ci_high)
    plausibly = f" (plausibly {interval})" if interval else ""
    failed = f"; {words.count(row.failed, 'answer')} failed" if row.failed else ""
    return f"{start} On {asked} ({row.split}) it scores {words.number(row.mean)} of 100 by {name}{plausibly}{failed}."


def named(run: Run, configuration: str) -> str:
    """A configuration in plain words, with its code where that says more."""
    name, label = run.names[configuration], run.labels[configuration]
    return label if name == label else f"{name} [{label}]"


def _gain(run: Run, found: Verdict) -> str:
    baseline, price = run.manifest["baseline"], _price(run, found.a, found.b)
    took = f" Answers take {price} times as long." if price else ""
    surprise = " What looked best where it was picked is worse here." if found.word == WORSE else ""
    return f"Against {run.today}, {named(run, baseline)}: {found.phrase}. {found.sentence}{surprise}{took}"


def _counted(run: Run, best: str, baseline: str) -> list[str]:
    found = counts(run, best, baseline, run.report_split) if best != baseline else None
    return [f"Question by question: {found.sentence(run.today)}."] if found else []


def _slices(run: Run) -> list[str]:
    """How the best does on the fresh questions of each slice, against the baseline: of each column the largest slices."""
    best, baseline, name = run.best, run.manifest["baseline"], words.metric_name(run.select[1])
    own = [row for row in run.slices if (row.split, row.metric) == (run.report_split, run.select[1])]
    means = {(row.column, row.value): row.mean for row in own if row.configuration == baseline}
    asked = [row for row in own if row.configuration == best and row.against in ("", baseline)]
    lines = []
    for column in dict.fromkeys(row.column for row in asked):
        rows = sorted((row for row in asked if row.column == column), key=lambda row: (-row.n, row.value))
        held = f"; the best against {run.today}, with all slices allowed for" if best != baseline else ""
        lines.append(f"By {column} ({run.report_split}, {name} of 100{held}):")
        for row in rows[:SLICES_TOLD]:
            told = [words.number(row.mean)]
            if row.tested:
                told = [
                    f"{told[0]} against {words.number(means[column, row.value])}",
                    phrase(row.tested, graded(row.tested, run.matters)),
                ]
            too_few = ["too few to show anything"] if row.small == "yes" else []
            lines.append(f"  {row.value} ({row.n:,} question{'' if row.n == 1 else 's'}): {'; '.join([*told, *too_few])}")
        if len(rows) > SLICES_TOLD:
            lines.append(f"  {len(rows) - SLICES_TOLD} smaller ones are in slices.csv.")
    return lines


def _effects(run: Run) -> list[str]:
    """What each choice brings: first what is shown."""
    split, metric = run.select
    rows = [row for row in run.effects if row.metric == metric]
    if not rows:
        return []
    if not rows[0].family:
        return [f"What each choice brings: {UNKNOWN}; {OLDER}."]
    lines = [
        f"What each choice brings, averaged over the others ({rows[0].n:,} questions of {split}, {words.metric_name(metric)}):"
    ]
    for row in sorted(rows, key=lambda row: (not shown(row), -abs(row.difference))):
        a, b = (_value(run, row.axis, value) for value in (row.a, row.b))
        price = _price_of_axis(run, row)
        took = f" at {price} times the time" if price else ""
        lines.append(f"  {row.axis}: {a} against {b}: {phrase(row, graded(row, run.matters))}{took}")
    return [*lines, f"  {PICKED}"]


def _interplay(run: Run) -> list[str]:
    rows = [row for row in run.interactions if row.metric == run.select[1] and row.family]
    found = [row for row in rows if shown(row)]
    if not rows:
        return []
    if not found:
        return [f"No sign that these choices depend on each other; {rows[0].n:,} questions would miss a weak dependence."]
    return ["Some choices depend on each other:", *(f"  {_dependence(run, row)}" for row in found)]


def _dependence(run: Run, row: InteractionRow) -> str:
    """An interaction that is shown, told from the side where the first choice brings more."""
    sides = (row.given_a, row.given_b) if row.difference > 0 else (row.given_b, row.given_a)
    low, high = sorted(abs(end or 0.0) for end in (row.low, row.high))  # both on one side of zero
    a, b = (_value(run, row.axis, value) for value in (row.a, row.b))
    more, less = (_value(run, row.given, value) for value in sides)
    brings = words.estimate(abs(row.difference), low, high)
    return f"{row.axis}: {a} against {b} brings {brings} points more with {more} ({row.given}) than with {less}: shown"


def _value(run: Run, axis: str, value: str) -> str:
    """A value of an axis in plain words."""
    values = list(dict.fromkeys(one.values[axis] for one in run.configurations))
    return words.value_name(axis, value, values, run.settings)


def _noise_floor(run: Run) -> list[str]:
    """What running the experiment again would change."""
    repeated = run.manifest["repeated"]
    total = sum(found["answers"] for found in repeated.values())
    if not total:
        return []
    differing = {name: len(found["differing"]) for name, found in repeated.items() if found["differing"]}
    if not differing:
        return [f"Asked again, {total} of {total} answers were the same."]
    told = ", ".join(f"{n} of {repeated[name]['answers']} of {name}" for name, n in differing.items())
    return [f"Asked again, some answers were not the same: {told}; small differences may be chance."]


def _adapters(run: Run) -> list[str]:
    """What was trained only once cannot be told from the luck of that training."""
    tuned = {row.values["generator"] for row in run.configurations if "adapter" in row.keys}
    if not tuned:
        return []
    who, seed, seeds = " and ".join(sorted(tuned)), run.manifest["seed"], run.manifest["seeds"]
    if seeds == 1:
        return [f"The model was trained once ({who}). Another training may do better or worse; `seeds: 3` would tell."]
    return [
        f"Figures of {who} are means over {seeds} trainings (seeds {seed} to {seed + seeds - 1}), whose differences are in the "
        f"intervals; the adapter of seed {seed} is the one served.",
        *_by_seed(run),
    ]


def _by_seed(run: Run) -> list[str]:
    """What the winner scores with each seed."""
    split, (_, metric) = run.report_split, run.select
    means = run.scores(split, metric).seeds(run.best) if run.row(run.best, split, metric) else None
    if means is None:
        return []
    told = ", ".join(words.number(float(mean)) for mean in means)
    return [f"{words.metric_name(metric)} of the best on {split} by training: {told} of 100."]


def _truncation(run: Run) -> list[str]:
    """What embedders did not read of the passages."""
    lines = []
    for row in run.manifest["truncation"]:
        who, cut = f"{row['embedder']} (chunking {row['chunking']})", row["truncation"]
        if cut is None:
            lines.append(f"Whether {who} reads passages whole is not known: its server does not say.")
        elif cut["texts"]:
            lines.append(
                f"{cut['texts']:,} of {row['passages']:,} passages are too long for the embedder {who}, which reads "
                f"{cut['reads']} tokens: their ends ({cut['tokens']:,} tokens) cannot be found by meaning."
            )
    return lines


def _saved(run: Run) -> list[str]:
    """What a search that is not the whole grid did not look at."""
    strategy = run.manifest["search"]["strategy"]
    if strategy == "grid":
        return []
    last = {row.configuration: row for row in run.search}
    n = max(row.n for row in run.search)
    whole = sum(row.n == n for row in last.values())
    looked = sum(row.n for row in last.values())
    return [
        f"The search ({strategy}) measured {whole} of {len(last)} setups on all {n:,} questions and looked at {looked:,} of "
        f"{n * len(last):,} answers; search.csv says what was left out and why."
    ]


def flattery(run: Run) -> str:
    """What choosing the winner adds to how good it looks where it was chosen; empty where that is not known."""
    row, split = run.selection, run.select[0]
    if row.report_margin is None or row.configuration == row.baseline:
        return ""
    margin, n = words.number(row.select_margin), run.best_row.n
    return (
        f"On the {n:,} questions it was picked by ({split}) it seemed to gain {margin} points. The winner of {row.candidates} "
        "always looks a little better where it won; the fresh questions count."
    )


def _optimism(run: Run) -> list[str]:
    row = run.selection
    if row.optimism is None:
        return []
    found = words.gain(row.optimism, row.ci_low, row.ci_high)
    predicted = (
        f"; split halves predict {words.number(row.predicted_optimism, signed=True)}"
        if row.predicted_optimism is not None
        else ""
    )
    return [f"Optimism of choosing among {row.candidates}: {found}{predicted}."]


def _greedy(run: Run, split: str, metric: str) -> list[str]:
    """Whether choosing axis by axis would have missed the grid's best."""
    if run.manifest["search"]["strategy"] != "grid":
        return []
    design = {row.configuration: row.values for row in run.configurations}
    means = {r.configuration: r.mean for r in run.leaderboard if (r.split, r.metric) == (split, metric)}
    varying = [axis for axis in run.axes if len({point[axis] for point in design.values()}) > 1]
    if len(varying) < 2:
        return []
    orders = {"models first": [axis for axis in MODELS_FIRST if axis in varying], "as a question passes them": varying}
    lines = []
    for what, order in orders.items():
        end = greedy(design, lambda wanted: means, run.manifest["baseline"], order)[-1][0]
        missed = means[run.best] - means[end]
        where = "the grid's best" if missed <= 0 else f"{run.labels[end]}, {words.number(missed)} points below the grid's best"
        lines.append(f"Choosing axis by axis from the baseline on {split}, {what} ({', '.join(order)}), ends at {where}.")
    return lines


def _twins(run: Run, best: str) -> list[str]:
    """Configurations that differ from the best in the generator alone."""
    baseline = run.manifest["baseline"]
    mine = next(row for row in run.configurations if row.configuration == best)
    return [
        row.configuration
        for row in run.configurations
        if row.configuration not in (best, baseline)
        and all(row.values[axis] == mine.values[axis] for axis in run.axes if axis != "generator")
    ]


def _price(run: Run, a: str, b: str) -> str:
    """What `a` takes to answer as a multiple of `b`, where `workbench latency` measured both."""
    median = {row.configuration: row.p50 for row in run.latency}
    return f"{median[a] / median[b]:.1f}" if a in median and b in median else ""


def _price_of_axis(run: Run, effect: EffectRow) -> str:
    """What a value of an axis takes as a multiple of another, over pairs of timed configurations alike in all else."""
    median = {row.configuration: row.p50 for row in run.latency}
    sides: dict[str, dict[tuple[str, ...], float]] = {effect.a: {}, effect.b: {}}
    for row in run.configurations:
        value = row.values[effect.axis]
        if value in sides and row.configuration in median:
            rest = tuple(row.values[axis] for axis in run.axes if axis != effect.axis)
            sides[value][rest] = median[row.configuration]
    a, b = sides[effect.a], sides[effect.b]
    ratios = [a[rest] / b[rest] for rest in a.keys() & b.keys()]
    return f"{geometric_mean(ratios):.1f}" if ratios else ""
