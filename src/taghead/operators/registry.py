"""Which operators have a dense way, and under which conditions."""

from __future__ import annotations

from torch import nn
from torch_geometric.nn import MessagePassing

from taghead.operators import aggregating, attentive, general, linear, typed
from taghead.operators.kernel import Kernel, Rule, class_of

KERNELS: dict[type[MessagePassing], Kernel] = {
    **linear.KERNELS,
    **attentive.KERNELS,
    **aggregating.KERNELS,
    **general.KERNELS,
    **typed.KERNELS,
}
"""The kernels by exact class: a subclass may mean something else, so it runs through PyG."""

MODULE_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
MESSAGE_HOOKS = tuple(
    f"_{function}_forward_{when}hooks"
    for function in ("propagate", "message", "aggregate", "edge_update")
    for when in ("", "pre_")
)


def has_hooks(module: nn.Module) -> bool:
    """Whether something stands before, in or behind a module's `forward`."""
    return any(getattr(module, name, None) for name in MODULE_HOOKS + MESSAGE_HOOKS)


PLAIN = (
    Rule("it has no hooks", lambda conv: not has_hooks(conv)),
    Rule("it is not being explained", lambda conv: not conv.explain),
    Rule("decomposed_layers is 1", lambda conv: conv.decomposed_layers == 1),
)
"""What must hold of every operator: nothing stands between its `forward` and its messages."""


def supports(conv: MessagePassing) -> tuple[bool, str]:
    """Whether an operator, as it is set now, has a dense way; if not, why.

    Returns:
        Whether it has, and the reason, empty if it has.
    """
    kernel = KERNELS.get(class_of(conv))
    if kernel is None:
        return False, "its class has no dense kernel"
    for rule in PLAIN + kernel.rules:
        if not rule.holds(conv):
            return False, f"the dense kernel holds only where {rule.says}"
    return True, ""
