from pathlib import Path

import pytest
from stored import NULL, Tables, simulated, store

from taghead.compare.markdown import conclusion, section
from taghead.compare.results import Results, compare_configurations
from taghead.compare.tables import cluster_pattern, read_table
from taghead.errors import DataError


def test_known_effects_are_recovered(results: Results) -> None:
    compared = results.numbers[results.is_compared]
    assert len(compared) == 12
    operators = results.levels["operator"][results.is_compared]
    for operator, own in zip(operators, compared.itertuples(), strict=True):
        verdict = {"GATv2Conv": "better", "EdgeConv": "worse"}.get(operator, "undecided")
        assert own.verdict == verdict, own.configuration
        assert own.bootstrap_low < own.difference < own.bootstrap_high
    text = conclusion(results)
    assert (
        "Of 12 configurations, 4 better than the control after Holm's correction, 4 worse, 4"
        in text
    )
    assert "No difference" not in text


def test_the_control_agrees_on_the_factors_that_it_has(results: Results) -> None:
    layers = results.levels["layers"][results.is_compared]
    controls = results.numbers["control_configuration"][results.is_compared]
    assert len(controls) == 12
    for own, control in zip(layers, controls, strict=True):
        assert control == f"operator=none, layers={own}"
    # levels in their order: numbers as numbers
    assert results.levels["layers"].tolist()[:4] == ["2", "10", "2", "10"]


def test_the_control_can_be_named(tables: Tables, tmp_path: Path) -> None:
    runs, predictions = tables
    folder = store(tmp_path, runs[runs["operator"] != "none"], predictions)
    with pytest.raises(DataError, match="no run is a control"):
        read_table(folder)
    control = "operator=GCNConv, relations=past"
    results = compare_configurations(read_table(folder, control), num_draws=10)
    layers = results.levels["layers"][results.is_compared]
    controls = results.numbers["control_configuration"][results.is_compared]
    assert controls.tolist() == [f"operator=GCNConv, relations=past, layers={n}" for n in layers]
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
    of_clips = compare_configurations(table, num_draws=10).numbers.iloc[-1]
    assert of_clips["difference"] == pytest.approx(results.numbers["difference"].iloc[-1])
    assert of_clips["error"] != results.numbers["error"].iloc[-1]
    with pytest.raises(ValueError, match="clusters must be a regular expression"):
        cluster_pattern("(")
    with pytest.raises(ValueError, match="clusters must match every clip's id"):
        table.clusters(cluster_pattern("word"))
