"""Over-smoothing of a head, layer by layer, and what each relation adds to a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from taghead.attention.weights import in_evaluation
from taghead.explain.token_measures import (
    dirichlet_energy,
    effective_rank,
    mean_cosine_distance,
    stable_rank,
)
from taghead.graph.convert import grid_of
from taghead.graph.edge_features import EdgeFeatures
from taghead.graph.edge_index import clip_edges
from taghead.graph.relations import Relation
from taghead.nn.runner import GridRunner, Runner

if TYPE_CHECKING:
    from taghead.nn.head import TAGHead

UNION = "union"  # all relations' edges together
TOKEN_COLUMNS = (
    "stage",
    "mean_cosine_distance",
    "effective_rank",
    "stable_rank",
    "token_norm",
)
EDGE_COLUMNS = (
    "stage",
    "relation",
    "dirichlet_energy",
    "normalized_dirichlet_energy",
    "mean_cosine_distance",
)
ADDED_COLUMNS = ("layer", "relation", "relative_norm", "cosine", "logit_change")


class Smoothing(NamedTuple):
    """Over-smoothing of a head on clips: three tables, whose values are means over the clips.

    A stage is `input` (the projected tokens with positions), `transformer` (if the head has one),
    `layer_0`, ... and `jumping_knowledge` (if the head has it).

    Args:
        tokens: For each stage `mean_cosine_distance` over all pairs of tokens, `effective_rank`,
            `stable_rank`, and `token_norm`, the root mean square norm of a token.
        edges: For each stage and relation, and for the `union` of all, `dirichlet_energy`,
            `normalized_dirichlet_energy` and `mean_cosine_distance` of neighbours. Empty in mode
            `none`.
        added: For each layer and relation `relative_norm`, the norm of the relation's part of the
            layer's message passing divided by that of the layer's input; their `cosine`; and
            `logit_change`, the mean absolute change of the logits if the part is set to zero. The
            part is the output of the relation's operator as it is aggregated: divided by the number
            of relations for `mean`, in its own channels for `cat`. In the modes `union` and
            `edge_type` one operator runs on all edges: relations have no parts of their own, and
            the one row of a layer is the `union`'s.
    """

    tokens: pd.DataFrame
    edges: pd.DataFrame
    added: pd.DataFrame

    @property
    def is_separable(self) -> bool:
        """Whether relations have parts of their own in a layer."""
        return UNION not in set(self.added.relation)


@torch.no_grad()
def smoothing(head: TAGHead, feature_map: Tensor) -> Smoothing:
    """Over-smoothing of a head's tokens after each stage, and what each relation adds.

    The head runs in evaluation mode, without gradients, and is left as it was. The measures are
    those of :mod:`~taghead.explain.token_measures`, in double precision.

    Args:
        head: The head, of any mode and operators.
        feature_map: A backbone's output.

    Shapes:
        - **feature_map** `[B, C, T, H, W]`

    Raises:
        ValueError: If there is no clip.
    """
    if not feature_map.size(0):
        raise ValueError("feature_map must hold at least one clip (got 0)")
    grid = grid_of(feature_map)
    with in_evaluation(head):
        passed = _Pass(head, feature_map)
        stages = passed.stages
        added = [row for i in range(len(head.layers)) for row in passed.added(i)]
    edges: dict[str, Tensor] = {}
    if len(head.layers):
        edges = {r.name: clip_edges(passed.x_0, grid, r).cpu() for r in head.relations}
        edges = {UNION: torch.cat(list(edges.values()), dim=2), **edges}
    stages = {name: x.cpu().double() for name, x in stages.items()}
    token_rows = [_mean(name, _token_rows(x)) for name, x in stages.items()]
    edge_rows = [
        _mean(name, _edge_rows(x, of_clips), relation)
        for name, x in stages.items()
        for relation, of_clips in edges.items()
    ]
    return Smoothing(
        pd.DataFrame(token_rows, columns=TOKEN_COLUMNS),
        pd.DataFrame(edge_rows, columns=EDGE_COLUMNS),
        pd.DataFrame(added, columns=ADDED_COLUMNS),
    )


def _token_rows(x: Tensor) -> list[list[float]]:
    """The measures of each clip's tokens, `[B, N, C]`."""
    return [
        [
            mean_cosine_distance(tokens),
            effective_rank(tokens),
            stable_rank(tokens),
            float(tokens.square().sum(1).mean().sqrt()),
        ]
        for tokens in x
    ]


