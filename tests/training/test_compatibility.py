"""Checkpoints of another head, or with other options of the optimizer, are refused by name."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.nn as pyg
from lightning.pytorch import Trainer
from torch import nn

from taghead import TAGHead
from taghead.errors import DataError
from taghead.training.compatibility import check_checkpoint, check_optimizers, head_differences

GATV2 = partial(pyg.GATv2Conv, heads=2, concat=False, add_self_loops=False)


def head(**options: Any) -> TAGHead:
    given = {"conv": GATV2, "encoder_layers": 1, "encoder_heads": 2, "encoder_channels": 8}
    return TAGHead(8, 3, (2, 2, 2), **{**given, **options})


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"conv": partial(GATV2, heads=2, negative_slope=0.5)}, "conv.negative_slope"),
        ({"conv": partial(GATV2, add_self_loops=True)}, "conv.add_self_loops"),
        ({"conv": partial(GATV2, aggr="max")}, "conv.aggr"),
        ({"encoder_heads": 4}, "encoder_heads"),
        ({"encoder_norm": "post"}, "encoder_norm"),
        ({"graph_activation": "relu"}, "graph_activation"),
        ({"graph_residual": False}, "graph_residual"),
        ({"readout": "frame_mean_max"}, "readout"),
        ({"relation_aggr": "mean"}, "relation_aggr"),
        ({"mode": "union", "relations": ["past_1f"]}, "mode"),
        ({"relations": ["past_2f"]}, "relations[0]"),
        ({"relations": ["past_1f", "future_1f"]}, "length of relations"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_head_computes_is_compared(options: dict, key: str) -> None:
    saved = head(relations=["past_1f"]).config()
    differences = list(head_differences(saved, head(**{"relations": ["past_1f"], **options})))
    assert key in [name for name, _, _ in differences]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"engine": "pyg", "positions_std": 1.0, "graph_dropout": 0.4}),
        ({}, {"conv": partial(GATV2, dropout=0.3, negative_slope=0.2)}),  # its default
        ({}, {"conv": partial(GATV2, aggr="sum", flow="source_to_target")}),  # of its base
        ({"conv": partial(GATV2, aggr="add")}, {}),
        ({"channels": None}, {"channels": 8}),
        ({"mode": "none"}, {"mode": "none", "conv": pyg.SAGEConv, "relations": ["past_1f"]}),
        ({"encoder_layers": 0}, {"encoder_layers": 0, "encoder_heads": 4}),
        ({"mode": "union"}, {"mode": "union", "relation_aggr": "max"}),
    ],
)
def test_what_changes_no_result_is_not(one: dict, other: dict) -> None:
    saved = head(**one).config()
    assert list(head_differences(saved, head(**other))) == []
    saved.pop("edge_dropout")  # an option that a checkpoint of before does not have
    saved.pop("relation_aggr")
    assert [name for name, _, _ in head_differences(saved, head(**one))] == []


class Task(nn.Module):
    """A module with a head where the task has it."""

    def __init__(self, head: TAGHead) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.head = head


def test_a_checkpoint_of_another_head_is_refused(tmp_path: Path) -> None:
    path, task = tmp_path / "best.ckpt", Task(head())
    config = {"head": {**head().config(), "readout": "frame_mean_max"}}
    content = {"state_dict": task.state_dict(), "video_classifier": config}
    torch.save(content, path)
    told = (
        r"best.ckpt: a checkpoint of another model: its head's readout is 'frame_mean_max', the "
        r"model's is 'mean'; --model.head.readout must be that of its run"
    )
    with pytest.raises(DataError, match=told):
        check_checkpoint(path, task)
    evil = {"class_path": "os.system", "init_args": {"command": f"touch {tmp_path}/ran"}}
    for conv in (evil, "os.system", 3, None):
        config["head"] = {**head().config(), "conv": conv}
        torch.save({**content, "video_classifier": config}, path)
        with pytest.raises(DataError, match="its head's conv"):
            check_checkpoint(path, task)
    assert not (tmp_path / "ran").exists()
    for config in (None, {}, {"head": head().config()}):
        torch.save({**content, "video_classifier": config}, path)
        check_checkpoint(path, task)


def optimizer(cls: type[torch.optim.Optimizer] = torch.optim.AdamW, **options: Any) -> Any:
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    return cls([{"params": [weight]} for weight in weights], **{"lr": 0.1, **options})


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (optimizer(lr=0.5), "learning_rate of the checkpoint's optimizer is 0.1, asked for is 0.5"),
        (optimizer(weight_decay=0.9), "weight_decay .* is 0.01, asked for is 0.9"),
        (optimizer(betas=(0.8, 0.999)), r"betas .* is \[0.9, 0.999\], asked for is \[0.8, "),
        (
            optimizer(torch.optim.Adam, weight_decay=0.01),
            "optimizer .* adamw, asked for is adam",
        ),
        (optimizer(torch.optim.SGD, weight_decay=0.01), "is .*, asked for is None"),
    ],
    ids=["rate", "decay", "betas", "adam", "sgd"],
)
@pytest.mark.parametrize("is_scheduled", [False, True])
def test_an_optimizer_with_other_options_is_refused(
    asked: Any, told: str, is_scheduled: bool
) -> None:
    saved, trainer = optimizer(), Trainer(logger=False, accelerator="cpu", barebones=True)
    if is_scheduled:
        for each in (saved, asked):
            torch.optim.lr_scheduler.LambdaLR(each, lambda step: 0.5**step)
        saved.param_groups[0]["lr"] = saved.param_groups[1]["lr"] = 1e-4  # late in the schedule
    checkpoint = {
        "optimizer_states": [saved.state_dict()],
        "lr_schedulers": [{}] if is_scheduled else [],
    }
    trainer.strategy.optimizers = [asked]
    with pytest.raises(DataError, match=told):
        check_optimizers(trainer, checkpoint)
    same = optimizer(foreach=False)
    if is_scheduled:
        torch.optim.lr_scheduler.LambdaLR(same, lambda step: 0.5**step)
    trainer.strategy.optimizers = [same]
    check_optimizers(trainer, checkpoint)
    check_optimizers(trainer, {})  # of a converted checkpoint
