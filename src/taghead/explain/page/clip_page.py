"""The interactive page of one clip: a self-contained HTML file."""

from __future__ import annotations

import base64
import html
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from taghead import __version__
from taghead.explain.clip_explanation import DECIMALS, ClipExplanation
from taghead.explain.page.assets import asset, csp_hash, fill, jpeg_uri
from taghead.explain.selection import Selection
from taghead.files import json_text, name_to_text

SCRIPTS = ("model.js", "page.js", "side.js", "start.js")


def write_page(
    explanation: ClipExplanation, content: dict[str, Any], selection: Selection, path: str | Path
) -> None:
    """Writes an explanation as one self-contained HTML file.

    Args:
        explanation: The explanation.
        content: The explanation as the JSON file has it (`explanation.to_dict`); the page shows the
            same numbers.
        selection: The layer, attention head and relation that the page shows first.
        path: The file.
    """
    style, script = asset("page.css"), "\n".join(map(asset, SCRIPTS))
    grid, clip = explanation.attention.grid, explanation.clip
    view = f", view {clip.view + 1} of {clip.num_views}" if clip.num_views > 1 else ""
    about = (
        f"{Path(content['model']).name} · {len(clip.indices)} frames{view} · "
        f"{grid.frames}x{grid.height}x{grid.width} patches"
    )
    best = content["classes"][0]
    text = fill(
        asset("page.html"),
        {
            "title": html.escape(f"{name_to_text(clip.path.name)}: what the model attended to"),
            "name": html.escape(name_to_text(clip.path.name)),
            "about": html.escape(about),
            "predicted": html.escape(best["class"].replace("_", " ")),
            "probability": f"{best['probability']:.1%}",
            "version": html.escape(__version__),
            "style": style,
            "script": script,
            "style_hash": csp_hash(style),
            "script_hash": csp_hash(script),
            "data": _in_script(_page_data(explanation, content, selection)),
        },
    )
    Path(path).write_text(text, encoding="utf-8")


def _page_data(
    explanation: ClipExplanation, content: dict[str, Any], selection: Selection
) -> dict[str, Any]:
    """The content of the JSON file with packed edges, and the pictures."""
    left_out = ("layers", "strongest", "clip", "model")
    layers = [
        {"relations": {name: _packed(edges) for name, edges in layer["relations"].items()}}
        for layer in content["layers"]
    ]
    first = {
        "layer": 0 if selection.layer is None else selection.layer,
        "head": -1 if selection.head is None else selection.head,
        "relation": selection.relation or "",
    }
    return {
        **{key: value for key, value in content.items() if key not in left_out},
        "layers": layers,
        "choice": first,
        "rate": explanation.clip.rate,
        "pictures": [jpeg_uri(picture) for picture in explanation.clip.pictures],
    }


def _packed(edges: dict[str, Any]) -> dict[str, Any]:
    """Edges of one relation; weights are whole millionths, with all decimals of the JSON."""
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
    """Numbers as 32-bit integers: byte planes, deflated, in base 64."""
    array = np.nan_to_num(np.array(values, dtype=np.float64)) * factor
    planes = array.round().astype("<i4").reshape(-1, 1).view(np.uint8).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def _in_script(data: dict[str, Any]) -> str:
    """JSON for a script element: escaped, so that no text in it closes the element."""
    text = json_text(data, "the page", ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
