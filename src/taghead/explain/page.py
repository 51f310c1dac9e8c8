"""The interactive page: one file that loads nothing, and the index of several."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from taghead import __version__
from taghead.explain.explanation import DECIMALS, ClipExplanation
from taghead.explain.panels import Choice

QUALITY = 82  # of the JPEG pictures
SCRIPTS = ("model.js", "page.js", "side.js", "start.js")


@dataclass(frozen=True)
class Entry:
    """A clip on the index page: its explanation, or why there is none.

    Args:
        video: The video file.
        folder: The folder of its results, beside the index.
        found: The explanation.
        error: Why there is none.
    """

    video: str
    folder: str
    found: ClipExplanation | None = None
    error: str | None = None


def write_page(
    found: ClipExplanation, numbers: dict[str, Any], choice: Choice, path: str | Path
) -> None:
    """Writes an explanation as one HTML file with all that it needs, which loads nothing.

    Args:
        found: The explanation.
        numbers: What the JSON holds (`to_numbers`); the page shows these numbers.
        choice: With what the page begins.
        path: The file.
    """
    style, script = _asset("page.css"), "\n".join(map(_asset, SCRIPTS))
    grid, clip = found.attention.grid, found.clip
    view = f", view {clip.view + 1} of {clip.num_views}" if clip.num_views > 1 else ""
    about = (
        f"{Path(numbers['model']).name} · {len(clip.indices)} frames{view} · "
        f"{grid.frames}x{grid.height}x{grid.width} patches"
    )
    best = numbers["classes"][0]
    text = _filled(
        _asset("page.html"),
        {
            "title": html.escape(f"{clip.path.name}: what the model attended to"),
            "name": html.escape(clip.path.name),
            "about": html.escape(about),
            "predicted": html.escape(best["class"].replace("_", " ")),
            "probability": f"{best['probability']:.1%}",
            "version": html.escape(__version__),
            "style": style,
            "script": script,
            "style_hash": _hash(style),
            "script_hash": _hash(script),
            "data": _in_script(_page_data(found, numbers, choice)),
        },
    )
    Path(path).write_text(text, encoding="utf-8")


def write_index(entries: Sequence[Entry], path: str | Path, pictures: Sequence[str] = ()) -> None:
    """Writes the page that leads to the pages of several clips.

    Args:
        entries: The clips.
        path: The file; the clips' folders lie beside it.
        pictures: Files beside it that show the clips together.
    """
    links = [f'<a href="{html.escape(name)}">{html.escape(name)}</a>' for name in pictures]
    style = _asset("page.css")
    text = _filled(
        _asset("index.html"),
        {
            "style": style,
            "style_hash": _hash(style),
            "count": f"{len(entries)} clips",
            "together": f" · together: {', '.join(links)}" if links else "",
            "cards": "\n".join(map(_card, entries)),
            "version": html.escape(__version__),
        },
    )
    Path(path).write_text(text, encoding="utf-8")


def _card(entry: Entry) -> str:
    name = html.escape(Path(entry.video).name)
    if entry.found is None:
        reason = html.escape(entry.error or "")
        return f'<li class="card"><strong>{name}</strong><p class="note failed">{reason}</p></li>'
    found = entry.found
    picture = _data_uri(found.clip.pictures[len(found.clip.pictures) // 2])
    label = html.escape(found.class_names[found.predicted].replace("_", " "))
    probability = f"{float(found.probabilities[found.predicted]):.1%}"
    return (
        f'<li class="card"><img alt="" src="{picture}">'
        f'<a href="{html.escape(entry.folder)}/page.html">{name}</a>'
        f'<p class="note">{label} · {probability}</p></li>'
    )


def _page_data(found: ClipExplanation, numbers: dict[str, Any], choice: Choice) -> dict[str, Any]:
    """The JSON's numbers with the edges packed, and the pictures."""
    left_out = ("layers", "strongest", "clip", "model")
    layers = [
        {"relations": {name: _packed(edges) for name, edges in layer["relations"].items()}}
        for layer in numbers["layers"]
    ]
    begin = {
        "layer": 0 if choice.layer is None else choice.layer,
        "head": -1 if choice.head is None else choice.head,
        "relation": choice.relation or "",
    }
    return {
        **{key: value for key, value in numbers.items() if key not in left_out},
        "layers": layers,
        "choice": begin,
        "rate": found.clip.rate,
        "pictures": [_data_uri(picture) for picture in found.clip.pictures],
    }


def _packed(edges: dict[str, Any]) -> dict[str, Any]:
    """One relation's edges; weights as whole millionths, so that no digit of the JSON is lost."""
    loops = edges["self_loops"]
    return {
        "softmax": edges["softmax"],
        "heads": len(edges["weights"]),
        "source": _pack(edges["source"]),
        "target": _pack(edges["target"]),
        "weights": _pack(edges["weights"], 10**DECIMALS),
        "self_loops": None if loops is None else _pack(loops, 10**DECIMALS),
    }


def _pack(values: Any, factor: int = 1) -> str:
    """Numbers as 32-bit integers: the planes of their bytes, deflated, in base 64."""
    found = np.nan_to_num(np.array(values, dtype=np.float64)) * factor
    planes = found.round().astype("<i4").reshape(-1, 1).view(np.uint8).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def _data_uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _in_script(data: dict[str, Any]) -> str:
    """JSON that can stand in a script element: nothing in it closes the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _filled(template: str, parts: dict[str, str]) -> str:
    """A template with its parts, in one pass: what is put in is not looked through again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _hash(text: str) -> str:
    """What a content security policy calls an element of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _asset(name: str) -> str:
    return files("taghead.explain").joinpath(name).read_text(encoding="utf-8")
