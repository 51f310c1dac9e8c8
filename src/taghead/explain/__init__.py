"""What a model saw in a clip, for people: numbers, pictures, a video and an interactive page."""

from typing import TYPE_CHECKING

from taghead.lazy import lazy_names

if TYPE_CHECKING:
    from taghead.explain.clip import SeenClip, see
    from taghead.explain.command import explain
    from taghead.explain.numbers import ClipExplanation, explain_clip, to_numbers

__all__ = ["ClipExplanation", "SeenClip", "explain", "explain_clip", "see", "to_numbers"]

__getattr__ = lazy_names(
    __name__,
    {
        "ClipExplanation": "taghead.explain.numbers",
        "SeenClip": "taghead.explain.clip",
        "explain": "taghead.explain.command",
        "explain_clip": "taghead.explain.numbers",
        "see": "taghead.explain.clip",
        "to_numbers": "taghead.explain.numbers",
    },
)
