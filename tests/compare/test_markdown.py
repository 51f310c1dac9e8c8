import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from stored import DESIGN, FACTORS, NULL, Tables, simulated, store

from taghead.compare.markdown import conclusion, section
from taghead.compare.results import Results, compare_configurations
from taghead.compare.tables import read_table


def cells(markdown: str, header: str) -> list[dict[str, str]]:
    """The rows of the table whose header begins so."""
    lines = markdown[markdown.index(f"| {header}") :].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def two_way(values: np.ndarray) -> tuple[float, float, float, float]:
    """Mean, interval and p-value in points, written differently from the package's own."""
    (seeds, clips), mean = values.shape, values.mean()
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    residual = values - np.add.outer(rows, columns) + mean
    a = clips * rows.var(ddof=1)
    c = (residual**2).sum() / ((seeds - 1) * (clips - 1))
    whole = a + max(seeds * columns.var(ddof=1) - c, 0)
    error, freedom = np.sqrt(whole / values.size), (seeds - 1) * (whole / a) ** 2
    low, high = stats.t.interval(0.95, freedom, mean, error)
    p = 2 * stats.t.sf(abs(mean) / error, freedom)
    mean, low, high = (round(100 * value, 2) + 0.0 for value in (mean, low, high))
    return mean, low, high, p


def test_no_effect_is_reported_as_such(tmp_path: Path) -> None:
    results = compare_configurations(read_table(store(tmp_path, *simulated(NULL))), num_draws=100)
    text = conclusion(results)
    assert "Of 3 configurations, 0 better than the control" in text
    assert "0 worse, 3 undecided" in text
    assert "No difference to the control is shown" in text
    visible = [
        float(number) for number in re.findall(r"is ([\d.]+) points|and ([\d.]+) for", text)[0][:1]
    ]
    assert visible[0] > 100 * (results.numbers["high"] - results.numbers["difference"]).min()


def test_every_number_of_the_table_comes_from_the_stored_runs(
    results: Results, tables: Tables
) -> None:
    runs, predictions = tables
    right = predictions["label"] == predictions["predicted"]
    right = right.groupby([predictions["run"], predictions["clip"]]).mean().unstack()
    rows = cells(section(results, {}, None), "operator")
    assert len(rows) == len(DESIGN)
    p_values, shown = [], []
    for row in rows:
        levels = [row[factor].replace("-", "") for factor in FACTORS]
        own = runs[(runs[list(FACTORS)] == levels).all(axis=1)].sort_values("seed")
        control = runs[(runs["operator"] == "none") & (runs["layers"] == levels[2])]
        control = control.sort_values("seed")
        for name, column in (("Top-1", "top1"), ("MCA", "mca")):
            assert row[name] == f"{100 * own[column].mean():.2f} ± {100 * own[column].std():.2f}"
        assert row["seeds"] == "5"
        assert row["head parameters"] == f"{own['head_parameters'].iloc[0]:,}"
        ratios = [own[c].mean() / control[c].mean() for c in ("head_gflop", "head_latency_ms")]
        gflop, latency = (own[c].mean() for c in ("head_gflop", "head_latency_ms"))
        if row["verdict"] == "control":
            assert (row["head GFLOP"], row["head latency"]) == (f"{gflop:.3g}", f"{latency:.3g} ms")
            continue
        assert row["head GFLOP"] == f"{gflop:.3g} (x{ratios[0]:.2f})"
        assert row["head latency"] == f"{latency:.3g} ms (x{ratios[1]:.2f})"
        assert (
            row["MCA less control"] == f"{100 * (own['mca'].mean() - control['mca'].mean()):+.2f}"
        )
        values = right.loc[own["run"]].to_numpy(float) - right.loc[control["run"]].to_numpy(float)
        mean, low, high, p = two_way(values)
        assert row["Top-1 less control [95%]"] == f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
        p_values.append(p)
        shown.append(row["p (Holm)"])
    order = np.argsort(p_values)
    steps = np.array(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(steps), 1)
    expected = ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in adjusted]
    assert [shown[place] for place in order] == expected


def test_levels_are_averaged_over_the_other_factors(results: Results) -> None:
    assert results.unbalanced == []
    for effect in results.effects:
        is_own = results.is_compared & (results.levels[effect.factor] == effect.level).to_numpy()
        assert effect.num_configurations == is_own.sum()
        assert effect.top1.mean == pytest.approx(results.numbers["difference"][is_own].mean())
    rows = cells(section(results, {}, None), "factor")
    assert [row["level"] for row in rows] == [
        "EdgeConv",
        "GATv2Conv",
        "GCNConv",
        "both",
        "past",
        "2",
        "10",
    ]


def test_an_unbalanced_design_is_not_averaged(tables: Tables, tmp_path: Path) -> None:
    runs, predictions = tables
    gone = (runs["operator"] == "GCNConv") & (runs["relations"] == "past") & (runs["layers"] == "2")
    results = compare_configurations(
        read_table(store(tmp_path, runs[~gone], predictions)), num_draws=10
    )
    assert results.unbalanced == ["operator", "relations", "layers"]
    assert results.effects == []
    assert "Not averaged by level: operator, relations, layers." in section(results, {}, None)


def test_failed_runs_and_missing_seeds_are_told(tmp_path: Path) -> None:
    runs, predictions = simulated(NULL)
    runs.loc[5, ["status", "error", "top1"]] = ["failed", "boom | <b>_x_\nat step 3", np.nan]
    runs = runs.drop(index=[11, 12, 13, 14])  # one seed is left
    results = compare_configurations(read_table(store(tmp_path, runs, predictions)), num_draws=50)
    text = section(results, {}, None)
    run = runs["run"][5]
    assert (
        f"- Not done (failed): run `{run}`, operator=GCNConv, seed 0: boom \\| &lt;b&gt;\\_x\\_ at"
        in text
    )
    assert "- Missing: operator=GCNConv has no run with seed 0; " in text
    numbers = results.numbers
    assert numbers.loc["GCNConv", "compared_seeds"] == "1 2 3 4"
    assert numbers.loc["GATv2Conv", "compared_seeds"] == "0"
    assert np.isnan(numbers.loc["GATv2Conv", "p_holm"])
    rows = {row["operator"]: row for row in cells(text, "operator")}
    assert rows["GCNConv"]["seeds"] == "4 (4 common)"
    assert rows["GATv2Conv"]["Top-1 less control [95%]"].endswith("[one seed]")
    assert "Of 2 configurations" in conclusion(results)


def test_without_a_run_of_the_control_nothing_is_compared(tables: Tables, tmp_path: Path) -> None:
    runs, predictions = tables
    runs = runs.copy()
    runs.loc[(runs["operator"] == "none") & (runs["layers"] == "2"), "status"] = "failed"
    results = compare_configurations(read_table(store(tmp_path, runs, predictions)), num_draws=10)
    assert results.is_compared.sum() == len(results.not_compared) == 6
    text = section(results, {}, None)
    assert (
        "Not compared: operator=GCNConv, relations=past, layers=2 no run of its control is" in text
    )
    assert sum(row["verdict"] == "not compared" for row in cells(text, "operator")) == 6
