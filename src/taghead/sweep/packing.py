"""Values as short texts that a database's text column holds."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable
from typing import Any

PIECE = 40_000  # characters; MySQL's TEXT holds 65,535 bytes


def packed(value: Any) -> tuple[str, list[str]]:
    """A value that JSON can hold, compressed, as pieces of text, and a digest of it."""
    data = json.dumps(value, separators=(",", ":")).encode()
    text = base64.b64encode(zlib.compress(data, 9)).decode()
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    return hashlib.sha256(data).hexdigest()[:12], pieces


def unpacked(pieces: Iterable[str]) -> Any:
    """The inverse of `packed`; lists stand for tuples."""
    return json.loads(zlib.decompress(base64.b64decode("".join(pieces))))
