"""The Markdown section of a sweep in the report, generated from its tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from taghead.compare.results import Comparison, Configuration, Results
from taghead.compare.statistics import Estimate, visible_difference

METHOD = """## How the numbers are made

Top-1 and MCA (mean over the classes that have test clips) are recomputed from the stored
predictions and must agree with the stored table. ± is the standard deviation over seeds. A
difference is a configuration's Top-1 less that of its control, which agrees with it on all factors
that the control has, was trained with the same seeds and tested on the same clips: it is paired by
seed and by clip. Intervals are 95% ones for new seeds and new clips (both random, two-way analysis
of variance, Student's t with Hillis' degrees of freedom). In simulations they hold the truth in 93
to 97% of all sweeps of 5 seeds; a bootstrap of seeds and clips, which `configurations.csv` has
beside them ({num_draws} draws), in as few as 80% where seeds differ much, because 5 seeds say
little about their spread. Few seeds limit the tests in any case: after correction only differences
that are large beside the spread over seeds can be told. *p* is two-sided, corrected by Holm's
method over all comparisons of a sweep; "better" and "worse" mean *p* of at most 0.05. Intervals,
MCA and the effects of single factors are not corrected. GFLOP and latency are those of the head
alone, x is the ratio to the control's.
"""


def section(results: Results, figures: Mapping[str, str], notes: str | None) -> str:
    """The section of one sweep.

    Args:
        results: The sweep.
        figures: The caption of each plot in `figures/`, by its file's name.
        notes: Markdown of the sweep's authors, included as it is.
    """
    parts = [f"## {results.table.name}\n"]
    if notes:
        parts.append(notes.rstrip("\n") + "\n")
    parts += [_what_ran(results), conclusion(results) + "\n", _configuration_table(results)]
    parts += _effect_table(results)
    parts += [
        f"![{text.split('.')[0]}](figures/{name})\n\n*{text}*\n" for name, text in figures.items()
    ]
    parts.append(_runs(results))
    return "\n".join(parts)


def conclusion(results: Results) -> str:
    """The summary of all comparisons, a null result included."""
    comparisons = results.comparisons
    tested = [c for c in comparisons if not np.isnan(c.top1.p)]
    if not tested:
        return (
            "**No comparison could be tested:** that takes at least two seeds which a "
            "configuration and its control share, and two clips."
        )
    counts = {
        verdict: sum(c.verdict == verdict for c in tested)
        for verdict in ("better", "worse", "undecided")
    }
    of = "Of 1 configuration" if len(tested) == 1 else f"Of {len(tested)} configurations"
    words = (
        f"**{of}, {counts['better']} better than the control after Holm's correction, "
        f"{counts['worse']} worse, {counts['undecided']} undecided.**"
    )
    best = max(tested, key=lambda c: c.top1.mean)
    words += (
        f" The highest difference is {_points(best.top1)} points "
        f"({_escaped(results.table.format_levels(best.configuration.levels))})."
    )
    if counts["better"] + counts["worse"] == 0:
        words += " No difference to the control is shown, which is not to say that there is none."
    visible = 100 * np.array([visible_difference(c.top1, len(tested)) for c in tested])
    words += (
        f" The smallest difference that a test of this sweep could have seen (found in 4 of 5 such "
        f"sweeps at Holm's strictest step) is {visible.min():.2f} points for the most certain "
        f"comparison and {np.median(visible):.2f} for the median one."
    )
    fewest = min(len(c.seeds) for c in tested)
    return words + f" The comparisons rest on {_range([len(c.seeds) for c in tested])} seeds." * (
        fewest < 10
    )


def _what_ran(results: Results) -> str:
    table = results.table
    runs = table.runs
    seeds = sorted(set(runs["seed"]))
    clusters = ""
    if results.num_clusters < len(table.clips):
        clusters = f" in {results.num_clusters} clusters, which are drawn whole"
    configurations = results.configurations
    num_controls = sum(c.is_control for c in configurations)
    lines = [
        f"{len(runs)} runs of {len(configurations) - num_controls} configurations and "
        f"{num_controls} control{'s' * (num_controls != 1)}, seeds {', '.join(map(str, seeds))}; "
        f"{_range(runs['num_train'].dropna().astype(int).tolist())} training clips, "
        f"{len(table.clips)} test clips of {len(set(table.classes.tolist()))} classes{clusters}; "
        f"{_range(runs['epochs'].dropna().astype(int).tolist())} epochs. "
        f"Data `{runs['data'].iloc[0]}`, commit {_codes(runs['commit'])}, torch "
        f"{', '.join(sorted(set(runs['torch'])))}, PyG {', '.join(sorted(set(runs['pyg'])))}.",
    ]
    constant = [
        f"{factor}={level}"
        for factor, level in zip(table.factors, configurations[-1].levels, strict=True)
        if factor not in results.varying() and level
    ]
    if constant:
        lines.append(f"\nThe same everywhere: {_escaped(', '.join(constant))}.")
    problems = [*_failures(results), *_missing_seeds(results, seeds)]
    return "\n".join(lines) + "\n" + ("\n" + "\n".join(problems) + "\n" if problems else "")


def _failures(results: Results) -> Iterable[str]:
    for _, run in results.table.not_done.iterrows():
        error = " ".join(str(run["error"]).split())
        error = error if len(error) <= 200 else error[:197] + "..."
        levels = results.table.format_levels(run["levels"])
        yield (
            f"- Not done ({_escaped(run['status'])}): run `{run['run']}`, {_escaped(levels)}, seed "
            f"{run['seed']}{': ' * bool(error)}{_escaped(error)}"
        )


def _missing_seeds(results: Results, seeds: list[int]) -> Iterable[str]:
    for own in results.configurations:
        if missing := sorted(set(seeds) - set(own.seeds)):
            kind = "control " if own.is_control else ""
            yield (
                f"- Missing: {kind}{_escaped(results.table.format_levels(own.levels))} has no "
                f"run with seed {', '.join(map(str, missing))}; differences are of common seeds."
            )
    for own, reason in results.not_compared:
        levels = _escaped(results.table.format_levels(own.levels))
        yield f"- Not compared: {levels} {reason}."


def _configuration_table(results: Results) -> str:
    indices = [results.table.factors.index(factor) for factor in results.varying()]
    compared = {id(c.configuration): c for c in results.comparisons}
    header = [
        *results.varying(),
        *("seeds", "Top-1", "MCA", "Top-1 less control [95%]", "p (Holm)", "verdict"),
        *("MCA less control", "head parameters", "head GFLOP", "head latency"),
    ]
    rows = [
        [
            *(_escaped(own.levels[index]) or "-" for index in indices),
            *_own_cells(own, compared.get(id(own))),
        ]
        for own in results.configurations
    ]
    return _table(header, rows)


def _own_cells(own: Configuration, comparison: Comparison | None) -> list[str]:
    seeds = str(len(own.seeds))
    difference = ["-", "-", "control" if own.is_control else "not compared", "-"]
    parameters = own.mean("head_parameters")
    gflop, latency = (_number(own.mean(name)) for name in ("head_gflop", "head_latency_ms"))
    latency += " ms" * (latency != "-")
    if comparison is not None:
        if comparison.unshared_seeds:
            seeds += f" ({len(comparison.seeds)} common)"
        is_decided = comparison.verdict != "undecided"
        difference = [
            _points(comparison.top1),
            _p_value(comparison.adjusted_p),
            f"**{comparison.verdict}**" if is_decided else comparison.verdict,
            _signed(comparison.mca.mean),
        ]
        gflop += _times(comparison.cost_ratio("head_gflop"))
        latency += _times(comparison.cost_ratio("head_latency_ms"))
    size = "-" if np.isnan(parameters) else f"{parameters:,.0f}"
    accuracy = [_percent(own, name) for name in ("top1", "mca")]
    return [seeds, *accuracy, *difference, size, gflop, latency]


def _effect_table(results: Results) -> list[str]:
    parts = []
    if results.effects:
        rows = [
            [e.factor, _escaped(e.level) or "-", str(e.num_configurations), _points(e.top1)]
            for e in results.effects
        ]
        header = ["factor", "level", "configurations", "mean Top-1 less control [95%]"]
        common = ", ".join(map(str, results.effect_seeds))
        parts.append(
            f"Levels of single factors, averaged over all others, on the seeds {common} that all "
            "comparisons have:\n"
        )
        parts.append(_table(header, rows))
    if results.unbalanced:
        parts.append(
            f"Not averaged by level: {', '.join(results.unbalanced)}. The design is not balanced "
            "there: a mean would mix levels of other factors, or all comparisons have not two "
            "seeds in common.\n"
        )
    return parts


def _runs(results: Results) -> str:
    """The runs of each row."""
    rows = [
        [_escaped(results.display_name(own)), " ".join(f"`{run}`" for run in own.runs["run"])]
        for own in results.configurations
    ]
    return (
        "<details><summary>Runs behind each row (rows of <code>runs.csv</code>; all numbers in "
        f"<code>configurations.csv</code>)</summary>\n\n{_table(['row', 'runs'], rows)}\n"
        "</details>\n"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    table = pd.DataFrame(list(rows), columns=list(header))
    return table.to_markdown(index=False, disable_numparse=True, stralign=None) + "\n"


def _points(estimate: Estimate) -> str:
    """An estimate with its interval in points: `+1.20 [-0.30, +2.70]`."""
    if np.isnan(estimate.low):
        return f"{_signed(estimate.mean)} [one seed]"
    return f"{_signed(estimate.mean)} [{_signed(estimate.low)}, {_signed(estimate.high)}]"


def _signed(difference: float) -> str:
    """A difference in points, with its sign; a rounded 0 has no minus."""
    return f"{round(100 * difference, 2) + 0.0:+.2f}"


def _percent(configuration: Configuration, name: str) -> str:
    deviation = configuration.deviation(name)
    spread = "" if np.isnan(deviation) else f" ± {100 * deviation:.2f}"
    return f"{100 * configuration.mean(name):.2f}{spread}"


def _p_value(p: float) -> str:
    if np.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3g}"


def _times(ratio: float) -> str:
    return "" if np.isnan(ratio) else f" (x{ratio:.2f})"


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "an unknown number of"
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _codes(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in sorted(set(values)))


def _escaped(text: str) -> str:
    """Escapes Markdown and HTML in names and errors, which are untrusted text."""
    text = re.sub(r"[\\`*|\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
