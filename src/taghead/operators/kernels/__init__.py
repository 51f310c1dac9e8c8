"""The dense kernels of PyG's operators, one file for each family, and the registry of all rows.

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
"""The kernels by exact class: a subclass may mean something else, so it runs through PyG."""


def supports(conv: MessagePassing) -> tuple[bool, str]:
    """Whether an operator, as it is set now, has a dense kernel; if not, why.

    Returns:
        Whether it has, and the reason, empty if it has.
    """
    kernel = KERNELS.get(class_of(conv))
    if kernel is None:
        return False, "its class has no dense kernel"
    for condition in UNOBSERVED + kernel.conditions:
        if not condition.test(conv):
            return False, f"the dense kernel holds only where {condition.text}"
    return True, ""
