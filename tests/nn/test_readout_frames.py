"""Readouts that keep the order of frames: what they compute, and everything that a head does."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from heads import GRID, WIDTH, make_head, make_map, small_head
from tiny import make_model
from torch import Tensor, nn

from taghead import Grid, TAGHead, VideoClassifier
from taghead.backbones import build_backbone
from taghead.explain import token_saliency
from taghead.graph import from_tokens, to_hetero_data
from taghead.model.costs import count_flops, head_flops, model_costs
from taghead.nn.frame_means import first_layer_on_frame_means
from taghead.nn.readout import Readout, build_readout, readout_component
from taghead.nn.readout.frames import resize_frames

IN_ORDER = ("last_frame", "frame_sequence", "temporal_conv", "gru", "frame_transformer")
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "last_frame": [{}],
    "frame_sequence": [{}],
    "temporal_conv": [
        {},
        {"layers": 1, "kernel": 4, "width": 6, "norm": "batch_norm", "pool": "mean"},
        {"layers": 3, "kernel": 5, "norm": None, "residual": False, "pool": "max"},
        {"causal": True, "pool": "last"},
    ],
    "gru": [
        {},
        {"layers": 2, "width": 5, "pool": "sequence"},
        {"bidirectional": False},
        {"pool": "mean"},
    ],
    "frame_transformer": [
        {},
        {"layers": 1, "heads": 2, "feed_forward": 9, "pool": "sequence"},
        {"pool": "last"},
    ],
}
CASES = [(name, options) for name, cases in OPTIONS.items() for options in cases]
IDS = [f"{name} {' '.join(map(str, options.values()))}" for name, options in CASES]


def spec(name: str, options: dict[str, Any]) -> dict[str, Any]:
    return {"class_path": name, "init_args": options}


def made(name: str, **options: Any) -> Any:
    found = build_readout(readout_component(spec(name, options)), WIDTH, GRID)
    return found.double().eval()


def means(frames: int = 3, num_clips: int = 2) -> Tensor:
    return torch.randn(num_clips, frames, WIDTH, dtype=torch.float64)


def test_the_last_frame_and_the_sequence_by_hand() -> None:
    x = torch.tensor([[[[1.0], [3.0]], [[5.0], [5.0]], [[0.0], [2.0]]]])  # [B, T, P, C]
    for name, expected in {"last_frame": [1.0], "frame_sequence": [2.0, 5.0, 1.0]}.items():
        readout = build_readout(readout_component(name), 1, GRID)
        assert readout(x).tolist() == [expected]
        assert readout.out_channels == len(expected)
    weights = build_readout(readout_component("last_frame"), 1, GRID).weights(x)
    assert weights.tolist() == [[0, 0, 0, 0, 0.5, 0.5]]


def test_other_numbers_of_frames_are_averaged_or_repeated() -> None:
    four = torch.tensor([[[1.0], [3.0], [10.0], [20.0]]])
    assert resize_frames(four, 2).flatten().tolist() == [2.0, 15.0]
    assert resize_frames(four, 8).flatten().tolist() == [1, 1, 3, 3, 10, 10, 20, 20]
    assert resize_frames(four, 4) is four


@pytest.mark.parametrize("frames", [2, 3, 4, 6])
def test_the_weights_of_a_sequence_are_its_own_matrix(frames: int) -> None:
    """The share of a frame, from the derivative of the output: it is linear."""
    readout, x = made("frame_sequence"), means(frames, 1)[:, :, None].requires_grad_()
    readout(x).sum().backward()
    shares = x.grad.sum(-1).flatten() / WIDTH / GRID.frames
    torch.testing.assert_close(readout.weights(x)[0], shares)


def test_a_temporal_convolution_by_hand() -> None:
    readout, x = made("temporal_conv", layers=1), means()
    (block,) = readout.blocks
    (norm, conv), out = (block.norm, block.conv), x.clone()
    normed = norm(x)
    for t in range(3):
        near = [(t + k - 1, conv.weight[..., k]) for k in range(3) if 0 <= t + k - 1 < 3]
        sums = torch.stack([normed[:, s] @ weight.T for s, weight in near]).sum(0) + conv.bias
        out[:, t] += nn.functional.gelu(sums)
    torch.testing.assert_close(readout.of_frames(x), out.flatten(1))


@pytest.mark.parametrize("options", OPTIONS["gru"], ids=str)
def test_the_recurrence_is_torchs_own(options: dict[str, Any]) -> None:
    readout, x = made("gru", **options), means()
    layers, directions = len(readout.cells), len(readout.cells[0])
    width = readout.cells[0][0].hidden_size
    two = directions == 2
    gru = nn.GRU(WIDTH, width, layers, batch_first=True, bidirectional=two).double()
    for i, cells in enumerate(readout.cells):
        for j, cell in enumerate(cells):
            for name, value in cell.named_parameters():
                getattr(gru, f"{name}_l{i}{'_reverse' * j}").data = value.data
    states, last = gru(x)
    pool = options.get("pool", "last")
    expected = {"last": last[-directions:].transpose(0, 1).flatten(1), "mean": states.mean(1)}
    expected["sequence"] = states.flatten(1)
    torch.testing.assert_close(readout.of_frames(x), expected[pool])


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_it_depends_on_the_order_of_frames_and_on_no_order_of_positions(
    name: str, options: dict[str, Any]
) -> None:
    readout, x = made(name, **options), torch.randn(2, 3, 4, WIDTH, dtype=torch.float64)
    out = readout(x)
    assert out.shape == (2, readout.out_channels)
    torch.testing.assert_close(readout(x[:, :, [2, 0, 3, 1]]), out)
    assert (readout(x.flip(1)) - out).abs().max() > 1e-3


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_the_head_the_graph_model_and_frame_means_give_the_same(
    name: str, options: dict[str, Any]
) -> None:
    """Also on graphs with other numbers of frames, in one batch; and gradients agree."""
    linear = {"graph_norm": None, "graph_activation": None, "conv": pyg.SAGEConv}
    head = make_head(readout=spec(name, options), **linear)
    assert first_layer_on_frame_means(head.layers, head.readout, head._runner(GRID)) == 0
    feature_map = make_map(3)
    logits = head(feature_map)
    grads = torch.autograd.grad(logits.square().sum(), list(head.parameters()), allow_unused=True)
    head.engine = "pyg"
    others = head(feature_map)
    torch.testing.assert_close(others, logits)
    for one, other in zip(
        grads,
        torch.autograd.grad(others.square().sum(), list(head.parameters()), allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    maps = [make_map(2, Grid(frames, 2, 2)) for frames in (3, 5, 2)]
    graphs = []
    for each in maps:
        grid = Grid(each.size(2), 2, 2)
        graphs += to_hetero_data(
            from_tokens(head.encode(each), grid), head.relations
        ).to_data_list()
    graphs = [graphs[i] for i in (0, 2, 4, 1, 5, 3)]  # their numbers of frames are mixed
    data = type(to_hetero_data(maps[0], head.relations)).from_data_list(graphs)
    found = head.graph_model()(data.x_dict, data.edge_index_dict, data.batch_dict, data.pos_dict)
    expected = torch.cat([head(each) for each in maps])[[0, 2, 4, 1, 5, 3]]
    torch.testing.assert_close(found, expected)


def test_frames_of_graphs_are_told_by_their_numbers() -> None:
    readout = made("frame_sequence")
    x = torch.randn(4, WIDTH, dtype=torch.float64)
    index, frame = torch.tensor([0, 0, 0, 2]), torch.tensor([7, 2, 2, 0])
    out = readout.aggregation()(x, index, dim_size=4, frame=frame)
    first = torch.stack([x[1:3].mean(0), x[0]])[None]  # frame 2, then 7
    torch.testing.assert_close(out[:1], readout.of_frames(first))
    torch.testing.assert_close(out[2:3], readout.of_frames(x[None, 3:]))
    assert not out[[1, 3]].any()  # as PyG's, a graph without tokens has zeros


@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_the_head_saves_its_options_and_takes_other_grids(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    head = small_head(readout=spec(name, options), mode="none")
    again = TAGHead(**head.config()).eval()
    again.load_state_dict(head.state_dict())
    for frames in (1, 2, 3, 7):
        feature_map = torch.randn(2, WIDTH, frames, 3, 2)
        torch.testing.assert_close(again(feature_map), head(feature_map))
        assert head(feature_map).shape == (2, 5)
    backbone = build_backbone("r2plus1d_tiny")
    head = TAGHead(backbone.channels, 5, (2, 4, 4), channels=8, readout=spec(name, options)).eval()
    VideoClassifier(backbone, head).save_pretrained(tmp_path)
    loaded = VideoClassifier.from_pretrained(tmp_path).head
    assert loaded.config() == head.config()
    feature_map = torch.randn(1, backbone.channels, 2, 4, 4)
    torch.testing.assert_close(loaded(feature_map), head(feature_map))


@pytest.mark.parametrize("name", IN_ORDER)
def test_a_head_is_compiled_whole_and_exported(name: str) -> None:
    head = TAGHead(WIDTH, 5, GRID, mode="none", readout=name).eval()
    feature_map = torch.randn(2, WIDTH, 3, 2, 2)
    expected = head(feature_map)
    torch._dynamo.reset()
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(feature_map), expected)
    exported = torch.export.export(head, (feature_map,)).module()
    torch.testing.assert_close(exported(feature_map), expected)


@pytest.mark.parametrize("name", IN_ORDER)
def test_attention_is_returned_and_rollout_or_the_reason_why_there_is_none(name: str) -> None:
    head, feature_map = make_head(readout=name), make_map()
    logits, attention = head(feature_map, return_attention=True)
    torch.testing.assert_close(logits, head(feature_map))
    assert attention.num_clips == 2
    assert attention[1].num_clips == 1
    if name in ("last_frame", "frame_sequence"):
        assert attention.no_rollout == ""
        total = attention.rollout().sum((1, 2, 3))
        torch.testing.assert_close(total, torch.ones(2, dtype=torch.float64))
    else:
        assert attention.readout is None
        for some in (attention, attention[0].detach()):
            with pytest.raises(ValueError, match=r"Readout has no weights of tokens.*saliency"):
                some.rollout()
    assert attention.flow().share.sum() == pytest.approx(1)
    assert token_saliency(head, feature_map).abs().sum() > 0


def test_a_readouts_own_error_is_no_missing_weight() -> None:
    class Broken(Readout):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2))

        def weights(self, x: Tensor) -> Tensor:
            raise ValueError("a fault of its own")

    head = small_head(readout=Broken)
    with pytest.raises(ValueError, match="a fault of its own"):
        head(torch.randn(1, WIDTH, 3, 2, 2), return_attention=True)


def test_its_operations_are_counted() -> None:
    """Multiplications and additions of matrix products, counted by hand."""
    clips, frames, width = 2, GRID.frames, WIDTH
    x = torch.randn(clips, frames, 4, width)
    conv = 2 * clips * frames * width * width * 3
    expected = {"temporal_conv": 2 * conv, "gru": 2 * 2 * clips * frames * 3 * width * 2 * width}
    for name, count in {**expected, "last_frame": 0, "frame_sequence": 0}.items():
        readout = build_readout(readout_component(name), width, GRID).eval()
        assert count_flops(lambda readout=readout: readout(x)) == count  # type: ignore[misc]
    feature_map = torch.randn(clips, width, frames, 2, 2)
    flops = {name: head_flops(small_head(readout=name), feature_map) for name in ("mean", "gru")}
    wider = 2 * clips * 5 * width  # the classifier's input is twice as wide
    assert flops["gru"] - flops["mean"] == expected["gru"] + wider


def test_costs_of_a_model_count_its_readout() -> None:
    clip = torch.randn(1, 3, 32, 112, 112)
    plain, conv = (make_model(readout=readout) for readout in ("mean", "temporal_conv"))
    head, whole = (model_costs(conv, clip, runs=1)[i] for i in (1, 3))
    before = model_costs(plain, clip, runs=1)[1]
    added = sum(p.numel() for p in conv.head.readout.parameters())
    classifier = 3 * 16 * 2 + 3 * 16 * 5  # norm and linear layer of 3 more frames
    assert head.parameters == before.parameters + added + classifier
    assert head.flops > before.flops
    assert whole.parameters > head.parameters


@pytest.mark.parametrize(
    "readout", ["last_frame", spec("temporal_conv", {"causal": True})], ids=str
)
def test_no_later_frame_has_an_influence_where_all_is_causal(readout: Any) -> None:
    """Relations of the past, a causal readout, and no Transformer: frame by frame."""
    grid = Grid(6, 2, 2)
    relations = ("intra_frame", "past_3f")
    head = TAGHead(WIDTH, 5, grid, relations=relations, readout=readout, graph_layers=2)
    head = head.double().eval()
    feature_map = make_map(2, grid)

    def each_frame(feature_map: Tensor) -> Tensor:
        x = head.refine(head.encode(feature_map), grid)
        x = x.unflatten(1, (grid.frames, -1)).mean(2)
        return head.readout.each_frame(x) if readout != "last_frame" else x

    before = each_frame(feature_map)
    for t in range(grid.frames):
        changed = feature_map.clone()
        changed[:, :, t + 1 :] = torch.randn_like(changed[:, :, t + 1 :])
        assert torch.equal(each_frame(changed)[:, : t + 1], before[:, : t + 1])
        changed[:, :, t] = torch.randn_like(changed[:, :, t])
        assert not torch.equal(each_frame(changed)[:, t], before[:, t])


ERRORS: list[tuple[str, dict[str, Any], str]] = [
    ("temporal_conv", {"layers": 0}, r"layers must be a positive integer \(got 0\)"),
    ("temporal_conv", {"kernel": 2.5}, r"kernel must be a positive integer \(got 2.5\)"),
    ("temporal_conv", {"norm": "group"}, r"norm must be one of layer_norm, .*\(got 'group'\)"),
    ("gru", {"pool": "sum"}, r"pool must be one of sequence, mean, max, last \(got 'sum'\)"),
    ("frame_transformer", {"heads": 3}, r"heads must divide the width 8 \(got 3\)"),
    ("gru", {"depth": 2}, r"GRUReadout has no option 'depth'; it has channels, grid, layers"),
]


@pytest.mark.parametrize(("name", "options", "message"), ERRORS, ids=[e[2][:20] for e in ERRORS])
def test_options_that_break_a_rule(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"^readout: .*{message}") as found:
        small_head(readout=spec(name, options))
    assert "\n" not in str(found.value)


def test_heads_of_before_have_the_same_parameters() -> None:
    for name, extra in {"mean": [], "attention": ["gate.weight", "gate.bias"]}.items():
        torch.manual_seed(0)
        head = small_head(readout=name, mode="none", encoder_layers=0)
        assert [k for k in head.state_dict() if k.startswith("readout")] == [
            f"readout.{key}" for key in extra
        ]
