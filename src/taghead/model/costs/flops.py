"""Floating-point operations of a computation.

torch's `FlopCounterMode` counts matrix products, convolutions and attention alone. Message passing
also adds, scales and compares, and on an edge list that is most of its work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

# pointwise, but without arithmetic: they copy, select or compare
_COPIES = {"clone", "copy", "fill", "zero", "where", "masked_fill"}
_COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite"}
_LOGIC = {f"{kind}_{name}" for kind in ("logical", "bitwise") for name in ("and", "or", "not")}
_NO_ARITHMETIC = _COPIES | _COMPARISONS | _LOGIC
# one addition or comparison for each element of the largest input
_REDUCTIONS = {"scatter_add", "scatter_reduce", "index_add", "index_reduce", "segment_reduce"}
_REDUCTIONS |= {"cumsum", "segment_csr"}
_REDUCTIONS |= {f"scatter_{name}" for name in ("sum", "mean", "max", "min")}  # torch-scatter's
# five for each element. Softmax: maximum, difference, exponential, sum, quotient. Norms: mean,
# difference, square, scale, shift
_FIVE = frozenset(["_softmax", "_log_softmax", "native_layer_norm", "native_batch_norm"])


class ArithmeticCounter(TorchDispatchMode):
    """Counts the arithmetic that torch's `FlopCounterMode` does not count.

    An addition, a product, a comparison of a maximum, and a function of one number such as `exp`
    count as one each. Softmax and norms count 5 for each element, a distance 3 for each feature.

    Attributes:
        flops: The operations counted so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.flops += _flops(func, (args, kwargs), out)
        return out


def count_flops(run: Callable[[], object], *, arithmetic: bool = False) -> int:
    """Floating-point operations of a function; a multiplication and an addition are two.

    Args:
        run: The function; it is called without gradients.
        arithmetic: Whether to count sums, scalings and comparisons beside products.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a fused call is not counted
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as products:
            if not arithmetic:
                run()
                return products.get_total_flops()
            with ArithmeticCounter() as others:
                run()
            return products.get_total_flops() + others.flops
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _flops(func: Any, inputs: Any, out: Any) -> int:
    if func.overloadpacket in flop_registry:
        return 0
    name = func.overloadpacket.__name__.rstrip("_")
    if name == "_cdist_forward":
        rows, columns = inputs[0][:2]
        return 3 * out.numel() * rows.size(-1) if columns.numel() else 0
    if name in _FIVE:
        return 5 * _largest(inputs)
    if name in _REDUCTIONS or torch.Tag.reduction in func.tags:
        return _largest(inputs)
    if torch.Tag.pointwise in func.tags and name not in _NO_ARITHMETIC:
        return _largest(out)
    return 0


def _largest(values: Any) -> int:
    """Number of elements of the largest floating-point tensor."""
    sizes = [
        value.numel()
        for value in tree_leaves(values)
        if isinstance(value, Tensor) and value.is_floating_point()
    ]
    return max(sizes, default=0)
