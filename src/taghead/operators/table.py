"""The table of operators in `docs/operators.md`: `python -m taghead.operators.table`."""

from __future__ import annotations

import inspect

from torch_geometric.nn import MessagePassing

from taghead.operators.registry import KERNELS, PLAIN

INTRODUCTION = """# Operators

Every operator of PyG that can run on a grid of tokens can be used. Those of the table also have a
dense way: the same module and parameters, run as tensor algebra on `[B, T, P, C]` instead of on an
edge list. It gives the same outputs and gradients up to rounding.

`engine="auto"` takes the dense way for an operator of exactly such a class if what the table says
holds of it as it is set at the time, and PyG's own `forward` otherwise; so do classes that are not
in the table. `engine="dense"` takes the dense way or raises an error that says why it cannot.
`operators.supports(conv)` tells which it would be.
"""

CONCLUSION = """Beside these options all take `aggr` and `flow`, either direction. Edge features
are given as one row per relation (`edge_attr`); those of single edges (`edge_features`, see
[relations.md](relations.md)) go through PyG.

## Relations

Every operator of the table runs densely on every union of `intra_frame`, `time_aligned`, `past`,
`future` and `spatial_window`; with another relation among them it runs through PyG.
[relations.md](relations.md) has all relations, [algebra.md](algebra.md) tells how it is done.

## PyG's own way

Operators that run through PyG get one edge list for the batch, sorted by target and kept between
calls. PyG normalises (GCNConv and its kin) at every call. It takes
[torch-scatter](https://github.com/rusty1s/pytorch_scatter) where that is installed, as of PyG 2.8
for maxima, minima and products on a GPU; equal maxima then do not share their gradient.
"""

COLUMNS = ("operator", "options", "edge features", "dense where")
SIZES = {"self", "kwargs", "in_channels", "out_channels", "channels"}


def table() -> str:
    """The page: an introduction, what holds for all operators, and one row for each."""
    everywhere = ", ".join(rule.says for rule in PLAIN)
    lines = [
        INTRODUCTION,
        f"Of every operator it must hold that {everywhere}.",
        "",
        _row(COLUMNS),
        _row(["---"] * len(COLUMNS)),
        *(_operator(cls) for cls in sorted(KERNELS, key=lambda cls: cls.__name__.lower())),
        "",
        CONCLUSION,
    ]
    return "\n".join(lines)


def _operator(cls: type[MessagePassing]) -> str:
    kernel = KERNELS[cls]
    options = [name for name in inspect.signature(cls.__init__).parameters if name not in SIZES]
    return _row(
        [
            f"`{cls.__name__}`",
            ", ".join(f"`{name}`" for name in options),
            "yes" if kernel.edge_attr else "",
            "; ".join(rule.says for rule in kernel.rules),
        ]
    )


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(table(), end="")
