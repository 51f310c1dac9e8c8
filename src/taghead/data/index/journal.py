"""Journal of a scan: its results in a file as they are found, so that it can be resumed."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taghead.data.index.scan_result import ClipKey, ScanResult, written_by
from taghead.files import check_regular, json_text, parse_json

log = logging.getLogger(__name__)


class Journal:
    """A file of JSON lines: a header, then scan results, of which later ones replace earlier ones.

    A line that holds no scan result, as one that was cut off when a process was killed, is passed
    over. A file of another folder of videos, or that another version has written, is replaced.

    Args:
        path: The file; made, with its folder, when something is added.
        root: The folder of videos.
        optional: Whether a file that cannot be written is only worth a warning.
    """

    def __init__(self, path: str | Path, root: str | Path, optional: bool = False) -> None:
        self.path = Path(path)
        self.optional = optional
        self.header = {"root": str(Path(root).absolute()), "written_by": written_by()}
        self.known: dict[ClipKey, ScanResult] = {}
        self._mode = "wb"
        self._read()

    @classmethod
    def in_user_cache(cls, root: str | Path) -> Journal:
        """The journal of a folder of videos in the user's cache folder."""
        folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        name = hashlib.blake2b(os.fsencode(Path(root).absolute()), digest_size=8).hexdigest()
        return cls(Path(folder) / "taghead" / f"{name}.jsonl", root, optional=True)

    def add(self, several: Iterable[ScanResult]) -> None:
        """Adds results; they are in the file when this returns.

        Raises:
            OSError: If it cannot be written, unless it is optional.
        """
        self.known.update((result.key, result) for result in several)
        lines = [json_text(asdict(result), self.path) for result in several]
        # an empty line ends one that was cut off
        text = "\n".join(
            [json_text(self.header, self.path) if self._mode == "wb" else "", *lines, ""]
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open(self._mode) as file:
                file.write(text.encode())
            self._mode = "ab"
        except OSError as error:
            if not self.optional:
                raise
            log.warning("%s: what was read is not remembered: %s", self.path, error.strerror)

    def _read(self) -> None:
        if self.path.exists():
            check_regular(self.path)
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        if lines and _parsed(lines[0]) == self.header:
            self._mode = "ab"
            found = [result for result in map(_result, map(_parsed, lines[1:])) if result]
            self.known = {result.key: result for result in found}


def _parsed(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return None


def _result(record: Any) -> ScanResult | None:
    try:
        return ScanResult.from_record(record)
    except ValueError:
        return None
