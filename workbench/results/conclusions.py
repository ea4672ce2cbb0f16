"""A run's conclusions as sentences, each backed by a row of its tables."""

from __future__ import annotations

from statistics import geometric_mean

from workbench.evaluation.search import MODELS_FIRST, greedy
from workbench.results.rows import EffectRow, LeaderboardRow, Tested
from workbench.results.run import Run

SIGNIFICANT = 0.05  # of the Holm-adjusted p


def conclusions(run: Run) -> list[str]:
    """What the run shows: the winner, its margin over the others measured on the report split, and the axes' effects."""
    split, metric = run.select
    best = run.best
    lines = [_standing(run, best, split, metric)]
    for other, what in _rivals(run, best):
        row = run.comparison(best, other, run.report_split, metric)
        if row:
            found = difference(row, metric, _price(run, best, other))
            lines.append(f"{run.labels[best]} against {what} {run.labels[other]}: {found}")
    lines += [*_saved(run), *_needed(run, best, metric), *_flattery(run)]
    lines += [
        f"{n} answers failed while generating ({status}); each counts as the worst value of every metric"
        for status, n in run.manifest["failures"].items()
    ]
    lines += [
        f"{cut['prompts']} prompts were too long for {name}: their last {cut['passages']} passages were left out"
        for name, cut in run.manifest["cut"].items()
    ]
    effects = [row for row in run.effects if row.metric == metric]
    if effects:
        lines.append(f"what each choice brings, averaged over the others ({split}, {metric}):")
        lines += [
            f"  {row.axis}: {row.a} against {row.b}: {difference(row, metric, _price_of_axis(run, row))}" for row in effects
        ]
    return [
        *lines,
        *_interplay(run, metric),
        *_greedy(run, split, metric),
        *_noise_floor(run),
        *_adapters(run),
        *_truncation(run),
    ]


def _noise_floor(run: Run) -> list[str]:
    """What running the experiment again would change."""
    repeated = run.manifest["repeated"]
    total = sum(found["answers"] for found in repeated.values())
    if not total:
        return []
    differing = {name: len(found["differing"]) for name, found in repeated.items() if found["differing"]}
    if not differing:
        return [f"noise floor zero: {total} of {total} answers came out the same when they were generated again in other batches"]
    counts = ", ".join(f"{n} of {repeated[name]['answers']} of {name}" for name, n in differing.items())
    return [
        f"noise floor not zero: answers that differed when they were generated again: {counts}; small differences may be chance"
    ]


def _adapters(run: Run) -> list[str]:
    """What was trained only once cannot be told from the luck of that training."""
    tuned = {row.values["generator"] for row in run.configurations if "adapter" in row.keys}
    if not tuned:
        return []
    who, seed, seeds = " and ".join(sorted(tuned)), run.manifest["seed"], run.manifest["seeds"]
    if seeds == 1:
        return [f"the adapter of {who} was trained once, with seed {seed}: what is said of it holds for this adapter only"]
    return [
        f"figures of {who} are means over {seeds} trainings (seeds {seed} to {seed + seeds - 1}), whose differences are in the "
        f"intervals; the adapter of seed {seed} is the one served",
        *_by_seed(run),
    ]


def _by_seed(run: Run) -> list[str]:
    """What the winner scores with each seed."""
    split, (_, metric) = run.report_split, run.select
    means = run.scores(split, metric).seeds(run.best) if run.row(run.best, split, metric) else None
    if means is None:
        return []
    return [f"{metric} of {run.labels[run.best]} on {split} by seed: {', '.join(f'{mean:.3f}' for mean in means)}"]


def _truncation(run: Run) -> list[str]:
    """What embedders did not read of the passages."""
    lines = []
    for row in run.manifest["truncation"]:
        who, cut = f"{row['embedder']} (chunking {row['chunking']})", row["truncation"]
        if cut is None:
            lines.append(f"whether {who} reads passages whole is not known: its server does not say")
        elif cut["texts"]:
            lines.append(
                f"{who} reads {cut['reads']} tokens of a text: {cut['texts']:,} of {row['passages']:,} passages are longer, and "
                f"{cut['tokens']:,} of their tokens were left out (the longest has {cut['longest']:,})"
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
        f"{strategy}: {whole} of {len(last)} configurations were measured on all {n} questions, {looked:,} of {n * len(last):,} "
        f"answers looked at; search.csv says what was left out and why"
    ]


