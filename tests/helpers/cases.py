"""Every operator with its options, and the ways to run and compare them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import (
    APPNP,
    MLP,
    AGNNConv,
    ARMAConv,
    ChebConv,
    ClusterGCNConv,
    EdgeConv,
    FAConv,
    FastRGCNConv,
    FiLMConv,
    GATConv,
    GatedGraphConv,
    GATv2Conv,
    GCN2Conv,
    GCNConv,
    GENConv,
    GeneralConv,
    GINConv,
    GINEConv,
    GraphConv,
    LEConv,
    LGConv,
    MessagePassing,
    MixHopConv,
    PNAConv,
    ResGatedGraphConv,
    RGATConv,
    RGCNConv,
    SAGEConv,
    SGConv,
    SimpleConv,
    SSGConv,
    SuperGATConv,
    TAGConv,
    TransformerConv,
)

from taghead.graph import (
    FUTURE,
    INTRA_FRAME,
    PAST,
    RELATIONS,
    TIME_ALIGNED,
    Grid,
    from_tokens,
    spatial_window,
    time_aligned,
    to_data,
)
from taghead.operators import BiasedTransformerConv, propagate

WIDTH, OUT, EDGE = 6, 4, 3
TYPES = 4  # relations that typed operators are built for
FIRST_SETS = {"intra": (INTRA_FRAME,), "time": (TIME_ALIGNED,), "union": RELATIONS}
RELATION_SETS = FIRST_SETS | {
    "reach 2": (time_aligned(reach=2),),
    "past": (PAST,),
    "future": (FUTURE,),
    "window": (spatial_window(1),),
    "directed": (INTRA_FRAME, PAST, FUTURE),
    "window and time": (spatial_window(1), time_aligned(reach=2)),
    "window and directed": (spatial_window(1), PAST),
    "twice": (spatial_window(1), INTRA_FRAME, TIME_ALIGNED, PAST),  # edges of several relations
}
AGGREGATIONS = ("sum", "mean", "max", "min", "var", "std", "softmax", "powermean")


@dataclass(frozen=True)
class Case:
    """An operator's class with options; `build` makes it."""

    cls: type[MessagePassing]
    options: str
    build: Callable[[], MessagePassing]
    edge_width: int = 0
    tags: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return f"{self.cls.__name__}({self.options})"


def network(width: int, out: int = OUT) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, out))


def case(cls: type[MessagePassing], *arguments: Any, edge_width: int = 0, **options: Any) -> Case:
    def build() -> MessagePassing:
        made = [a() if callable(a) and not isinstance(a, type) else a for a in arguments]
        named = {k: v() if inspect.isfunction(v) else v for k, v in options.items()}
        conv = cls(*made, **named).eval()
        if hasattr(conv, "l2"):  # RGATConv leaves it uninitialised
            nn.init.constant_(conv.l2, 0.3)
        return conv

    words = [f"{name}={_word(value)}" for name, value in options.items()]
    return Case(cls, ", ".join([*map(_word, arguments), *words]), build, edge_width)


def _word(value: Any) -> str:
    return getattr(value, "__name__", None) or " ".join(str(value).split())


