"""What a head attended to: captured, and asked."""

from typing import TYPE_CHECKING

from taghead.lazy import lazy_names

if TYPE_CHECKING:
    from taghead.attention.capture import capture
    from taghead.attention.edge_attention import EdgeAttention

__all__ = ["EdgeAttention", "capture"]

__getattr__ = lazy_names(
    __name__,
    {
        "EdgeAttention": "taghead.attention.edge_attention",
        "capture": "taghead.attention.capture",
    },
)
