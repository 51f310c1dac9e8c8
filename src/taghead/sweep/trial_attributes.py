"""Attributes of Optuna trials: a run's spec and its config, and long values as short texts."""

from __future__ import annotations

import base64
import itertools
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial, Trial

from taghead.errors import DataError, one_line
from taghead.files import config_differences, json_text, parse_json
from taghead.sweep.spec import Config, RunSpec

CHUNK = 40_000  # characters; a text column of MySQL holds 65,535 bytes


def spec_attributes(sweep: str, run: RunSpec) -> dict[str, Any]:
    """A run as the attributes of a trial."""
    return {
        "run": run.id,
        "sweep": sweep,
        "levels": run.levels,
        "seed": run.seed,
        "control": run.is_control,
        "config": json_text(run.config, f"the run {run}"),
    }


def spec_of(trial: Trial | FrozenTrial, known: Mapping[str, Config] | None = None) -> RunSpec:
    """The run of a trial. A store may be shared: its config is data, and must be that of its id.

    Args:
        trial: The trial.
        known: The configs of the sweep file by id; the one of this run is taken from there.

    Raises:
        DataError: If the config in the store is not the one of the run's id.
    """
    attributes = trial.user_attrs
    run_id = attributes["run"]
    config = (known or {}).get(run_id)
    try:
        levels, seed, content = (attributes[name] for name in ("levels", "seed", "config"))
        stored = RunSpec(levels, seed, parse_json(content))
        texts = [text for pair in levels.items() for text in pair]
        if not isinstance(stored.config, dict) or type(seed) is not int:
            raise TypeError("config must be a mapping, and seed a number")
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("levels must be texts")
        is_changed = stored.id != run_id
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"the run {run_id} is not readable in the store: {one_line(error)}"
        ) from error
    if is_changed:
        found = next(config_differences(stored.config, config), None) if config else None
        where = f": {found[0]} is {found[1]!r}, in the sweep file {found[2]!r}" if found else ""
        raise DataError(
            f"the config of the run {stored} ({run_id}) was changed in the store{where}; "
            f"it is not done: choose another --output or --storage"
        )
    return stored if config is None else replace(stored, config=config)


def to_chunks(name: str, value: Any) -> dict[str, str]:
    """A value that JSON can hold, compressed, as short texts under numbered names."""
    text = base64.b64encode(zlib.compress(json_bytes(value), 9)).decode()
    starts = range(0, len(text), CHUNK)
    return {f"{name}:{n}": text[start : start + CHUNK] for n, start in enumerate(starts)}


def from_chunks(name: str, attributes: Mapping[str, str]) -> Any:
    """The inverse of :func:`to_chunks`; lists stand for tuples."""
    texts = (attributes.get(f"{name}:{n}", "") for n in itertools.count())
    chunks = itertools.takewhile(bool, texts)
    return parse_json(zlib.decompress(base64.b64decode("".join(chunks))))


def json_bytes(value: Any) -> bytes:
    return json_text(value, "a result", separators=(",", ":")).encode()
