"""What a head attended to: captured, asked, tested against its logits and drawn."""

from typing import TYPE_CHECKING

from taghead.lazy import lazy_names

if TYPE_CHECKING:
    from taghead.attention.curves import areas, edge_curves
    from taghead.attention.edge_attention import EdgeAttention
    from taghead.attention.explainers import HeadExplanation, explain, fidelity, graph_inputs
    from taghead.attention.saliency import edge_saliency, token_saliency

__all__ = [
    "EdgeAttention",
    "HeadExplanation",
    "areas",
    "edge_curves",
    "edge_saliency",
    "explain",
    "fidelity",
    "graph_inputs",
    "token_saliency",
]

__getattr__ = lazy_names(
    __name__,
    {
        "EdgeAttention": "taghead.attention.edge_attention",
        "HeadExplanation": "taghead.attention.explainers",
        "areas": "taghead.attention.curves",
        "edge_curves": "taghead.attention.curves",
        "edge_saliency": "taghead.attention.saliency",
        "explain": "taghead.attention.explainers",
        "fidelity": "taghead.attention.explainers",
        "graph_inputs": "taghead.attention.explainers",
        "token_saliency": "taghead.attention.saliency",
    },
)