def _edge_rows(x: Tensor, edges: Tensor) -> list[list[float]]:
    """The measures of each clip's tokens on its edges, `[B, N, C]` and `[B, 2, E]`."""
    return [
        [
            dirichlet_energy(tokens, edge_index),
            dirichlet_energy(tokens, edge_index, normalized=True),
            mean_cosine_distance(tokens, edge_index),
        ]
        for tokens, edge_index in zip(x, edges, strict=True)
    ]


def _mean(stage: str, rows: list[list[float]], *names: str) -> tuple[Any, ...]:
    means = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    return (stage, *names, *means)


class _Pass:
    """A head's forward pass on all tokens, stage by stage."""

    def __init__(self, head: TAGHead, feature_map: Tensor) -> None:
        self._head = head
        self._grid = grid_of(feature_map)
        self.stages = {"input": head.embed(feature_map)}
        self.x_0 = head.encoder(self.stages["input"])
        if not isinstance(head.encoder, nn.Identity):
            self.stages["transformer"] = self.x_0
        self._inputs, self._outputs, self._parts = [self.x_0], [], []  # type: ignore[var-annotated]
        for i, layer in enumerate(head.layers):
            runner = _OperatorOutputs(self._runner())
            out = layer(self._inputs[i], self.x_0, runner)
            self.stages[f"layer_{i}"] = out
            self._inputs.append(out)
            self._parts.append(runner.outputs)
        if head.jump is not None:
            self.stages["jumping_knowledge"] = head.jump(self._inputs[1:])
        self.logits = self._classify(list(self.stages.values())[-1])

    def added(self, index: int) -> list[tuple[Any, ...]]:
        """The rows of one layer: what each relation adds to it."""
        convs: Any = self._head.layers[index].convs
        names = [UNION] if convs.convs is None else [r.name for r in convs.relations]
        x = self._inputs[index].double()
        rows = []
        for k, name in enumerate(names):
            part = _in_place(self._parts[index][k].double(), convs.aggr, k, len(names))
            norms = x.flatten(1).norm(dim=1), part.flatten(1).norm(dim=1)
            tiny = torch.finfo(torch.float64).tiny
            relative = (norms[1] / norms[0].clamp(min=tiny)).mean()
            product = (x * part).flatten(1).sum(1)
            cosine = (product / (norms[0] * norms[1]).clamp(min=tiny)).mean()
            change = (self._without(index, k) - self.logits).abs().mean()
            rows.append((index, name, float(relative), float(cosine), float(change)))
        return rows

    def _without(self, index: int, part: int) -> Tensor:
        """The logits if one operator of a layer gives zeros."""
        outputs = self._inputs[1 : index + 1]
        x = self._inputs[index]
        for i, layer in enumerate(self._head.layers):
            if i < index:
                continue
            runner = _OperatorOutputs(self._runner(), part if i == index else None)
            x = layer(x, self.x_0, runner)
            outputs = [*outputs, x]
        return self._classify(x if self._head.jump is None else self._head.jump(outputs))

    def _classify(self, x: Tensor) -> Tensor:
        return self._head.classifier(self._head.readout(x.unflatten(1, (self._grid.frames, -1))))

    def _runner(self) -> GridRunner:
        return GridRunner(self._grid, self._head.engine)


class _OperatorOutputs(Runner):
    """A runner that keeps the outputs of one layer's operators, and can set one to zero.

    Args:
        runner: Runs the operators.
        zeroed: The index of the operator whose output is set to zero, if any.
    """

    def __init__(self, runner: Runner, zeroed: int | None = None) -> None:
        self._runner = runner
        self._zeroed = zeroed
        self.outputs: list[Tensor] = []

    def __call__(
        self,
        conv: nn.Module,
        x: Tensor,
        relations: Sequence[Relation],
        x_0: Tensor,
        features: EdgeFeatures | None = None,
    ) -> Tensor:
        out = self._runner(conv, x, relations, x_0, features)
        if self._zeroed == len(self.outputs):
            out = torch.zeros_like(out)
        self.outputs.append(out)
        return out

    def batch_of(self, x: Tensor) -> tuple[Tensor, int]:
        return self._runner.batch_of(x)


def _in_place(out: Tensor, aggr: str, index: int, count: int) -> Tensor:
    """An operator's output as its layer adds it: a share of the mean, or in its own channels."""
    if count == 1:
        return out
    if aggr == "mean":
        return out / count
    if aggr == "cat":
        width = out.size(-1)
        padded = out.new_zeros(*out.shape[:-1], width * count)
        padded[..., index * width : (index + 1) * width] = out
        return padded
    return out
