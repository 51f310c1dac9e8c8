"""Every YAML of docs/relations.md makes a head that trains, is saved, and is read again."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from taghead import Grid, TAGHead
from taghead.graph import as_relation
from taghead.graph.relations import KINDS
from taghead.model.head_factory import HeadFactory

PAGE = (Path(__file__).parents[2] / "docs" / "relations.md").read_text()
BLOCKS = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
GRID = Grid(3, 2, 2)
SMALL = {"encoder_heads": 2, "encoder_channels": 16, "encoder_layers": 1}


def build(options: dict[str, Any]) -> TAGHead:
    """The head of a config file, as the command line makes it."""
    parser = LightningArgumentParser()
    parser.add_argument("--head", type=HeadFactory)
    head = {"class_path": "taghead.TAGHead", "init_args": {**SMALL, **options}}
    return parser.instantiate(parser.parse_object({"head": head})).head(8, 5, GRID)


OF_OPERATORS: list[dict[str, Any]] = [
    {"edge_features": "offset", "conv": {"class_path": f"torch_geometric.nn.{name}", **given}}
    for name, given in {
        "TransformerConv": {"init_args": {"heads": 2}},
        "GINEConv": {},
        "CGConv": {},
        "ResGatedGraphConv": {},
        "GENConv": {},
        "PDNConv": {"init_args": {"edge_dim": 4, "hidden_channels": 3}},
        "GMMConv": {"init_args": {"dim": 4, "kernel_size": 2}},
        "NNConv": {},
    }.items()
]


@pytest.mark.parametrize("options", [*BLOCKS, *OF_OPERATORS], ids=str)
def test_each_block(options: dict[str, Any]) -> None:
    head = build(options)
    config = head.config()
    for name, value in options.items():
        if name in ("edge_features", "positions"):
            given = value if isinstance(value, str) else value["init_args"]
            found = config[name] if isinstance(value, str) else config[name]["init_args"]
            assert found.items() >= given.items() if isinstance(found, dict) else found == given
        elif name != "conv":
            assert head._options[name] == value
    feature_map = torch.randn(2, 8, 3, 2, 2)
    head(feature_map).square().sum().backward()
    assert all(p.grad is not None for p in head.layers.parameters())
    again = TAGHead(**json.loads(json.dumps(head.config()))).eval()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(feature_map), head.eval()(feature_map))


def test_the_page_has_them_all() -> None:
    assert len(BLOCKS) == 11
    rows = re.findall(r"^\| (`.*?) \|", PAGE.partition("\n## ")[0], re.MULTILINE)
    named = {word for row in rows for word in re.findall(r"`(.*?)`", row)}
    names = [name for kind in KINDS for name in (*kind.other_names.values(), kind.name)]
    assert named == {"custom(name, function)", *(name.format("N") for name in names)}
    for row in rows[:-1]:
        for name in re.findall(r"`(.*?)`", row):
            assert as_relation(name.replace("N", "2")).name == name.replace("N", "2")
    for kind in KINDS:
        if kind.argument:
            assert f"{kind.constructor}({kind.argument}=" in PAGE
