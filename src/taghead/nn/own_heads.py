"""Heads of one's own: subclasses that note their arguments, for their config."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

PARTS = ("positions", "readout", "graph_norm_layer", "relation_aggr", "edge_features")
POSITIONAL = ("in_channels", "num_classes", "grid")
GIVEN = "_given"  # the attribute for the arguments of a subclass


def noting(init: Callable[..., None]) -> Callable[..., None]:
    """An `__init__` that notes its arguments, where no subclass has done so."""

    @wraps(init)
    def note(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        if GIVEN not in vars(self):
            bound = inspect.signature(init).bind(self, *args, **kwargs)
            given = dict(list(bound.arguments.items())[1:])
            for name, parameter in inspect.signature(init).parameters.items():
                if parameter.kind is parameter.VAR_KEYWORD:
                    given |= given.pop(name, {})
                if parameter.kind is parameter.VAR_POSITIONAL:
                    given |= zip(POSITIONAL, given.pop(name, ()), strict=False)
            vars(self)[GIVEN] = given
        init(self, *args, **kwargs)

    return note