def _needed(run: Run, best: str, metric: str) -> list[str]:
    """How many questions the winner's margin would take, where those there are too few."""
    row = next((r for r in run.finalists if (r.configuration, r.metric) == (best, metric)), None)
    if row is None or row.n_needed is None or row.p is None or row.p < SIGNIFICANT:
        return []
    needed = "no number of questions" if row.n_needed == float("inf") else f"about {row.n_needed:,.0f} questions"
    return [f"a margin of {row.difference:+.3f} over the baseline would be found by {needed} (80 % power); {row.n} were asked"]


def _flattery(run: Run) -> list[str]:
    """Optimism of the winner's margin: what choosing it adds to how good it looks where it was chosen."""
    row, split = run.selection, run.select[0]
    if row.report_margin is None or row.configuration == row.baseline:
        return []
    text = (
        f"its margin over the baseline was {row.select_margin:+.3f} on {split}, where it was chosen, and is "
        f"{row.report_margin:+.3f} on {run.report_split}: optimism {row.optimism:+.3f}"
    )
    if row.ci_low is not None:
        text += f" (95 % interval {row.ci_low:+.3f} to {row.ci_high:+.3f})"
    if row.predicted_optimism is not None:
        text += f"; halves of {split} predict {row.predicted_optimism:+.3f} for choosing among {row.candidates}"
    return [text]


def _interplay(run: Run, metric: str) -> list[str]:
    rows = [row for row in run.interactions if row.metric == metric]
    found = [row for row in rows if row.p_holm is not None and row.p_holm < SIGNIFICANT]
    if not rows:
        return []
    if not found:
        return [f"whether one choice changes what another brings: none of {len(rows)} interactions is supported by this data"]
    return ["what one choice changes in the effect of another:"] + [
        f"  {row.axis}, {row.a} against {row.b}, at {row.given} {row.given_a} less at {row.given_b}: {difference(row, metric)}"
        for row in found
    ]


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
        where = "the grid's best" if missed <= 0 else f"{run.labels[end]}, {missed:.3f} {metric} below the grid's best"
        lines.append(f"choosing axis by axis from the baseline on {split}, {what} ({', '.join(order)}), ends at {where}")
    return lines


def _standing(run: Run, best: str, split: str, metric: str) -> str:
    chosen = run.best_row
    reported = run.row(best, run.report_split, metric)
    measured = sum((row.split, row.metric) == (split, metric) for row in run.leaderboard)
    text = f"best of {measured} by {metric} on {split}: {run.labels[best]} ({best})"
    if reported is None:
        return f"{text}, {figure(chosen)}"
    return f"{text}; on {split} its {metric} is {chosen.mean:.3f}, on {run.report_split} {figure(reported)}"


def _rivals(run: Run, best: str) -> list[tuple[str, str]]:
    baseline = run.manifest["baseline"]
    mine = next(row for row in run.configurations if row.configuration == best)
    found = [(baseline, "the baseline")] if baseline != best else []
    for row in run.configurations:
        same = all(row.values[axis] == mine.values[axis] for axis in run.axes if axis != "generator")
        if same and row.configuration not in (best, baseline):
            found.append((row.configuration, "the same with the generator of"))
    return found


def figure(row: LeaderboardRow) -> str:
    """A mean with its interval and n: ``0.412 (95 % interval 0.335 to 0.489, n = 129)``."""
    failed = f", {row.failed} failed" if row.failed else ""
    if row.ci_low is None:
        return f"{row.mean:.3f} (n = {row.n}{failed})"
    return f"{row.mean:.3f} (95 % interval {row.ci_low:.3f} to {row.ci_high:.3f}, n = {row.n}{failed})"


def _price(run: Run, a: str, b: str) -> str:
    """What `a` takes to answer as a multiple of `b`, where `workbench latency` measured both."""
    median = {row.configuration: row.p50 for row in run.latency}
    return f" at {median[a] / median[b]:.1f} x the latency" if a in median and b in median else ""


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
    return f" at {geometric_mean(ratios):.1f} x the latency" if ratios else ""


def difference(row: Tested, metric: str, price: str = "") -> str:
    """A difference with interval, adjusted p, what it costs, and what follows from it."""
    text = f"{row.difference:+.3f} {metric}"
    if row.ci_low is None or row.p_holm is None:
        return f"{text} (n = {row.n}: too few for an interval)"
    verdict = "supported" if row.p_holm < SIGNIFICANT else "not supported by this data"
    interval = f"95 % interval {row.ci_low:+.3f} to {row.ci_high:+.3f}"
    return f"{text} ({interval}, Holm p {row.p_holm:.3g}, n = {row.n}){price}: {verdict}"
