"""Over-smoothing of heads in every mode, and what each relation adds."""

from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import GRID, MODES, OPERATORS, make_head, make_map
from torch import Tensor, nn

from taghead.explain import dirichlet_energy, effective_rank, smoothing
from taghead.graph import RELATIONS


def sequential(in_channels: int, out_channels: int) -> Any:
    parts = [
        (pyg.GCNConv(in_channels, 4), "x, edge_index -> x"),
        nn.ReLU(),
        (pyg.SAGEConv(4, out_channels), "x, edge_index -> x"),
    ]
    return pyg.Sequential("x, edge_index", parts)


def gps(in_channels: int, out_channels: int) -> Any:
    return pyg.GPSConv(in_channels, pyg.SAGEConv(in_channels, out_channels), heads=2)


class Largest(nn.Module):
    """An aggregation of relations of one's own."""

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs.amax(-2)


@pytest.mark.parametrize(
    ("mode", "conv"), [*MODES, ("per_relation", gps), ("per_relation", sequential), ("union", gps)]
)
def test_every_mode_and_composites(mode: Any, conv: Any) -> None:
    if mode == "edge_type":
        conv = partial(pyg.RGCNConv, num_relations=2)
    options: dict[str, Any] = {"mode": mode, "graph_layers": 2, "jumping_knowledge": "cat"}
    head = make_head(**options, **({"conv": conv} if conv else {}))
    found = smoothing(head, make_map())
    layers = ["layer_0", "layer_1", "jumping_knowledge"] if mode != "none" else []
    assert found.tokens.stage.tolist() == ["input", "transformer", *layers]
    assert all(table.notna().all(axis=None) for table in found)
    names = {"per_relation": [r.name for r in RELATIONS], "none": []}.get(mode, ["union"])
    assert found.added.relation.tolist() == names * 2
    assert found.is_separable == (mode in ("per_relation", "none"))
    rows = len(layers) + 2
    assert len(found.edges) == (0 if mode == "none" else 3 * rows)


def test_the_head_is_left_as_it_was() -> None:
    head = make_head(conv=OPERATORS["GATv2Conv"], graph_dropout=0.5).train()
    first, *others = head.parameters()
    first.requires_grad_(False)
    buffers = {name: value.clone() for name, value in head.state_dict().items()}
    feature_map = make_map().requires_grad_()
    one, two = smoothing(head, feature_map), smoothing(head, feature_map)
    for table, again in zip(one, two, strict=True):
        assert table.equals(again)  # no dropout
    assert all(part.training for part in head.modules())
    assert feature_map.grad is None
    assert all(p.grad is None and p.requires_grad for p in others)
    assert not first.requires_grad
    assert all(torch.equal(value, buffers[name]) for name, value in head.state_dict().items())


def test_the_stages_are_the_heads_own() -> None:
    head, feature_map = make_head(conv=OPERATORS["GATv2Conv"], graph_layers=2), make_map(1)
    found = smoothing(head, feature_map)
    x = head.encode(feature_map)
    last = head.refine(x, GRID)[0]
    tokens = found.tokens.set_index("stage")
    assert tokens.loc["transformer"].effective_rank == pytest.approx(effective_rank(x[0]))
    assert tokens.loc["layer_1"].effective_rank == pytest.approx(effective_rank(last))
    edges = found.edges.set_index(["stage", "relation"])
    energies = [dirichlet_energy(last, GRID.edge_index(r)) for r in RELATIONS]
    for relation, energy in zip(RELATIONS, energies, strict=True):
        assert edges.loc[("layer_1", relation.name)].dirichlet_energy == pytest.approx(energy)
    union = edges.loc[("layer_1", "union")].dirichlet_energy
    assert union == pytest.approx(sum(energies))


def test_values_are_means_over_clips() -> None:
    head, feature_map = make_head(conv=OPERATORS["GATv2Conv"]), make_map(3)
    each = [smoothing(head, clip[None]) for clip in feature_map]
    for together, *alone in zip(smoothing(head, feature_map), *each, strict=True):
        numbers = [table.select_dtypes("number") for table in alone]
        mean = sum(numbers[1:], numbers[0]) / 3
        assert together.select_dtypes("number").to_numpy() == pytest.approx(mean.to_numpy())


def test_repeated_mean_aggregation_smooths() -> None:
    """A layer of means over the frame and no residual makes the tokens of a frame equal."""
    head = make_head(
        conv=pyg.SimpleConv,
        mode="union",
        relations=RELATIONS[:1],
        graph_norm=None,
        graph_activation=None,
        graph_residual=False,
        graph_layers=6,
    )
    for layer in head.layers:
        layer.convs.conv = pyg.SimpleConv(aggr="mean")
    edges = smoothing(head, make_map()).edges
    energies = edges[edges.relation == "intra_frame"].dirichlet_energy.tolist()
    # the means over the three other tokens of a frame shrink differences to a third
    for before, after in pairwise(energies[1:]):
        assert after == pytest.approx(before / 9)


@pytest.mark.parametrize("aggr", ["sum", "mean", "cat", "max", Largest])
def test_what_each_relation_adds(aggr: Any) -> None:
    head = make_head(conv=pyg.SAGEConv, relation_aggr=aggr, graph_norm=None)
    feature_map = make_map(1)
    found = smoothing(head, feature_map).added.set_index("relation")
    x = head.encode(feature_map)[0]
    logits = head(feature_map)
    convs: Any = head.layers[0].convs
    for k, relation in enumerate(RELATIONS):
        conv = convs.convs[relation]
        part = conv(x, GRID.edge_index(relation))
        if aggr == "mean":
            part = part / 2
        if aggr == "cat":
            empty = torch.zeros_like(part)
            part = torch.cat([part, empty] if k == 0 else [empty, part], 1)
        row = found.loc[relation.name]
        assert row.relative_norm == pytest.approx(float(part.norm() / x.norm()))
        cosine = float((part * x).sum() / part.norm() / x.norm())
        assert row.cosine == pytest.approx(cosine)
        saved = {name: p.clone() for name, p in conv.named_parameters()}
        with torch.no_grad():
            for parameter in conv.parameters():
                parameter.zero_()
            change = (head(feature_map) - logits).abs().mean()
            for name, parameter in conv.named_parameters():
                parameter.copy_(saved[name])
        assert row.logit_change == pytest.approx(float(change))
        assert row.logit_change > 0


def test_a_relation_that_adds_nothing() -> None:
    head = make_head(conv=pyg.SAGEConv, graph_layers=2, jumping_knowledge="max")
    conv: Any = head.layers[1].convs
    with torch.no_grad():
        for parameter in conv.convs[RELATIONS[1]].parameters():
            parameter.zero_()
    row = smoothing(head, make_map()).added.iloc[3]
    assert (row.layer, row.relation) == (1, RELATIONS[1].name)
    assert row.relative_norm == row.cosine == row.logit_change == 0


def test_edges_that_follow_features() -> None:
    head = make_head(conv=pyg.SAGEConv, relations=["motion_1p", "intra_frame"])
    found = smoothing(head, make_map())
    assert all(table.notna().all(axis=None) for table in found)


def test_no_clip_is_refused() -> None:
    with pytest.raises(ValueError, match=r"feature_map must hold at least one clip \(got 0\)"):
        smoothing(make_head(), make_map(0))
