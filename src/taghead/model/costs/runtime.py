"""Latency and peak memory of a computation."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile


class Latency(NamedTuple):
    """Latency in milliseconds: the median and the 95th percentile of all runs."""

    median: float
    p95: float


def latency(
    functions: list[Callable[[], object]], runs: int, device: torch.device, warmup: int = 2
) -> list[Latency]:
    """Latency of functions that run in turn, so that noise of the machine affects all equally.

    Args:
        functions: The functions.
        runs: Number of measurements of each.
        device: The device that they run on; a GPU is synchronised before the clock is read.
        warmup: Number of runs of each before the first measurement.
    """
    seconds = np.empty((len(functions), runs))
    for run in range(-warmup, runs):
        for i, function in enumerate(functions):
            start = _now(device)
            function()
            if run >= 0:
                seconds[i, run] = _now(device) - start
    median, p95 = np.percentile(1000 * seconds, (50, 95), axis=1)
    return [Latency(*both) for both in zip(median.tolist(), p95.tolist(), strict=True)]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Peak memory of a function, in bytes beyond what was allocated before.

    On a CPU it is the sum of the allocations that torch's profiler records, without the scratch
    memory of libraries.
    """
    function()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    allocated = peak = 0
    for event in sorted(_allocations(profiler), key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return peak


def _allocations(profiler: profile) -> list:
    recorded = profiler.profiler
    if recorded is None or recorded.kineto_results is None:
        raise RuntimeError("torch's profiler recorded nothing")
    events = recorded.kineto_results.events()
    return [event for event in events if event.name() == "[memory]"]
