"""Every operator that PyG exports, in every mode and by both engines: a table of the docs.

`python tests/operators/test_every_operator.py` prints it.
"""

import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.nn import conv

from taghead import TAGHead
from taghead.operators import supports

PAGE = Path(__file__).parents[2] / "docs/operators.md"
BEGIN, END = "<!-- every operator: begin -->", "<!-- every operator: end -->"
MODES = ("per_relation", "union", "edge_type")
FEATURES = ("none", "offset")
NAMES = [name for name in conv.__all__ if name != "MessagePassing"]
PACKAGES = {
    "CuGraph": "pylibcugraphops",
    "PANConv": "torch_sparse",
    "SplineConv": "pyg_lib",
}  # operators that need one
SAGE_PATH = {"class_path": "torch_geometric.nn.SAGEConv"}
RELATIONS = ("intra_frame", "past_3f", "future_3f")


def linear(*widths: int) -> dict[str, Any]:
    names = ("in_features", "out_features")
    return {"class_path": "torch.nn.Linear", "init_args": dict(zip(names, widths, strict=True))}


OPTIONS: dict[str, dict[str, Any]] = {
    "APPNP": {"K": 2, "alpha": 0.1},
    "ChebConv": {"K": 2},
    "DirGNNConv": {"conv": SAGE_PATH},
    "GatedGraphConv": {"num_layers": 2},
    "GCN2Conv": {"alpha": 0.1, "theta": 0.5},
    "GMMConv": {"kernel_size": 2},
    "GPSConv": {"conv": SAGE_PATH, "heads": 2},
    "HEATConv": {"edge_type_emb_dim": 2, "edge_attr_emb_dim": 2},
    "HeteroConv": {"convs": dict.fromkeys(RELATIONS, SAGE_PATH)},
    "MixHopConv": {"powers": [1]},
    "PANConv": {"filter_size": 2},
    "PDNConv": {"hidden_channels": 4},
    "PNAConv": {"aggregators": ["mean", "max"], "scalers": ["identity", "amplification"]},
    "PointGNNConv": {"mlp_h": linear(8, 3), "mlp_f": linear(11, 8), "mlp_g": linear(8, 8)},
    "PointNetConv": {"global_nn": linear(11, 8)},
    "SignedConv": {"first_aggr": True},
    "SplineConv": {"dim": 4, "kernel_size": 2},
    "SSGConv": {"alpha": 0.1},
}
"""What operators must be told beside what the head fills in."""


@cache
def runs(name: str, mode: str, features: str) -> tuple[str, float]:
    """The engines that run an operator, or the reason why none does; and their difference."""
    spec = {"class_path": name, "init_args": OPTIONS.get(name, {})}
    torch.manual_seed(0)
    try:
        options: dict[str, Any] = {"conv": spec, "mode": mode, "edge_features": features}
        head = TAGHead(8, 5, (3, 2, 2), **options).double().eval()
    except ValueError as error:
        return str(error), 0.0
    for key, parameter in head.named_parameters():
        if key.endswith("l2"):  # RGATConv leaves it uninitialised
            torch.nn.init.constant_(parameter, 0.3)
    feature_map = torch.randn(2, 8, 3, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        logits = head(feature_map)
        head.engine = "pyg"
        difference = (head(feature_map) - logits).abs().max().item()
    (operator, *_) = head.layers[0].convs.operators()
    is_dense = supports(operator)[0]
    return "dense, pyg" if is_dense else "pyg", difference


RUNS = ("dense, pyg", "pyg")


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_alike_by_both_engines_or_is_refused_with_a_reason(name: str) -> None:
    for mode in MODES:
        for features in FEATURES:
            how, difference = runs(name, mode, features)
            assert difference < 1e-10, (mode, features)
            if how not in RUNS:
                assert name in how or "edge_type" in how, how
                assert how.count("\n") < 3, how
                assert not re.search(r": $|KeyError|object has no attribute", how), how


def row(name: str) -> str:
    cells, reasons = [], []
    for features in FEATURES:
        for mode in MODES:
            how, _ = runs(name, mode, features)
            cells.append(how if how in RUNS else "")
            if how not in RUNS:
                reasons.append(short(how))
    without = reasons[0] if not any(cells[:3]) else ""
    options = ", ".join(f"`{option}`" for option in OPTIONS.get(name, {}))
    is_offset = next((cell for cell in cells[3:] if cell), "")
    return f"| `{name}` | {options} | {' | '.join(cells[:3])} | {is_offset} | {without} |"


def short(reason: str) -> str:
    """A reason in the table: the first clause, without the operator's printed form."""
    reason = re.split(r"; operators that do|\(got <class", reason)[0]
    return " ".join(reason.replace("|", "/").split())[:130].strip()


def table() -> str:
    head = ["operator", "options given", *(f"`{mode}`" for mode in MODES), "`offset`", "refused as"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    return "\n".join([*lines, *map(row, sorted(NAMES, key=str.lower))])


def test_the_committed_table_is_current() -> None:
    committed = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    current = table().splitlines()
    installed = [p for p, module in PACKAGES.items() if importlib.util.find_spec(module)]
    for mine, theirs in zip(current, committed, strict=True):
        if not any(package in mine for package in installed):
            assert mine == theirs


if __name__ == "__main__":
    print(table())
