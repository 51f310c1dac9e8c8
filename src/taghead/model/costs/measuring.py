"""Time and memory of a computation."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile


class Latency(NamedTuple):
    """How long a computation takes, in milliseconds: half of the runs take no longer than the
    median, 95% of them no longer than `p95`."""

    median: float
    p95: float


def latency(
    ways: list[Callable[[], object]], runs: int, device: torch.device, warmup: int = 2
) -> list[Latency]:
    """Wall time of several computations, run in turn, so that a slow moment hits all alike.

    Args:
        ways: What to compute.
        runs: How often each is measured.
        device: Where it runs: a GPU has finished when the clock stops.
        warmup: How often each runs before.
    """
    seconds = np.empty((len(ways), runs))
    for run in range(-warmup, runs):
        for number, way in enumerate(ways):
            start = _now(device)
            way()
            if run >= 0:
                seconds[number, run] = _now(device) - start
    median, p95 = np.percentile(1000 * seconds, (50, 95), axis=1)
    return [Latency(*both) for both in zip(median.tolist(), p95.tolist(), strict=True)]


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_bytes(way: Callable[[], object], device: torch.device) -> int:
    """The most memory that a way holds at once beyond what was held before.

    On a CPU it is counted from the allocations that torch's profiler records; scratch space that a
    library takes elsewhere is not in it.
    """
    way()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        way()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        way()
    held = peak = 0
    for event in sorted(_allocations(profiler), key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def _allocations(profiler: profile) -> list:
    recorded = profiler.profiler
    if recorded is None or recorded.kineto_results is None:
        raise RuntimeError("torch's profiler recorded nothing")
    events = recorded.kineto_results.events()
    return [event for event in events if event.name() == "[memory]"]
