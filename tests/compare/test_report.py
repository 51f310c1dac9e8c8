import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats
from stored import simulated, store

from taghead.cli import main
from taghead.compare.comparison import Results, compare
from taghead.compare.markdown import conclusion, section
from taghead.compare.plots import pareto_front
from taghead.compare.tables import cluster_pattern, read_table
from taghead.errors import DataError

FACTORS = ("operator", "relations", "layers")
SHIFTS = {"GATv2Conv": 1.5, "GCNConv": 0.0, "EdgeConv": -1.5}
DESIGN = [
    ({"operator": "none", "relations": "", "layers": layers}, 0.0) for layers in ("2", "10")
] + [
    ({"operator": operator, "relations": relations, "layers": layers}, shift)
    for operator, shift in SHIFTS.items()
    for relations in ("past", "both")
    for layers in ("2", "10")
]
NULL = [({"operator": name}, 0.0) for name in ("none", "GCNConv", "GATv2Conv", "APPNP")]

Tables = tuple[pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def tables() -> Tables:
    return simulated(DESIGN, spread=0.1, noise=0.5)


@pytest.fixture(scope="module")
def results(tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = store(tmp_path_factory.mktemp("sweep"), *tables)
    return compare(read_table(folder), num_draws=1000)


def test_known_effects_are_recovered(results: Results) -> None:
    assert len(results.comparisons) == 12
    for comparison in results.comparisons:
        operator = comparison.configuration.levels[0]
        verdict = {"GATv2Conv": "better", "EdgeConv": "worse"}.get(operator, "undecided")
        assert comparison.verdict == verdict, comparison.configuration.levels
        assert comparison.bootstrap.low < comparison.top1.mean < comparison.bootstrap.high
    text = conclusion(results)
    assert (
        "Of 12 configurations, 4 better than the control after Holm's correction, 4 worse, 4"
        in text
    )
    assert "No difference" not in text


def test_the_control_agrees_on_the_factors_that_it_has(results: Results) -> None:
    for comparison in results.comparisons:
        assert comparison.control.levels == ("none", "", comparison.configuration.levels[2])
    # levels in their order: numbers as numbers
    assert [c.levels[2] for c in results.configurations[:4]] == ["2", "10", "2", "10"]


def test_no_effect_is_reported_as_such(tmp_path: Path) -> None:
    results = compare(read_table(store(tmp_path, *simulated(NULL))), num_draws=100)
    text = conclusion(results)
    assert "Of 3 configurations, 0 better than the control" in text
    assert "0 worse, 3 undecided" in text
    assert "No difference to the control is shown" in text
    visible = [
        float(number) for number in re.findall(r"is ([\d.]+) points|and ([\d.]+) for", text)[0][:1]
    ]
    assert visible[0] > 100 * min(c.top1.high - c.top1.mean for c in results.comparisons)


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
        place = FACTORS.index(effect.factor)
        own = [c for c in results.comparisons if c.configuration.levels[place] == effect.level]
        assert effect.num_configurations == len(own)
        assert effect.top1.mean == pytest.approx(np.mean([c.top1.mean for c in own]))
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
    results = compare(read_table(store(tmp_path, runs[~gone], predictions)), num_draws=10)
    assert results.unbalanced == ["operator", "relations", "layers"]
    assert results.effects == []
    assert "Not averaged by level: operator, relations, layers." in section(results, {}, None)


def test_failed_runs_and_missing_seeds_are_told(tmp_path: Path) -> None:
    runs, predictions = simulated(NULL)
    runs.loc[5, ["status", "error", "top1"]] = ["failed", "boom | <b>_x_\nat step 3", np.nan]
    runs = runs.drop(index=[11, 12, 13, 14])  # one seed is left
    results = compare(read_table(store(tmp_path, runs, predictions)), num_draws=50)
    text = section(results, {}, None)
    run = runs["run"][5]
    assert (
        f"- Not done (failed): run `{run}`, operator=GCNConv, seed 0: boom \\| &lt;b&gt;\\_x\\_ at"
        in text
    )
    assert "- Missing: operator=GCNConv has no run with seed 0; " in text
    by_name = {c.configuration.levels[0]: c for c in results.comparisons}
    assert by_name["GCNConv"].seeds == (1, 2, 3, 4)
    assert by_name["GATv2Conv"].seeds == (0,)
    assert np.isnan(by_name["GATv2Conv"].adjusted_p)
    rows = {row["operator"]: row for row in cells(text, "operator")}
    assert rows["GCNConv"]["seeds"] == "4 (4 common)"
    assert rows["GATv2Conv"]["Top-1 less control [95%]"].endswith("[one seed]")
    assert "Of 2 configurations" in conclusion(results)


def test_without_a_run_of_the_control_nothing_is_compared(tables: Tables, tmp_path: Path) -> None:
    runs, predictions = tables
    runs = runs.copy()
    runs.loc[(runs["operator"] == "none") & (runs["layers"] == "2"), "status"] = "failed"
    results = compare(read_table(store(tmp_path, runs, predictions)), num_draws=10)
    assert len(results.comparisons) == len(results.not_compared) == 6
    text = section(results, {}, None)
    assert (
        "Not compared: operator=GCNConv, relations=past, layers=2 no run of its control is" in text
    )
    assert sum(row["verdict"] == "not compared" for row in cells(text, "operator")) == 6


def test_the_control_can_be_named(tables: Tables, tmp_path: Path) -> None:
    runs, predictions = tables
    folder = store(tmp_path, runs[runs["operator"] != "none"], predictions)
    with pytest.raises(DataError, match="no run is a control"):
        read_table(folder)
    control = "operator=GCNConv, relations=past"
    results = compare(read_table(folder, control), num_draws=10)
    assert {c.control.levels[:2] for c in results.comparisons} == {("GCNConv", "past")}
    assert all(c.control.levels[2] == c.configuration.levels[2] for c in results.comparisons)
    for wrong in ("operator", "depth=3"):
        with pytest.raises(
            ValueError, match="control must be factor=level with a factor of operator"
        ):
            read_table(folder, wrong)
    control_only = runs[(runs["operator"] != "none") | (runs["layers"] == "2")]
    with pytest.raises(DataError, match=r"no control agrees with operator=EdgeConv, .*layers=10"):
        compare(read_table(store(tmp_path, control_only, predictions)))


def test_one_control_for_each_configuration(tmp_path: Path) -> None:
    design = [({"operator": "none", "layers": layers}, 0.0) for layers in ("", "2")]
    folder = store(tmp_path, *simulated([*design, ({"operator": "GCNConv", "layers": "2"}, 0.0)]))
    with pytest.raises(DataError, match="operator=GCNConv, layers=2 agrees with operator=none; op"):
        compare(read_table(folder))


def swap_clips(runs: pd.DataFrame, predictions: pd.DataFrame) -> Tables:
    last = predictions["run"] == runs["run"].iloc[-1]
    other = predictions["clip"].where(~last, predictions["clip"] + "x")
    return runs, predictions.assign(clip=other)


def relabel(runs: pd.DataFrame, predictions: pd.DataFrame) -> Tables:
    last = predictions["run"] == runs["run"].iloc[-1]
    return runs, predictions.assign(label=predictions["label"].where(~last, 0))


REFUSALS: dict[str, tuple[Callable[[pd.DataFrame, pd.DataFrame], Tables], str]] = {
    "other clips": (swap_clips, "all runs must be tested on the same clips"),
    "fewer clips": (lambda r, p: (r, p.iloc[:-1]), "on the same clips: .* 120 and 119"),
    "other labels": (relabel, "have different labels for a clip"),
    "no predictions": (lambda r, p: (r, p[p["run"] != r["run"].iloc[3]]), "has no predictions"),
    "a clip twice": (lambda r, p: (r, pd.concat([p, p.iloc[:1]])), "has clip clip_0000 twice"),
    "a run twice": (lambda r, p: (pd.concat([r, r.iloc[:1]]), p), "is there twice"),
    "a seed twice": (
        lambda r, p: (r.assign(seed=r["seed"].replace(1, 0)), p),
        "one run a configuration and seed",
    ),
    "other data": (
        lambda r, p: (r.assign(data=["aa", *r["data"].iloc[1:]]), p),
        r"all runs must have the same data \(got 3fa9, aa\)",
    ),
    "two sweeps": (
        lambda r, p: (r.assign(sweep=["other", *r["sweep"].iloc[1:]]), p),
        "the runs must be of one sweep",
    ),
    "no control": (lambda r, p: (r.assign(control="false"), p), "no run is a control"),
    "control maybe": (
        lambda r, p: (r.assign(control="maybe"), p),
        r"true or false \(got 'maybe'\)",
    ),
    "no column": (lambda r, p: (r.drop(columns="mca"), p), "columns missing: mca"),
    "no factor": (lambda r, p: (r.drop(columns="operator"), p), "a column for each factor"),
    "no seed": (lambda r, p: (r.assign(seed=""), p), "seed must be an integer"),
    "no number": (lambda r, p: (r.assign(top1="good"), p), "top1 must be a number"),
    "nothing done": (lambda r, p: (r.assign(status="failed"), p), "no run is done"),
    "another Top-1": (lambda r, p: (r.assign(top1=r["top1"] + 0.01), p), "top1 of run .* must be"),
    "another MCA": (lambda r, p: (r.assign(mca=r["mca"] - 0.01), p), "mca of run .* must be"),
    "no Top-1": (lambda r, p: (r.assign(top1=""), p), "top1 of run .* must be"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses(case: str, tmp_path: Path) -> None:
    change, message = REFUSALS[case]
    folder = store(tmp_path, *change(*simulated(NULL)))
    with pytest.raises(DataError, match=message):
        read_table(folder)


def test_refuses_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"runs\.csv: no such file"):
        read_table(tmp_path)
    store(tmp_path, *simulated(NULL))
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"predictions\.parquet: not a table of predictions"):
        read_table(tmp_path)
    (tmp_path / "predictions.parquet").unlink()
    with pytest.raises(DataError, match=r"predictions\.parquet: no such file"):
        read_table(tmp_path)


def test_clusters_come_from_the_clips_ids(tmp_path: Path) -> None:
    table = read_table(store(tmp_path, *simulated(NULL)))
    results = compare(table, cluster_of=cluster_pattern(r"clip_(\d\d\d)"), num_draws=10)
    assert results.num_clusters == 12
    assert "120 test clips of 6 classes in 12 clusters, which are drawn whole" in section(
        results, {}, None
    )
    assert compare(table, num_draws=10).comparisons[0].top1 != results.comparisons[0].top1
    with pytest.raises(ValueError, match="clusters must be a regular expression"):
        cluster_pattern("(")
    with pytest.raises(ValueError, match="clusters must match every clip's id"):
        table.clusters(cluster_pattern("word"))


def test_the_command_writes_the_same_files_again(
    tables: Tables, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, predictions = tables
    first = store(tmp_path / "first", runs, predictions)
    null = store(tmp_path / "null", *simulated(NULL))
    (null / "notes.md").write_text("Words *by hand*.\n")
    intro = tmp_path / "intro.md"
    intro.write_text("# Ours\n\nWhat was asked | and why.\n")
    options = ["--intro", str(intro), "--num_draws=200", f"--output={tmp_path / 'a' / 'R.md'}"]
    main(["compare", str(first), str(null), *options])
    assert capsys.readouterr().out == f"2 sweeps. Written to {tmp_path / 'a' / 'R.md'}\n"
    # the same rows in another order
    store(first, runs.sample(frac=1, random_state=1), predictions.iloc[::-1])
    options[-1] = f"--output={tmp_path / 'b' / 'R.md'}"
    main(["compare", str(first), str(null), *options])
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 2 + 3 + 2
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file

    text = (tmp_path / "a" / "R.md").read_text()
    assert text.startswith("# Ours\n\nWhat was asked | and why.\n\n## operators\n")
    assert "\n\nWords *by hand*.\n\n" in text
    assert "## How the numbers are made" in text
    assert all(run in text for run in runs["run"])
    for name in re.findall(r"\]\((figures/.*?)\)", text):
        assert (tmp_path / "a" / name).stat().st_size < 200_000
        with Image.open(tmp_path / "a" / name) as picture:
            assert min(picture.size) > 300
    numbers = pd.read_csv(tmp_path / "a" / "configurations.csv")
    assert len(numbers) == len(DESIGN) + len(NULL)
    for _, row in numbers[: len(DESIGN)].iterrows():
        own = runs[runs["run"].isin(row["runs"].split())]
        assert row["top1"] == pytest.approx(own["top1"].mean())
        if not row["control"]:
            control = runs[runs["run"].isin(row["control_runs"].split())]
            assert row["difference"] == pytest.approx(own["top1"].mean() - control["top1"].mean())
            assert row["low"] < row["difference"] < row["high"]


def test_errors_of_the_command(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="output must be given with several folders"):
        main(["compare", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit, match="no such folder"):
        main(["compare", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match="num_draws must be a positive integer"):
        main(["compare", str(tmp_path), "--num_draws=0"])


def test_the_front_has_what_nothing_cheaper_beats() -> None:
    cost = np.array([3.0, 1.0, 2.0, 2.0, 4.0, 1.0])
    value = np.array([0.7, 0.5, 0.6, 0.8, 0.9, 0.4])
    assert pareto_front(cost, value).tolist() == [1, 3, 4]
