"""The index page: one HTML file that links to the pages of several clips."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from taghead import __version__
from taghead.explain.clip_explanation import ClipExplanation
from taghead.explain.page.assets import asset, csp_hash, fill, jpeg_uri
from taghead.files import name_to_text


@dataclass(frozen=True)
class PageEntry:
    """A clip on the index page: its explanation, or the error that made it unreadable.

    Args:
        video: The video file.
        folder: The folder of its results, beside the index page.
        explanation: The explanation.
        error: Why the video could not be read.
    """

    video: str
    folder: str
    explanation: ClipExplanation | None = None
    error: str | None = None


def write_index(
    entries: Sequence[PageEntry], path: str | Path, pictures: Sequence[str] = ()
) -> None:
    """Writes the page that links to the pages of several clips.

    Args:
        entries: The clips.
        path: The file; the clips' folders lie beside it.
        pictures: Picture files beside it that compare the clips.
    """
    links = [f'<a href="{html.escape(name)}">{html.escape(name)}</a>' for name in pictures]
    style = asset("page.css")
    text = fill(
        asset("index.html"),
        {
            "style": style,
            "style_hash": csp_hash(style),
            "count": f"{len(entries)} clips",
            "together": f" · together: {', '.join(links)}" if links else "",
            "cards": "\n".join(map(_card, entries)),
            "version": html.escape(__version__),
        },
    )
    Path(path).write_text(text, encoding="utf-8")


def _card(entry: PageEntry) -> str:
    """The list item of a clip."""
    name = html.escape(name_to_text(Path(entry.video).name))
    if entry.explanation is None:
        reason = html.escape(name_to_text(entry.error or ""))
        return f'<li class="card"><strong>{name}</strong><p class="note failed">{reason}</p></li>'
    explanation = entry.explanation
    picture = jpeg_uri(explanation.clip.pictures[len(explanation.clip.pictures) // 2])
    label = html.escape(explanation.class_names[explanation.predicted].replace("_", " "))
    probability = f"{float(explanation.probabilities[explanation.predicted]):.1%}"
    return (
        f'<li class="card"><img alt="" src="{picture}">'
        f'<a href="{html.escape(entry.folder)}/page.html">{name}</a>'
        f'<p class="note">{label} · {probability}</p></li>'
    )
