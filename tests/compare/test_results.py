from pathlib import Path

import pytest
from stored import NULL, Tables, simulated, store

from taghead.compare.markdown import conclusion, section
from taghead.compare.results import Results, compare_configurations
from taghead.compare.tables import cluster_pattern, read_table
from taghead.errors import DataError


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


def test_the_control_can_be_named(tables: Tables, tmp_path: Path) -> None:
    runs, predictions = tables
    folder = store(tmp_path, runs[runs["operator"] != "none"], predictions)
    with pytest.raises(DataError, match="no run is a control"):
        read_table(folder)
    control = "operator=GCNConv, relations=past"
    results = compare_configurations(read_table(folder, control), num_draws=10)
    assert {c.control.levels[:2] for c in results.comparisons} == {("GCNConv", "past")}
    assert all(c.control.levels[2] == c.configuration.levels[2] for c in results.comparisons)
    for wrong in ("operator", "depth=3"):
        with pytest.raises(
            ValueError, match="control must be factor=level with a factor of operator"
        ):
            read_table(folder, wrong)
    control_only = runs[(runs["operator"] != "none") | (runs["layers"] == "2")]
    with pytest.raises(DataError, match=r"no control agrees with operator=EdgeConv, .*layers=10"):
        compare_configurations(read_table(store(tmp_path, control_only, predictions)))


def test_one_control_for_each_configuration(tmp_path: Path) -> None:
    design = [({"operator": "none", "layers": layers}, 0.0) for layers in ("", "2")]
    folder = store(tmp_path, *simulated([*design, ({"operator": "GCNConv", "layers": "2"}, 0.0)]))
    with pytest.raises(DataError, match="operator=GCNConv, layers=2 agrees with operator=none; op"):
        compare_configurations(read_table(folder))


def test_clusters_come_from_the_clips_ids(tmp_path: Path) -> None:
    table = read_table(store(tmp_path, *simulated(NULL)))
    results = compare_configurations(
        table, cluster_of=cluster_pattern(r"clip_(\d\d\d)"), num_draws=10
    )
    assert results.num_clusters == 12
    assert "120 test clips of 6 classes in 12 clusters, which are drawn whole" in section(
        results, {}, None
    )
    assert (
        compare_configurations(table, num_draws=10).comparisons[0].top1
        != results.comparisons[0].top1
    )
    with pytest.raises(ValueError, match="clusters must be a regular expression"):
        cluster_pattern("(")
    with pytest.raises(ValueError, match="clusters must match every clip's id"):
        table.clusters(cluster_pattern("word"))
