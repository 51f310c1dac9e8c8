"""Edge masks of PyG's explainers: taken by every operator of a head, and removed without trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch_geometric.explain.algorithm.utils import clear_masks
from torch_geometric.nn import FiLMConv, MessagePassing, RGCNConv


@contextmanager
def maskable(model: nn.Module) -> Iterator[None]:
    """Lets a model's operators take edge masks that they do not take in PyG; leaves no mask behind.

    RGCNConv and FiLMConv send the messages of one edge type after another: each call takes the
    mask's entries of its edges. A subclass of another operator (FastRGCNConv) is run with its own
    arguments where PyG would run it with those of its base.

    Args:
        model: The model.
    """
    remove_masks(model)  # of an explainer that ran before
    convs: list[Any] = [part for part in model.modules() if isinstance(part, MessagePassing)]
    classes = dict.fromkeys(type(conv) for conv in convs)
    before: dict[Any, Any] = {cls: vars(cls).get("_orig_propagate") for cls in classes}
    typed = [_TypedMask(conv) for conv in convs if isinstance(conv, RGCNConv | FiLMConv)]
    try:
        for cls, found in before.items():
            if found is not None:
                cls._orig_propagate = _own_propagate(cls)
        yield
    finally:
        for cls, found in before.items():
            if found is not None:
                cls._orig_propagate = found
        for mask in typed:
            mask.remove()
        remove_masks(model)


def remove_masks(model: nn.Module) -> None:
    """Takes edge masks off a model's operators, as if none had been set.

    PyG's `clear_masks` leaves an attribute behind that can hold parameters alone; another mask
    would be detached to become one, and get no gradient. It also leaves the class's `propagate` on
    the instance.

    Args:
        model: The model.
    """
    clear_masks(model)
    for module in model.modules():
        if "_edge_mask" in module._parameters:
            del module._parameters["_edge_mask"]
            module._edge_mask = None  # type: ignore[assignment]
        own = vars(module).get("propagate")
        if own is not None and getattr(own, "__func__", None) is _class_propagate(module):
            del module.propagate


def _class_propagate(module: nn.Module) -> Callable[..., Any] | None:
    """The function that PyG leaves on an instance: the same that its class has."""
    return getattr(type(module), "_jinja_propagate", None)


def _own_propagate(cls: type) -> Callable[..., Any]:
    """The `propagate` that takes any arguments, where PyG noted one generated for a base class."""
    found = cls._orig_propagate  # type: ignore[attr-defined]
    for base in cls.__mro__[1:]:
        if vars(base).get("_jinja_propagate") is found:
            found = vars(base)["_orig_propagate"]
    return found


class _TypedMask:
    """The edge mask of an operator that sends the messages of one edge type after another.

    Args:
        conv: The operator, called with all edges and their types.
    """

    def __init__(self, conv: Any) -> None:
        self._conv = conv
        self._types: Tensor | None = None
        self._call = 0
        self._default = conv.explain_message
        self._had_own = "explain_message" in vars(conv)
        self._handle = conv.register_forward_pre_hook(self._begin, with_kwargs=True)

        def explain_message(inputs: Tensor, dim_size: int | None) -> Tensor:
            return self._masked(inputs, dim_size)

        conv.explain_message = explain_message

    def remove(self) -> None:
        """Gives the operator its own method back."""
        self._handle.remove()
        if self._had_own:
            self._conv.explain_message = self._default
        else:
            del self._conv.explain_message

    def _begin(self, conv: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._types = kwargs.get("edge_type", args[2] if len(args) > 2 else None)
        self._call = 0

    def _masked(self, inputs: Tensor, dim_size: int | None) -> Tensor:
        conv, mask = self._conv, self._conv._edge_mask
        if self._types is None or mask is None or len(self._types) != len(mask):
            return self._default(inputs, dim_size)
        is_of_call = self._types == self._call
        self._call += 1
        if inputs.size(conv.node_dim) != int(is_of_call.sum()):  # one call sends all messages
            return self._default(inputs, dim_size)
        factors = mask[is_of_call]
        factors = factors.sigmoid() if conv._apply_sigmoid else factors
        size = [1] * inputs.dim()
        size[conv.node_dim] = -1
        return inputs * factors.view(size)
