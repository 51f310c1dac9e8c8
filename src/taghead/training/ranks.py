"""What the processes of one training tell each other."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import distributed

T = TypeVar("T")


def anywhere(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether a flag is set in any process; all must ask at the same point.

    Args:
        flag: This process's flag.
        device: Where the processes' messages are, such as a GPU with NCCL.
    """
    if not _several():
        return flag
    flags = torch.tensor(int(flag), device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags)


def everywhere(value: T) -> list[T]:
    """The values of all processes, in the order of their ranks; all must ask at the same point.

    Args:
        value: This process's value.
    """
    if not _several():
        return [value]
    values: list[T] = [value] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def _several() -> bool:
    return (
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )
