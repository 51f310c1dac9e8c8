"""A cache of what depends on sizes alone (edge lists, masks, matrices), bounded by bytes."""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")

VARIABLE = "TAGHEAD_CACHE_BYTES"
DEFAULT_BYTES = 2**30  # the edges of nine batches of 32 grids of 8x14x14, intra_frame
BYTES_PER_ENTRY = 2**12  # what the key and the objects around tensors take, from above


class SizedCache:
    """Results of functions of hashable arguments; the least recently used leave first.

    A result larger than the limit is computed at every call, with a warning. Threads may share a
    cache: of two that miss the same entry, each computes it.

    Args:
        max_bytes: Limit of the tensors' bytes, on all devices together. It can be set later.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._entries: dict[Hashable, tuple[Any, int]] = {}
        self._order: OrderedDict[int, Hashable] = OrderedDict()  # by the entry's id
        self._lock = Lock()

    def get(self, function: Callable[..., R], *args: Any) -> R:
        """The function's result for these arguments, cached by equality of both.

        It is computed outside inference mode, whose tensors no backward pass could use.
        """
        key = function, args
        entry = self._entries.get(key)
        if entry is not None:
            try:  # noqa: SIM105 - as suppress() it would take longer than the rest
                self._order.move_to_end(id(entry))
            except KeyError:  # another thread has just removed it
                pass
            return entry[0]
        with torch.inference_mode(False):
            result = function(*args)
        self._add(key, (result, bytes_of(result) + BYTES_PER_ENTRY))
        return result

    def _add(self, key: tuple, entry: tuple[Any, int]) -> None:
        if entry[1] > self.max_bytes:
            warnings.warn(
                f"{key[0].__name__}: {entry[1]} bytes are more than the cache's limit of "
                f"{self.max_bytes} and are computed at every call; set {VARIABLE} to raise it",
                stacklevel=3,
            )
            return
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = entry
            self._order[id(entry)] = key
            self.num_bytes += entry[1]
            while self.num_bytes > self.max_bytes:
                _, oldest = self._order.popitem(last=False)
                self.num_bytes -= self._entries.pop(oldest)[1]

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Removes all entries."""
        with self._lock:
            self._entries.clear()
            self._order.clear()
            self.num_bytes = 0


def bytes_of(value: Any) -> int:
    """The bytes of a tensor, of the tensors in a tuple, or of an object with `nbytes`."""
    if isinstance(value, tuple):
        return sum(map(bytes_of, value))
    return getattr(value, "nbytes", 0)


def limit_from_environment() -> int:
    """The limit that the environment variable `TAGHEAD_CACHE_BYTES` sets, or the default.

    Raises:
        ValueError: If it is not an integer of at least 0.
    """
    text = os.environ.get(VARIABLE, str(DEFAULT_BYTES))
    if not text.isdecimal():
        raise ValueError(f"{VARIABLE} must be an integer of at least 0, in bytes (got {text!r})")
    return int(text)


CACHE = SizedCache(limit_from_environment())
"""The cache of this process, for edge lists and for the constants of dense operators."""


def can_cache(device: torch.device) -> bool:
    """Whether a new tensor has values to cache: in a trace or under a fake mode it has none."""
    if torch.compiler.is_compiling():
        return False
    is_plain = not torch._C._len_torch_dispatch_stack()  # no mode replaces tensors
    return is_plain or type(torch.empty(0, device=device)) is Tensor


class derived(Generic[R]):
    """A property that is computed once, but anew in a compiler's trace.

    As `functools.cached_property`, whose lock Python 3.11's compilers cannot trace.
    """

    def __init__(self, function: Callable[[Any], R]) -> None:
        self.function = function

    def __get__(self, owner: Any, cls: type) -> R:
        value = self.function(owner)
        if not torch.compiler.is_compiling():
            owner.__dict__[self.function.__name__] = value
        return value
