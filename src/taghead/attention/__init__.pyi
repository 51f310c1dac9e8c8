from .edge_attention import EdgeAttention as EdgeAttention
