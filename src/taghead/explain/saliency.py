"""Saliency of edges and tokens: gradients of a class's logit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch_geometric.explain.algorithm.utils import set_masks
from torch_geometric.nn import MessagePassing

from taghead.attention.weights import in_evaluation
from taghead.explain.edge_masks import maskable
from taghead.graph.convert import from_tokens, grid_of, to_hetero_data
from taghead.nn.graph_model import GraphModel
from taghead.nn.message_passing import TypedOperator

if TYPE_CHECKING:
    from taghead.nn.head import TAGHead

Target = int | Tensor | None
EdgeTensors = dict[tuple[str, str, str], Tensor]


def edge_saliency(head: TAGHead, feature_map: Tensor, target: Target = None) -> dict[str, Tensor]:
    """Gradient of a class's logit with respect to a factor of 1 on each edge's messages.

    To first order it is the decrease of the logit if the edge's messages are removed in all layers,
    with every operator's softmax unchanged.

    Args:
        head: The head.
        feature_map: A backbone's output.
        target: The class, one for all clips or one for each; the predicted one if not given.

    Shapes:
        - **feature_map** `[B, C, T, H, W]`
        - **output** `[B*E]` for each relation's name, signed, in the order of the batch's edges

    Raises:
        ValueError: If an operator does not send one message along each edge.
    """
    grid = grid_of(feature_map)
    with in_evaluation(head), torch.enable_grad():
        tokens = head.encode(feature_map.detach()).detach()
        graphs = to_hetero_data(from_tokens(tokens, grid), head.relations)
        edges: EdgeTensors = {r: graphs[r].edge_index for r in head.relations}
        masks: EdgeTensors = {
            r: tokens.new_ones(e.size(1)).requires_grad_() for r, e in edges.items()
        }
        model = head.graph_model()
        with edge_masks(model, masks, edges):
            logits = model(
                {"token": graphs["token"].x},
                edges,
                {"token": graphs["token"].batch},
                {"token": graphs["token"].pos},
            )
        score = logits.gather(1, target_classes(logits, target).unsqueeze(1)).sum()
        found = torch.autograd.grad(score, list(masks.values()), materialize_grads=True)
    return {relation.name: grad for relation, grad in zip(head.relations, found, strict=True)}


def token_saliency(head: TAGHead, feature_map: Tensor, target: Target = None) -> Tensor:
    """Gradient times input of a class's logit at each token, summed over channels.

    To first order it is the contribution of each location of the feature map to the logit.

    Args:
        head: The head.
        feature_map: A backbone's output.
        target: The class, one for all clips or one for each; the predicted one if not given.

    Shapes:
        - **feature_map** `[B, C, T, H, W]`
        - **output** `[B, T, H, W]`, signed
    """
    with in_evaluation(head), torch.enable_grad():
        x = feature_map.detach().requires_grad_()
        logits = head(x)
        score = logits.gather(1, target_classes(logits, target).unsqueeze(1)).sum()
        (grad,) = torch.autograd.grad(score, x)
    return (grad * x.detach()).sum(1)


def target_classes(logits: Tensor, target: Target) -> Tensor:
    """The target class of each clip, `[B]`; the predicted one if not given.

    Raises:
        ValueError: If a target is not one of the K classes, or they are not as many as the clips.
    """
    if target is None:
        return logits.argmax(1)
    num_clips, num_classes = logits.shape
    found = torch.as_tensor(target, device=logits.device).long()
    found = found.expand(num_clips) if found.dim() == 0 else found
    if found.shape != (num_clips,) or found.min() < 0 or found.max() >= num_classes:
        raise ValueError(
            f"target must be a class below {num_classes}, or one for each of {num_clips} clips "
            f"(got {target})"
        )
    return found


@contextmanager
def edge_masks(
    model: GraphModel,
    masks: EdgeTensors,
    edges: EdgeTensors,
) -> Iterator[None]:
    """Multiplies the messages of a graph model's operators by masks, as PyG's explainers do.

    Args:
        model: The model.
        masks: A factor for each edge of each relation, `[E]`.
        edges: The edges that the model runs on, `[2, E]`.

    Raises:
        ValueError: If an operator does not send one message along each edge.
    """
    try:
        with maskable(model):
            _set_masks(model, masks, edges)
            yield
    except AssertionError as error:
        names = {type(m).__name__ for m in model.layers.modules() if isinstance(m, MessagePassing)}
        raise ValueError(
            f"{', '.join(sorted(names))}: edges can be masked only where an operator sends one "
            f"message along each"
        ) from error


def _set_masks(model: GraphModel, masks: EdgeTensors, edges: EdgeTensors) -> None:
    """Sets the mask of each layer's operators."""
    for layer in model.layers:
        typed = cast(TypedOperator, layer.convs)
        if typed.convs is None:
            mask = torch.cat([masks[r] for r in typed.relations])
            edge_index = torch.cat([edges[r] for r in typed.relations], dim=1)
            set_masks(typed.conv, mask, edge_index, apply_sigmoid=False)
        else:
            for relation in typed.relations:
                conv = typed.convs[relation]
                set_masks(conv, masks[relation], edges[relation], apply_sigmoid=False)
