"""Costs of each part of a model for one batch of clips."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from taghead.graph.convert import grid_of
from taghead.model.classifier import VideoClassifier
from taghead.model.costs.flops import count_flops
from taghead.model.costs.runtime import Latency, latency, peak_bytes
from taghead.nn.head import TAGHead

Precision = Literal["32", "bf16-mixed", "16-mixed"]
MODEL_PARTS = ("backbone", "head", "message passing", "whole model")


@dataclass(frozen=True)
class PartCosts:
    """Costs of one part of a model.

    Args:
        part: One of `MODEL_PARTS`.
        parameters: Number of parameters.
        flops: Floating-point operations for the batch; a multiplication and an addition are two.
            Message passing includes sums, scalings and comparisons; the other parts are products
            only, as is usual.
        latency: Wall time for the batch, milliseconds.
        peak_bytes: Peak memory beside weights and input.
    """

    part: str
    parameters: int
    flops: int
    latency: Latency
    peak_bytes: int


@torch.no_grad()
def model_costs(
    model: VideoClassifier, clip: Tensor, precision: Precision = "32", runs: int = 20
) -> list[PartCosts]:
    """Costs of a model in evaluation, by part, in the order of `MODEL_PARTS`.

    Each part runs alone, on the output of the part before it. Latencies are measured in turn.

    Args:
        model: The model, on the clip's device; it is set to evaluation.
        clip: A batch of clips.
        precision: `32`, or one of torch's automatic mixed precisions.
        runs: Number of measurements of each latency.

    Shapes:
        - **clip** `[B, 3, T, H, W]`

    Raises:
        ValueError: If `precision` or `runs` breaks its rule.
    """
    if runs < 1:
        raise ValueError(f"runs must be a positive integer (got {runs})")
    backbone, head = model.eval().backbone, model.head
    with _autocast(precision, clip.device):
        feature_map = backbone(clip)
        tokens, grid = head.encode(feature_map), grid_of(feature_map)
        functions: list[Callable[[], object]] = [
            lambda: backbone(clip),
            lambda: head(feature_map),
            lambda: head.refine(tokens, grid, all_tokens=False),
            lambda: model(clip),
        ]
        products = [count_flops(function) for function in functions]
        messages = count_flops(functions[2], arithmetic=True)
        sums = messages - products[2]
        flops = [products[0], products[1] + sums, messages, products[3] + sums]
        modules = [backbone, head, head.layers, model]
        return [
            PartCosts(part, _parameters(module), count, time, peak_bytes(function, clip.device))
            for part, module, count, time, function in zip(
                MODEL_PARTS,
                modules,
                flops,
                latency(functions, runs, clip.device),
                functions,
                strict=True,
            )
        ]


def head_flops(head: TAGHead, feature_map: Tensor) -> int:
    """Floating-point operations of a head for a batch, counted as in `PartCosts`.

    Args:
        head: The head, in evaluation.
        feature_map: The backbone's output.

    Shapes:
        - **feature_map** `[B, C, T, H, W]`
    """
    with torch.no_grad():
        tokens, grid = head.encode(feature_map), grid_of(feature_map)

    def messages() -> object:
        return head.refine(tokens, grid, all_tokens=False)

    sums = count_flops(messages, arithmetic=True) - count_flops(messages)
    return count_flops(lambda: head(feature_map)) + sums


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _autocast(precision: Precision, device: torch.device) -> AbstractContextManager:
    if precision not in get_args(Precision):
        raise ValueError(
            f"precision must be one of {', '.join(get_args(Precision))} (got {precision!r})"
        )
    if precision == "32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
    return torch.autocast(device.type, dtype)
