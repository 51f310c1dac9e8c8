"""What each part of a model costs for one batch of clips."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from taghead.graph.convert import grid_of
from taghead.model.classifier import VideoClassifier
from taghead.model.costs.arithmetic import count_flops
from taghead.model.costs.measuring import Latency, latency, peak_bytes
from taghead.nn.head import TAGHead

Precision = Literal["32", "bf16-mixed", "16-mixed"]
MODEL_PARTS = ("backbone", "head", "message passing", "whole model")


@dataclass(frozen=True)
class PartCosts:
    """What one part of a model costs.

    Args:
        part: One of `MODEL_PARTS`.
        parameters: Number of trained numbers.
        flops: Floating-point operations for the batch; a multiplication and an addition are two.
            Of the head's message passing, sums, scalings and comparisons count too; elsewhere,
            products alone, as is usual.
        latency: Wall time for the batch, milliseconds.
        peak_bytes: The most memory held at once beside weights and input.
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
    """What a model costs in evaluation, by part, in the order of `MODEL_PARTS`.

    Each part runs alone, on what the part before it gave. The parts' times are those of runs in
    turn.

    Args:
        model: The model; it is set to evaluation, on the clip's device.
        clip: A batch of clips.
        precision: `32`, or one of torch's automatic mixed precisions.
        runs: How often a time is measured.

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
        ways: list[Callable[[], object]] = [
            lambda: backbone(clip),
            lambda: head(feature_map),
            lambda: head.refine(tokens, grid, all_tokens=False),
            lambda: model(clip),
        ]
        products = [count_flops(way) for way in ways]
        messages = count_flops(ways[2], arithmetic=True)
        sums = messages - products[2]
        flops = [products[0], products[1] + sums, messages, products[3] + sums]
        modules = [backbone, head, head.layers, model]
        return [
            PartCosts(part, _parameters(module), count, time, peak_bytes(way, clip.device))
            for part, module, count, time, way in zip(
                MODEL_PARTS, modules, flops, latency(ways, runs, clip.device), ways, strict=True
            )
        ]


def head_flops(head: TAGHead, feature_map: Tensor) -> int:
    """Floating-point operations of a head for a batch, counted as `PartCosts` says.

    Args:
        head: The head, in evaluation.
        feature_map: What it takes.

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
