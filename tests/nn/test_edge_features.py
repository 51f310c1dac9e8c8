"""Edge features of relative positions and of relations: PyG is the oracle, edge by edge."""

import json
from functools import partial
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from cases import CASES, RELATION_SETS, Case, assert_equal
from cases import WIDTH as OF_CASES
from torch import Tensor, nn

from taghead import Grid, TAGHead
from taghead.graph import as_relations, from_tokens, motion_aligned, to_hetero_data
from taghead.graph.edge_features import EdgeFeatures
from taghead.nn.edge_features import RelationFeatures, RelativeFeatures
from taghead.operators import BiasedTransformerConv, propagate

GRID, WIDTH = Grid(3, 2, 3), 8
WITH_EDGES = [case for case in CASES if case.edge_width]
RELATIONS = ("intra_frame", "past_1f", "future_1f")
NAMES = ("offset", "relative", "relation")


def features_of(kind: str, channels: int, num_relations: int = 4) -> EdgeFeatures:
    torch.manual_seed(0)
    if kind == "relation":
        return RelationFeatures(num_relations, channels, std=1.0).double()
    options = {"factorised": kind == "factorised", "by_relation": kind == "by relation"}
    return RelativeFeatures(GRID, num_relations, channels, **options, std=1.0).double()


def by_hand(features: EdgeFeatures, edge_index: Tensor, edge_type: Tensor) -> Tensor:
    """The row of each edge, looked up one by one."""
    pos, rows = GRID.positions(), []
    for (source, target), index in zip(edge_index.t().tolist(), edge_type.tolist(), strict=True):
        t, y, x = (pos[source] - pos[target]).tolist()
        if isinstance(features, RelationFeatures):
            rows.append(features.weight[index])
            continue
        assert isinstance(features, RelativeFeatures)
        table = index if features.by_relation else 0
        steps = (t + 2, y + 1, x + 2)
        if len(features.tables) == 3:
            rows.append(sum(one[table, i] for one, i in zip(features.tables, steps, strict=True)))
        else:
            rows.append(features.tables[0][table, (steps[0] * 3 + steps[1]) * 5 + steps[2]])
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["full", "factorised", "by relation", "relation"])
def test_features_are_rows_of_tables(kind: str) -> None:
    features = features_of(kind, 3)
    edge_index, edge_type = GRID.typed_edges(RELATION_SETS["window and directed"])
    pos = GRID.positions()
    found = features((pos[edge_index[0]] - pos[edge_index[1]]).double(), edge_type)
    torch.testing.assert_close(found, by_hand(features, edge_index, edge_type), rtol=0, atol=0)


SETS = ("intra", "reach 2", "window", "directed", "twice")


@pytest.mark.parametrize("relations", SETS)
@pytest.mark.parametrize("case", WITH_EDGES, ids=str)
def test_dense_is_pyg_with_all_gradients(case: Case, relations: str) -> None:
    conv, chosen = case.build().double(), RELATION_SETS[relations]
    features = features_of("by relation", case.edge_width)
    x = torch.randn(2, GRID.num_nodes, OF_CASES, dtype=torch.float64, requires_grad=True)
    results: list[dict[str, Tensor]] = []
    inputs = [x, *features.parameters(), *conv.parameters()]
    for engine in ("dense", "pyg"):
        out = propagate(conv, x, GRID, chosen, edge_features=features, engine=engine)
        direction = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
        found = torch.autograd.grad((out * direction).sum(), inputs, allow_unused=True)
        pairs = enumerate(zip(inputs, found, strict=True))
        gradients = {str(i): torch.zeros_like(p) if g is None else g for i, (p, g) in pairs}
        results.append({"output": out.detach()} | gradients)
    assert_equal(*results, 1e-10)


def test_dense_in_chunks_is_pyg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taghead.operators.pairwise.CHUNK", 1)  # one frame at a time
    for case in WITH_EDGES:
        test_dense_is_pyg_with_all_gradients(case, "directed")


def make_head(**options: Any) -> TAGHead:
    torch.manual_seed(0)
    head = TAGHead(WIDTH, 5, GRID, **{"relations": RELATIONS, "graph_layers": 2, **options})
    for name, parameter in head.named_parameters():
        if name.endswith("l2"):  # RGATConv leaves it uninitialised
            nn.init.constant_(parameter, 0.3)
    return head.double().eval()


def make_map(grid: Grid = GRID) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    shape = (2, WIDTH, grid.frames, grid.height, grid.width)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


MODES: list[tuple[Any, Any]] = [
    ("per_relation", None),
    ("union", partial(pyg.GATv2Conv, heads=2)),
    ("union", pyg.GINEConv),
    ("edge_type", partial(pyg.RGATConv, heads=2)),
    ("union", partial(BiasedTransformerConv, heads=2)),
]


@pytest.mark.parametrize("edge_features", NAMES)
@pytest.mark.parametrize(("mode", "conv"), MODES)
def test_a_head_by_every_way(mode: Any, conv: Any, edge_features: str) -> None:
    head = make_head(mode=mode, conv=conv, edge_features=edge_features, engine="dense")
    for grid in (GRID, Grid(4, 3, 2), Grid(1, 1, 1)):  # on others, offsets beyond the table
        feature_map = make_map(grid)
        logits = head(feature_map)
        data = to_hetero_data(from_tokens(head.encode(feature_map), grid), head.relations)
        given = data.x_dict, data.edge_index_dict, data.batch_dict, data.pos_dict
        torch.testing.assert_close(head.graph_model()(*given), logits, rtol=0, atol=1e-10)
        head.engine = "pyg"
        torch.testing.assert_close(head(feature_map), logits, rtol=0, atol=1e-10)
        head.engine = "dense"


