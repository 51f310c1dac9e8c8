"""Facts about clips, written to a file as they are found, so that an interrupted scan goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taghead.data.facts import Facts, Key

SCHEMA = {"schema": "taghead facts", "version": 1}


class Journal:
    """A file of JSON lines, one for each clip, the later ones right.

    A line that was cut off when a process was killed is passed over, and so is the whole file if
    it is of another version.

    Args:
        path: The file; made, with its folder, when something is added.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def read(self) -> dict[Key, Facts]:
        """What it holds."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        records = [_parsed(line) for line in lines]
        if not records or records[0] != SCHEMA:
            return {}
        found = [facts for facts in map(_facts, records[1:]) if facts]
        return {facts.key: facts for facts in found}

    def add(self, several: Iterable[Facts]) -> None:
        """Adds facts; they are in the file when this returns.

        Raises:
            OSError: If it cannot be written.
        """
        text = "".join(f"{json.dumps(asdict(facts))}\n" for facts in several)
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = f"{json.dumps(SCHEMA)}\n{text}"
        with self.path.open("ab+") as file:
            if file.tell() and not _ends_a_line(file):
                text = f"\n{text}"
            file.write(text.encode())

    def replace(self, several: Iterable[Facts]) -> None:
        """Leaves these facts alone in the file.

        Raises:
            OSError: If it cannot be written.
        """
        fresh = Journal(self.path.with_name(f"{self.path.name}.{os.getpid()}.part"))
        fresh.path.unlink(missing_ok=True)
        fresh.add(several)
        os.replace(fresh.path, self.path)


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _facts(record: Any) -> Facts | None:
    try:
        return Facts(**record)
    except TypeError:
        return None
