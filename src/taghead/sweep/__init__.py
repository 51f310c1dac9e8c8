"""Sweeps: many variants of a training, run in parallel and resumably, into one table."""

from taghead.lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "sweep": "taghead.sweep.command",
        "read_sweep": "taghead.sweep.space",
        "Run": "taghead.sweep.space",
        "Sweep": "taghead.sweep.space",
    },
)
