"""Assets of self-contained pages: templates, styles, scripts and embedded pictures."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image

QUALITY = 82  # of the JPEG pictures


@cache
def asset(name: str) -> str:
    """The text of a template, style or script of this package."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def fill(template: str, values: dict[str, str]) -> str:
    """A template with its placeholders replaced in one pass, so that no value is replaced again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def csp_hash(text: str) -> str:
    """The hash by which a content security policy allows an inline element of this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def jpeg_uri(picture: np.ndarray) -> str:
    """A picture `[H, W, 3]`, uint8, as a data URI of a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