def _cases() -> list[Case]:
    wide = (WIDTH, OUT)
    ends = [{}, {"aggr": "mean"}, {"flow": "target_to_source"}]
    out = [
        case(APPNP, 3, 0.2, **o) for o in [*ends, {"normalize": False}, {"add_self_loops": False}]
    ]
    out += [
        case(GCNConv, *wide, **o)
        for o in [
            *ends,
            {"normalize": False},
            {"add_self_loops": False},
            {"improved": True},
            {"bias": False},
        ]
    ]
    out += [case(SGConv, *wide, **o) for o in [*ends, {"K": 3}, {"add_self_loops": False}]]
    out += [case(SSGConv, *wide, 0.3, **o) for o in [*ends, {"K": 3}, {"add_self_loops": False}]]
    out += [
        case(TAGConv, *wide, **o) for o in [*ends, {"K": 1}, {"normalize": False}, {"bias": False}]
    ]
    out += [case(ChebConv, *wide, 3, normalization=n, **o) for n, o in product(["sym", "rw"], ends)]
    out += [case(ChebConv, *wide, 1), case(ChebConv, *wide, 4, bias=False)]
    out += [
        case(ARMAConv, *wide, **o)
        for o in [
            *ends,
            {"num_stacks": 2, "num_layers": 3},
            {"num_layers": 2, "shared_weights": True},
            {"act": None},
            {"bias": False},
        ]
    ]
    out += [
        case(MixHopConv, *wide, **o) for o in [*ends, {"powers": [1, 3]}, {"add_self_loops": False}]
    ]
    out += [case(LGConv, **o) for o in [*ends, {"normalize": False}]]
    out += [case(SimpleConv, aggr=a) for a in (*AGGREGATIONS, ["sum", "max", "std"])]
    out += [case(SimpleConv, combine_root=c) for c in ("sum", "cat", "self_loop")]
    out += [case(SimpleConv, aggr=a, combine_root="self_loop") for a in ("max", "softmax", "mean")]
    out += [
        case(ClusterGCNConv, *wide, **o) for o in [*ends, {"diag_lambda": 0.3}, {"bias": False}]
    ]
    out += [
        case(GCN2Conv, WIDTH, 0.1, **o)
        for o in [
            *ends,
            {"theta": 0.5, "layer": 2},
            {"theta": 0.5, "layer": 2, "shared_weights": False},
            {"normalize": False},
            {"add_self_loops": False},
        ]
    ]
    out += [case(LEConv, *wide, **o) for o in [*ends, {"aggr": "max"}, {"bias": False}]]
    out += [case(GraphConv, *wide, aggr=a) for a in AGGREGATIONS]
    out += [case(SAGEConv, *wide, aggr=a) for a in AGGREGATIONS]
    out += [
        case(SAGEConv, *wide, **o)
        for o in [
            {"normalize": True},
            {"project": True},
            {"root_weight": False},
            {"bias": False},
            {"aggr": ["mean", "max"]},
            {"flow": "target_to_source"},
        ]
    ]
    out += [
        case(GINConv, lambda: network(WIDTH), **o)
        for o in [*ends, {"aggr": "max"}, {"eps": 0.3, "train_eps": True}]
    ]
    out += [
        case(GINEConv, lambda: network(WIDTH), edge_width=EDGE, edge_dim=EDGE, **o)
        for o in [*ends, {"aggr": "max"}, {"eps": 0.3, "train_eps": True}]
    ]
    out += [case(GINEConv, lambda: network(WIDTH), edge_width=WIDTH)]
    out += [
        case(GatedGraphConv, WIDTH + 2, 2, **o) for o in [*ends, {"aggr": "max"}, {"bias": False}]
    ]
    degrees, every = (
        torch.tensor([0, 3, 4, 5, 6, 7, 2]),
        ["mean", "max", "min", "std", "sum", "var"],
    )
    scalers = ["identity", "amplification", "attenuation", "linear", "inverse_linear"]
    out += [
        case(PNAConv, *wide, every, scalers, degrees, **o)
        for o in [
            {},
            {"towers": 2, "divide_input": True},
            {"towers": 2, "post_layers": 2},
            {"train_norm": True},
        ]
    ]
    out += [case(PNAConv, *wide, ["max"], ["identity"], degrees, edge_width=EDGE, edge_dim=EDGE)]
    out += [
        case(GENConv, *wide, aggr=a, norm="layer")
        for a in (*AGGREGATIONS, ["mean", "max"], "softmax_sg")
    ]
    out += [
        case(GENConv, *wide, **o)
        for o in [
            {"t": 0.4, "learn_t": True},
            {"aggr": "powermean", "p": 2.0, "learn_p": True},
            {"msg_norm": True, "learn_msg_scale": True},
            {"bias": True},
            {"num_layers": 3},
        ]
    ]
    out += [case(GENConv, *wide, edge_width=EDGE, edge_dim=EDGE), case(GENConv, WIDTH, WIDTH)]
    out += [
        case(GeneralConv, *wide, heads=2, aggr=a, directed_msg=d)
        for a, d in product(["sum", "mean", "max"], [True, False])
    ]
    out += [
        case(
            GeneralConv,
            *wide,
            heads=2,
            attention=True,
            attention_type=t,
            directed_msg=d,
            in_edge_channels=e,
            edge_width=e or 0,
        )
        for t, d, e in product(["additive", "dot_product"], [True, False], [None, EDGE])
    ]
    out += [
        case(GeneralConv, WIDTH, WIDTH, l2_normalize=True),
        case(GeneralConv, WIDTH, WIDTH, skip_linear=True),
    ]
    out += [
        case(EdgeConv, lambda: network(2 * WIDTH), aggr=a) for a in ("max", "sum", "mean", "min")
    ]
    out += [
        case(EdgeConv, lambda: nn.Linear(2 * WIDTH, OUT)),
        case(EdgeConv, lambda: MLP([2 * WIDTH, 5, OUT], norm=None, act="tanh")),
        case(EdgeConv, lambda: MLP([2 * WIDTH, 5, OUT], act="tanh", plain_last=False)),
    ]
    out += [case(FiLMConv, *wide, aggr=a, act=nn.Tanh()) for a in ("mean", "sum", "max", "min")]
    out += [
        case(FiLMConv, *wide, act=None),
        case(FiLMConv, *wide),
        case(FiLMConv, *wide, num_relations=2, act=nn.Tanh()),
        case(FiLMConv, *wide, num_relations=2, nn=lambda: network(WIDTH, 2 * OUT), act=nn.Tanh()),
    ]
    out += [
        case(ResGatedGraphConv, *wide, **o)
        for o in [
            *ends,
            {"aggr": "max"},
            {"root_weight": False},
            {"bias": False},
            {"act": nn.Tanh()},
        ]
    ]
    out += [
        case(ResGatedGraphConv, *wide, edge_width=EDGE, edge_dim=EDGE, **o)
        for o in [{}, {"act": nn.Tanh()}]
    ]
    heads = [*ends, {"heads": 3}, {"heads": 2, "concat": False}, {"bias": False}]
    alone = {"add_self_loops": False}
    for cls in (GATConv, GATv2Conv):
        out += [
            case(cls, *wide, **o)
            for o in [*heads, alone, {"residual": True}, {"negative_slope": 0.5}]
        ]
        out += [
            case(cls, *wide, heads=2, edge_width=EDGE, edge_dim=EDGE, **o)
            for o in [
                {},
                alone,
                *({"fill_value": f} for f in (0.3, "add", "max", "min", "mul", torch.ones(EDGE))),
            ]
        ]
    out += [case(GATConv, (WIDTH, WIDTH), OUT), case(GATv2Conv, *wide, share_weights=True)]
    out += [
        case(SuperGATConv, *wide, attention_type=t, **o)
        for t, o in product(["MX", "SD"], [{}, {"heads": 3}, alone])
    ]
    out += [case(SuperGATConv, *wide, heads=2, concat=False)]
    out += [
        case(TransformerConv, *wide, **o)
        for o in [*heads, {"beta": True}, {"root_weight": False, "beta": True}]
    ]
    out += [case(TransformerConv, *wide, heads=2, beta=True, concat=False)]
    out += [case(TransformerConv, *wide, heads=2, edge_width=EDGE, edge_dim=EDGE)]
    out += [case(BiasedTransformerConv, *wide, heads=2)]
    out += [case(BiasedTransformerConv, *wide, heads=2, edge_width=EDGE, edge_dim=EDGE)]
    out += [case(AGNNConv, **o) for o in [*ends, alone, {"requires_grad": False}]]
    out += [case(FAConv, WIDTH, **o) for o in [*ends, alone, {"eps": 0.0}]]
    bases = [{}, {"num_bases": 3}, {"num_blocks": 2}, {"root_weight": False}, {"bias": False}]
    out += [
        case(RGCNConv, *wide, TYPES, aggr=a, **o) for a, o in product(["mean", "sum", "max"], bases)
    ]
    out += [
        case(FastRGCNConv, *wide, TYPES, aggr=a, **o) for a, o in product(["mean", "sum"], bases)
    ]
    ways = product(
        ["across-relation", "within-relation"],
        [("additive-self-attention", 1), ("multiplicative-self-attention", 2)],
        [None, "additive", "scaled", "f-additive", "f-scaled"],
    )
    out += [
        case(
            RGATConv,
            *wide,
            TYPES,
            heads=2,
            attention_mechanism=way,
            attention_mode=mode,
            dim=dim,
            mod=mod,
        )
        for way, (mode, dim), mod in ways
    ]
    out += [
        case(RGATConv, *wide, TYPES, heads=2, **o)
        for o in [
            {"concat": False},
            {"num_bases": 3},
            {"num_blocks": 2},
            {"bias": False},
            {"aggr": "mean"},
        ]
    ]
    for cls in (GATConv, GATv2Conv):
        out += [
            case(cls, *wide, edge_width=EDGE, edge_dim=EDGE, fill_value=f, flow="target_to_source")
            for f in ("mean", "max")
        ]
    turned = {c.cls for c in out if "target_to_source" in c.options}
    first = {c.cls: c for c in reversed(out)}
    return out + [_turned(first[cls]) for cls in first if cls not in turned]


