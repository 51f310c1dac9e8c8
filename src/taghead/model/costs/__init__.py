"""What a model costs: arithmetic, time and memory, and the part of them that is the head's."""

from taghead.model.costs.arithmetic import count_flops
from taghead.model.costs.measuring import Latency, latency, peak_bytes
from taghead.model.costs.model import MODEL_PARTS, PartCosts, Precision, head_flops, model_costs

__all__ = [
    "MODEL_PARTS",
    "Latency",
    "PartCosts",
    "Precision",
    "count_flops",
    "head_flops",
    "latency",
    "model_costs",
    "peak_bytes",
]
