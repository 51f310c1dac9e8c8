"""Runs a GraphGym config on a feature cache:

python experiments/graphgym/run.py --cfg experiments/graphgym/gps.yml dataset.dir data/features/NAME
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch_geometric.data import Batch, Data, Dataset
from torch_geometric.graphgym import register
from torch_geometric.graphgym.cmd_args import parse_args
from torch_geometric.graphgym.config import cfg, load_cfg, set_cfg
from torch_geometric.graphgym.model_builder import GraphGymModule, create_model
from torch_geometric.graphgym.train import GraphGymDataModule, train
from torch_geometric.nn import GPSConv, SAGEConv

from taghead.features import FeatureCache, TokenGraphs

SPLITS = ("train", "val", "test")


class AllSplits(Dataset):
    """The graphs of all splits, one split after the other, with the indices GraphGym asks for.

    Args:
        splits: The graphs of `train`, `val` and `test`.
    """

    def __init__(self, splits: list[TokenGraphs]) -> None:
        super().__init__()
        self.splits = splits
        sizes = [len(split) for split in splits]
        self.locations = [(s, i) for s, size in enumerate(sizes) for i in range(size)]
        indices = torch.arange(len(self.locations)).split(sizes)
        graph_index = {f"{name}_graph_index": i for name, i in zip(SPLITS, indices, strict=True)}
        labels = torch.cat([split.labels for split in splits])
        self._data = Data(x=splits[0][0].x, y=labels, **graph_index)

    @property
    def data(self) -> Data:
        """What GraphGym reads sizes and splits from."""
        return self._data

    def len(self) -> int:
        return len(self.locations)

    def get(self, idx: int) -> Data:
        split, index = self.locations[idx]
        return self.splits[split][index]


class GPSLayer(nn.Module):
    """PyG's GPS layer, with GraphSAGE as its message passing.

    Args:
        layer_config: GraphGym's options of a layer.
    """

    def __init__(self, layer_config: Any, **options: Any) -> None:
        super().__init__()
        width = layer_config.dim_out
        self.conv = GPSConv(width, SAGEConv(width, width), heads=cfg.gnn.att_heads)

    def forward(self, batch: Batch) -> Batch:
        batch.x = self.conv(batch.x, batch.edge_index, batch.batch)
        return batch


def add_options(config: Any) -> None:
    """Adds the option `dataset.relations`."""
    config.dataset.relations = ["intra_frame", "past_1f", "future_1f"]


def load(format: str, name: str, dataset_dir: str) -> AllSplits | None:
    """The dataset of the format `taghead`: a feature cache in `dataset.dir`."""
    if format != "taghead":
        return None
    cache = FeatureCache(dataset_dir)
    return AllSplits([TokenGraphs(cache, split, cfg.dataset.relations) for split in SPLITS])


@torch.no_grad()
def accuracy(model: GraphGymModule, loader: Any) -> float:
    """The fraction of graphs whose class is predicted."""
    model.eval()
    right = [pred.argmax(dim=1) == true for pred, true in map(model, loader)]
    return float(torch.cat(right).float().mean())


def register_all() -> None:
    """Tells GraphGym of the dataset, its option and the layer."""
    register.config_dict.setdefault("taghead", add_options)
    register.loader_dict.setdefault("taghead", load)
    register.layer_dict.setdefault("gps", GPSLayer)
    set_cfg(cfg)


def main(args: Any) -> dict[str, float]:
    """Trains and tests; returns the accuracy on each split."""
    register_all()
    load_cfg(cfg, args)
    torch.set_num_threads(cfg.num_threads)
    torch.manual_seed(cfg.seed)
    data = GraphGymDataModule()
    model = create_model()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    train(model, data, logger=False, trainer_config=quiet)
    return {name: accuracy(model, each) for name, each in zip(SPLITS, data.loaders, strict=True)}


if __name__ == "__main__":
    for split, value in main(parse_args()).items():
        print(f"{split}: {value:.3f}")