def _turned(case: Case) -> Case:
    """The same with messages from targets to sources, for classes that take no `flow`."""

    def build() -> MessagePassing:
        conv = case.build()
        conv.flow = "target_to_source"
        return conv

    return replace(case, options=f"{case.options}, turned", build=build)


CASES = _cases()


def edge_features(case: Case, num_relations: int, dtype: torch.dtype) -> Tensor | None:
    if not case.edge_width:
        return None
    return (
        torch.linspace(-1, 1, num_relations * case.edge_width, dtype=dtype)
        .view(num_relations, -1)
        .sin()
    )


def run(
    conv: MessagePassing, x: Tensor, grid: Grid, relations: tuple, engine: str, edge_attr=None
) -> Tensor:
    return propagate(conv, x, grid, relations, 0.5 * x.detach(), edge_attr=edge_attr, engine=engine)


def run_directly(
    conv: MessagePassing, x: Tensor, grid: Grid, relations: tuple, _, edge_attr=None
) -> Tensor:
    """PyG without our code: the operator on a batch of graphs."""
    batch = to_data(from_tokens(x, grid), relations)
    available = {
        "edge_type": batch.edge_type,
        "x_0": 0.5 * batch.x.detach(),
        "edge_attr": None if edge_attr is None else edge_attr[batch.edge_type],
    }
    names = inspect.signature(conv.forward).parameters
    given = {name: value for name, value in available.items() if name in names}
    return conv(x=batch.x, edge_index=batch.edge_index, **given).view(*x.shape[:2], -1)


def with_gradients(
    function: Callable[..., Tensor], conv: MessagePassing, x: Tensor, *rest: Any
) -> dict[str, Tensor]:
    """An output, and the gradients of a weighted sum of it."""
    x = x.clone().requires_grad_()
    out = function(conv, x, *rest)
    weights = torch.linspace(0.5, 1.5, out.numel(), dtype=out.dtype).view_as(out).cos()
    leaves = {"x": x} | {n: p for n, p in conv.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad((out * weights).sum(), leaves.values(), allow_unused=True)
    found = {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True)
    }
    return {"output": out.detach()} | found


def assert_equal(dense: dict[str, Tensor], pyg: dict[str, Tensor], tolerance: float) -> None:
    """Equal to a tolerance, relative to each tensor's largest number."""
    assert dense.keys() == pyg.keys()
    for name, expected in pyg.items():
        assert dense[name].shape == expected.shape, name
        scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
        error = float((dense[name] - expected).abs().max()) if expected.numel() else 0.0
        assert error <= tolerance * scale, f"{name} differs by {error}"
