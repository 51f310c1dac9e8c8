"""The dense kernels of PyG's operators, one file for each family, and `KERNELS`, their registry.

It imports the verbs of `taghead.operators` (`neighbourhood`, `reduce`, `pairwise`), never
`propagate`.
"""

from __future__ import annotations

from torch_geometric.nn import MessagePassing

from taghead.operators.kernel import UNOBSERVED, Kernel, class_of
from taghead.operators.kernels import attend, linear, mixed, pairwise, reduce

KERNELS: dict[type[MessagePassing], Kernel] = {
    **linear.KERNELS,
    **attend.KERNELS,
    **reduce.KERNELS,
    **pairwise.KERNELS,
    **mixed.KERNELS,
}
"""The kernels by exact class: a subclass may compute something else, so it runs through PyG."""


def supports(conv: MessagePassing) -> tuple[bool, str]:
    """Whether an operator with its present options has a dense kernel, and if not, why.

    Returns:
        Whether it has one; and the reason if not, else an empty text.
    """
    kernel = KERNELS.get(class_of(conv))
    if kernel is None:
        return False, "its class has no dense kernel"
    for condition in kernel.conditions + UNOBSERVED:
        if not condition.test(conv):
            return False, f"the dense kernel holds only where {condition.text}"
    return True, ""
