"""The Markdown section of a sweep in the report, generated from its tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from taghead.compare.results import Results, varying_factors
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

RUNS = """<details><summary>Runs behind each row (rows of <code>runs.csv</code>; all numbers in \
<code>configurations.csv</code>)</summary>

{}
</details>
"""


def section(results: Results, figures: Mapping[str, str], notes: str | None) -> str:
    """The section of one sweep.

    Args:
        results: The sweep.
        figures: The caption of each plot in `figures/`, by its file's name.
        notes: Markdown of the sweep's authors, included as it is.
    """
    parts = [f"## {results.table.name}\n", *([notes.rstrip("\n") + "\n"] if notes else [])]
    parts += [_what_ran(results), conclusion(results) + "\n", _configuration_table(results)]
    parts += _effect_table(results)
    for name, text in figures.items():
        parts.append(f"![{text.split('.')[0]}](figures/{name})\n\n*{text}*\n")
    rows = [
        {"row": _escaped(str(name)), "runs": " ".join(f"`{run}`" for run in runs.split())}
        for name, runs in results.numbers["runs"].items()
    ]
    return "\n".join([*parts, RUNS.format(_table(rows))])


def conclusion(results: Results) -> str:
    """The summary of all comparisons, a null result included."""
    tested = results.numbers.dropna(subset="p")
    if tested.empty:
        return (
            "**No comparison could be tested:** that takes at least two seeds which a "
            "configuration and its control share, and two clips."
        )
    better, worse, undecided = (
        (tested["verdict"] == verdict).sum() for verdict in ("better", "worse", "undecided")
    )
    best = tested.iloc[tested["difference"].argmax()]
    sentences = [
        f"**Of {len(tested)} configuration{'s' * (len(tested) > 1)}, {better} better than the "
        f"control after Holm's correction, {worse} worse, {undecided} undecided.** The highest "
        f"difference is {_points(best['difference'], best['low'], best['high'])} points "
        f"({_escaped(best['configuration'])})."
    ]
    if better + worse == 0:
        sentences.append(
            "No difference to the control is shown, which is not to say that there is none."
        )
    estimates = tested[["difference", "low", "high", "p", "error", "degrees_of_freedom"]]
    visible = [visible_difference(Estimate(*each), len(tested)) for each in estimates.to_numpy()]
    sentences.append(
        f"The smallest difference that a test of this sweep could have seen (found in 4 of 5 such "
        f"sweeps at Holm's strictest step) is {100 * min(visible):.2f} points for the most certain "
        f"comparison and {100 * np.median(visible):.2f} for the median one."
    )
    num_seeds = tested["compared_seeds"].str.count(" ") + 1
    if num_seeds.min() < 10:
        sentences.append(f"The comparisons rest on {_range(num_seeds)} seeds.")
    return " ".join(sentences)


def _what_ran(results: Results) -> str:
    table, levels = results.table, results.levels
    runs, num_controls = table.runs, int(results.numbers["control"].sum())
    clusters = ""
    if results.num_clusters < len(table.clips):
        clusters = f" in {results.num_clusters} clusters, which are drawn whole"
    commits = ", ".join(f"`{commit}`" for commit in sorted(set(runs["commit"])))
    text = (
        f"{len(runs)} runs of {len(levels) - num_controls} configurations and {num_controls} "
        f"control{'s' * (num_controls != 1)}, seeds {_list(runs['seed'])}; "
        f"{_range(runs['num_train'])} training clips, {len(table.clips)} test clips of "
        f"{len(np.unique(table.classes))} classes{clusters}; {_range(runs['epochs'])} epochs. Data "
        f"`{runs['data'].iloc[0]}`, commit {commits}, torch {_list(runs['torch'])}, PyG "
        f"{_list(runs['pyg'])}.\n"
    )
    constant = levels.drop(columns=varying_factors(levels)).iloc[-1]
    if pairs := [f"{factor}={level}" for factor, level in constant.items() if level]:
        text += f"\nThe same everywhere: {_escaped(', '.join(pairs))}.\n"
    problems = "".join(f"- {problem}\n" for problem in _problems(results))
    return f"{text}\n{problems}" if problems else text


def _problems(results: Results) -> Iterator[str]:
    """Runs that are not done, seeds that are missing, configurations that are not compared."""
    table = results.table
    for run in table.not_done.to_dict("records"):
        error = " ".join(run["error"].split())
        error = error if len(error) <= 200 else error[:197] + "..."
        yield (
            f"Not done ({_escaped(run['status'])}): run `{run['run']}`, "
            f"{_escaped(table.format_levels(run['levels']))}, seed {run['seed']}"
            f"{': ' * bool(error)}{_escaped(error)}"
        )
    seeds = set(table.runs["seed"])
    rows: Any = results.numbers.itertuples()
    for own in rows:
        if missing := [seed for seed in seeds if str(seed) not in own.seeds.split()]:
            yield (
                f"Missing: {'control ' * own.control}{_escaped(own.configuration)} has no run with "
                f"seed {_list(missing)}; differences are of common seeds."
            )
    for configuration, reason in results.not_compared.items():
        yield f"Not compared: {_escaped(configuration)} {reason}."


def _configuration_table(results: Results) -> str:
    shown = results.levels[varying_factors(results.levels)].map(_level).to_dict("records")
    num_seeds = results.table.runs["seed"].nunique()
    numbers: Any = results.numbers.itertuples()
    rows = []
    for own, levels, kind in zip(numbers, shown, results.kinds, strict=True):
        seeds = str(len(own.seeds.split()))
        if (
            kind not in ("control", "not compared")
            and (common := len(own.compared_seeds.split())) < num_seeds
        ):
            seeds += f" ({common} common)"
        cells = {
            "seeds": seeds,
            "Top-1": _spread(own.top1, own.top1_sd),
            "MCA": _spread(own.mca, own.mca_sd),
            "Top-1 less control [95%]": _points(own.difference, own.low, own.high),
            "p (Holm)": "< 0.001" if own.p_holm < 0.001 else _number(own.p_holm, "{:.3f}"),
            "verdict": f"**{kind}**" if kind in ("better", "worse") else kind,
            "MCA less control": _signed(own.mca_difference),
            "head parameters": _number(own.head_parameters, "{:,.0f}"),
            "head GFLOP": _number(own.head_gflop, "{:.3g}") + _times(own.gflop_ratio),
            "head latency": _number(own.head_latency_ms, "{:.3g} ms") + _times(own.latency_ratio),
        }
        rows.append(levels | cells)
    return _table(rows)


def _effect_table(results: Results) -> Iterator[str]:
    if results.effects:
        yield (
            f"Levels of single factors, averaged over all others, on the seeds "
            f"{_list(results.effect_seeds)} that all comparisons have:\n"
        )
        yield _table(
            {
                "factor": effect.factor,
                "level": _level(effect.level),
                "configurations": str(effect.num_configurations),
                "mean Top-1 less control [95%]": _points(*effect.top1[:3]),
            }
            for effect in results.effects
        )
    if results.unbalanced:
        yield (
            f"Not averaged by level: {', '.join(results.unbalanced)}. The design is not balanced "
            "there: a mean would mix levels of other factors, or all comparisons have not two "
            "seeds in common.\n"
        )


def _table(rows: Iterable[Mapping[Any, str]]) -> str:
    table = pd.DataFrame(list(rows))
    return table.to_markdown(index=False, disable_numparse=True, stralign=None) + "\n"


def _points(difference: float, low: float, high: float) -> str:
    """A difference with its interval in points: `+1.20 [-0.30, +2.70]`."""
    if np.isnan(difference):
        return "-"
    interval = "one seed" if np.isnan(low) else f"{_signed(low)}, {_signed(high)}"
    return f"{_signed(difference)} [{interval}]"


def _signed(difference: float) -> str:
    """A difference in points, with its sign; a rounded 0 has no minus."""
    return _number(round(100 * difference, 2) + 0.0, "{:+.2f}")


def _spread(mean: float, deviation: float) -> str:
    """A mean and its standard deviation, in percent."""
    return f"{100 * mean:.2f}{_number(100 * deviation, ' ± {:.2f}', absent='')}"


def _number(value: float, template: str, absent: str = "-") -> str:
    return absent if np.isnan(value) else template.format(value)


def _times(ratio: float) -> str:
    return _number(ratio, " (x{:.2f})", absent="")


def _range(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    if np.isnan(low):
        return "an unknown number of"
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"


def _list(values: Iterable[Any]) -> str:
    """Different values in their order."""
    return ", ".join(map(str, sorted(set(values))))


def _level(level: str) -> str:
    return _escaped(level) or "-"


def _escaped(text: str) -> str:
    """Escapes Markdown and HTML in names and errors, which are untrusted text."""
    text = re.sub(r"[\\`*|\[\]]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
