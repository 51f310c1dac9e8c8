from functools import partial

import pytest
import torch
import torch_geometric.nn as pyg
from torch import Tensor
from torch_geometric.nn import MessagePassing

from taghead.class_paths import allow_modules
from taghead.operators import Operator, as_operator


class MeanOfNeighbours(MessagePassing):
    """An operator of a user's own."""

    def __init__(self, in_channels: int, out_channels: int, scale: float = 1.0) -> None:
        super().__init__(aggr="mean")
        self.lin = torch.nn.Linear(in_channels, out_channels)
        self.scale = scale

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.scale * self.propagate(edge_index, x=self.lin(x))


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (pyg.GATv2Conv, {"heads": 4}),
        (pyg.GATv2Conv, {"heads": 4, "concat": False}),
        (pyg.TransformerConv, {"heads": 2, "concat": True}),
        (pyg.APPNP, {"K": 2, "alpha": 0.1}),
        (pyg.LGConv, {}),
        (pyg.SimpleConv, {"aggr": "mean"}),
        (pyg.AGNNConv, {}),
        (pyg.GCN2Conv, {"alpha": 0.1}),
        (pyg.FAConv, {}),
        (pyg.CGConv, {}),
        (pyg.GatedGraphConv, {"num_layers": 2}),
        (pyg.GINConv, {"train_eps": True}),
        (pyg.EdgeConv, {"aggr": "max"}),
        (pyg.RGCNConv, {"num_relations": 2}),
        (MeanOfNeighbours, {"scale": 2.0}),
    ],
)
def test_each_class_gets_the_widths_that_it_asks_for(cls: type, options: dict) -> None:
    conv = Operator(cls, **options)(8, 8)
    assert type(conv) is cls
    x, edge_index = torch.randn(4, 8), torch.tensor([[0, 1, 2], [1, 2, 3]])
    extra = [x] if cls in (pyg.GCN2Conv, pyg.FAConv) else []
    last = [torch.zeros(3, dtype=torch.long)] if cls is pyg.RGCNConv else []
    assert conv(x, *extra, edge_index, *last).shape == (4, 8)


def test_as_operator_takes_all_that_names_one() -> None:
    for conv in (
        pyg.SAGEConv,
        partial(pyg.SAGEConv),
        Operator(pyg.SAGEConv),
        lambda i, o: pyg.SAGEConv(i, o),
        {"class_path": "torch_geometric.nn.SAGEConv"},
    ):
        assert type(as_operator(conv)(3, 5)) is pyg.SAGEConv


def test_options_of_a_partial_arrive() -> None:
    conv = as_operator(partial(pyg.GATv2Conv, heads=3, concat=False))(6, 6)
    assert conv.heads == 3
    assert conv.concat is False


def test_a_config_leads_back_to_the_operator() -> None:
    operator = Operator(pyg.GATv2Conv, heads=2)
    config = operator.to_config()
    assert config == {"class_path": "torch_geometric.nn.GATv2Conv", "init_args": {"heads": 2}}
    again = Operator.from_config(config)
    assert (again.cls, again.options) == (operator.cls, operator.options)
    allow_modules([__name__])
    own = Operator(MeanOfNeighbours, scale=3.0)
    assert Operator.from_config(own.to_config())(2, 2).scale == 3.0


def test_a_function_cannot_be_written_to_a_file() -> None:
    with pytest.raises(ValueError, match="conv: <function"):
        as_operator(lambda i, o: pyg.SAGEConv(i, o)).to_config()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Operator(pyg.GATv2Conv, haeds=4),
            "GATv2Conv has no option 'haeds'; it has .*heads",
        ),
        (lambda: Operator(pyg.GATv2Conv, heads=3)(8, 8), r"heads must divide the width 8 .*got 3"),
        (lambda: Operator(pyg.GCNConv, cached=True), r"cached must be False \(got True\)"),
        (lambda: Operator(torch.nn.Linear), "must be a MessagePassing class"),
        (lambda: Operator(pyg.RGCNConv)(8, 8), "RGCNConv cannot be built: .*num_relations"),
        (lambda: as_operator(3), r"conv must be .*\(got 3\)"),
        (
            lambda: Operator.from_config({"class_path": "os.path.join"}),
            "conv: os.path.join is not allowed: classes come from .* none from Python's os.path",
        ),
        (
            lambda: Operator.from_config({"class_path": "no.such.Conv"}),
            "no.such.Conv is not allowed: .* that you name: --modules=no.such runs its code",
        ),
        (
            lambda: Operator.from_config({"class_path": "torch_geometric.data.Data"}),
            "conv: there is no class torch_geometric.data.Data among the operators, aggregations",
        ),
        (
            lambda: Operator.from_config(
                {
                    "class_path": "torch_geometric.nn.NNConv",
                    "init_args": {"nn": {"class_path": "torch.nn.Linear"}},
                }
            )(8, 8),
            "Linear cannot be built: .*in_features",
        ),
        (
            lambda: Operator.from_config({"class_path": "torch_geometric.nn.NoConv"}),
            "no class torch_geo",
        ),
    ],
)
def test_mistakes_are_named(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_an_option_of_a_file_is_no_class() -> None:
    evil = {"class_path": "timeit.timeit", "init_args": {"stmt": "open('PWNED', 'w')"}}
    for options in ({"nn": evil}, {"nn": [evil]}, {"nn": {"inner": evil}}):
        config = {"class_path": "torch_geometric.nn.NNConv", "init_args": options}
        with pytest.raises(
            ValueError, match=r"^conv: timeit.timeit is not allowed: classes come from"
        ):
            Operator.from_config(config)