@pytest.mark.parametrize("edge_features", NAMES)
@pytest.mark.parametrize(("mode", "conv"), MODES)
def test_they_train_and_are_in_the_config(mode: Any, conv: Any, edge_features: str) -> None:
    head = make_head(mode=mode, conv=conv, edge_features=edge_features, edge_dropout=0.2).train()
    head(make_map()).square().sum().backward()  # through PyG, as it drops edges
    head.eval()(make_map()).square().sum().backward()
    tables = {n: p for n, p in head.named_parameters() if ".features." in n}
    assert bool(tables) == (edge_features != "offset")
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in tables.values())
    config = json.loads(json.dumps(head.config()))
    assert config["edge_features"] == edge_features
    again = TAGHead(**config).double().eval()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(make_map()), head(make_map()))


def test_options_and_own_copies() -> None:
    given = {"class_path": "relative", "init_args": {"channels": 3, "factorised": True}}
    head = make_head(edge_features=given)
    tables = [n for n, _ in head.named_parameters() if ".features." in n]
    assert len(tables) == 2 * 3 * 3  # layers, relations, axes
    assert json.loads(json.dumps(head.config()))["edge_features"]["init_args"] == given["init_args"]
    assert head.layers[0].convs.operators()[0].lin_edge.weight.shape == (WIDTH, 3)
    with pytest.raises(ValueError, match="RelativeFeatures has no option 'size'"):
        make_head(edge_features={"class_path": "relative", "init_args": {"size": 3}})
    with pytest.raises(ValueError, match="RelativeFeatures cannot be built: channels must be"):
        make_head(edge_features=partial(RelativeFeatures, channels=0))
    with pytest.raises(ValueError, match="SAGEConv takes no edge_attr"):
        make_head(conv=pyg.SAGEConv, edge_features="relative")


def test_a_bias_is_added_to_the_scores() -> None:
    conv = BiasedTransformerConv(WIDTH, 4, heads=2, edge_dim=1).double().eval()
    plain = pyg.TransformerConv(WIDTH, 4, heads=2).double().eval()
    state = {name: p for name, p in conv.state_dict().items() if "lin_edge" not in name}
    plain.load_state_dict(state)
    x, edges = torch.randn(3, WIDTH).double(), torch.tensor([[0, 1, 2], [2, 2, 0]])
    edge_attr = torch.tensor([[0.5], [-1.0], [2.0]]).double()
    _, (_, before) = plain(x, edges, return_attention_weights=True)
    _, (_, after) = conv(x, edges, edge_attr, return_attention_weights=True)
    bias = conv.lin_edge(edge_attr)
    expected = (before.log() + bias)[:2].softmax(0)  # edges 0 -> 2 and 1 -> 2
    torch.testing.assert_close(after[:2], expected)
    torch.testing.assert_close(after[2], torch.ones(2).double())
    assert not torch.allclose(after, before)
    torch.testing.assert_close(conv(x, edges, 0 * edge_attr), plain(x, edges))


def test_dynamic_edges_have_them() -> None:
    head = make_head(relations=("intra_frame", motion_aligned(1)), edge_features="relative")
    feature_map = make_map()
    data = to_hetero_data(from_tokens(head.encode(feature_map), GRID), head.relations)
    logits = head.graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict, data.pos_dict)
    torch.testing.assert_close(logits, head(feature_map))
    logits.sum().backward()
    assert head.layers[0].convs.features[1].tables[0].grad.abs().sum() > 0


def test_captured_attention_is_dense_and_pygs() -> None:
    head = make_head(mode="union", edge_features="relative", graph_layers=1)
    captured = {}
    for engine in ("dense", "pyg"):
        head.engine = engine
        logits, attention = head(make_map(), return_attention=True)
        torch.testing.assert_close(logits, head(make_map()))
        captured[engine] = attention.as_pyg(0, "intra_frame")
    torch.testing.assert_close(captured["dense"], captured["pyg"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("conv", [None, pyg.GINEConv, pyg.GATv2Conv])
def test_a_dense_head_compiles_and_exports(conv: Any) -> None:
    head = make_head(conv=conv, edge_features="relative", engine="dense").float()
    feature_map = make_map().float()
    expected = head(feature_map)
    torch._dynamo.reset()
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(feature_map), expected, rtol=1e-4, atol=1e-5)
    batch = torch.export.Dim("batch", min=1, max=16)
    with torch.no_grad():
        program = torch.export.export(head, (feature_map,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(feature_map), expected, rtol=1e-4, atol=1e-5)
    three = torch.cat([feature_map, feature_map[:1]])
    torch.testing.assert_close(program.module()(three)[:2], expected, rtol=1e-4, atol=1e-5)


def test_second_derivatives_of_pairs() -> None:
    conv = pyg.GATv2Conv(4, 2, edge_dim=2, add_self_loops=False).double()
    features = features_of("full", 2)
    x = torch.randn(1, GRID.num_nodes, 4, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor) -> Tensor:
        return propagate(conv, x, GRID, as_relations(("intra_frame",)), edge_features=features)

    assert torch.autograd.gradgradcheck(function, (x,))
