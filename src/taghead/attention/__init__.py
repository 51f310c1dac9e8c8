"""What a head attended to: captured, and asked."""

from typing import TYPE_CHECKING

from taghead.lazy import lazy_names

if TYPE_CHECKING:
    from taghead.attention.curves import areas, edge_curves
    from taghead.attention.edge_attention import EdgeAttention
    from taghead.attention.explainers import HeadExplanation, explain, fidelity, graph_inputs
    from taghead.attention.pictures import (
        ClipHeat,
        compare,
        edges_on_frames,
        save_figure,
        token_heat,
    )
    from taghead.attention.saliency import edge_saliency, token_saliency

__all__ = [
    "ClipHeat",
    "EdgeAttention",
    "HeadExplanation",
    "areas",
    "compare",
    "edge_curves",
    "edge_saliency",
    "edges_on_frames",
    "explain",
    "fidelity",
    "graph_inputs",
    "save_figure",
    "token_heat",
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
        "ClipHeat": "taghead.attention.pictures",
        "compare": "taghead.attention.pictures",
        "edges_on_frames": "taghead.attention.pictures",
        "save_figure": "taghead.attention.pictures",
        "token_heat": "taghead.attention.pictures",
        "token_saliency": "taghead.attention.saliency",
    },
)
