"""Attributes of Optuna trials: a run's spec and its config, and long values as short texts."""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Mapping
from typing import Any

from optuna.trial import FrozenTrial, Trial

from taghead.errors import DataError, one_line
from taghead.files import config_differences
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
        "config": json.dumps(run.config),
    }


def spec_of(trial: Trial | FrozenTrial) -> RunSpec:
    """The run of a trial, from its attributes.

    Raises:
        DataError: If they are none that :func:`spec_attributes` makes: a store may be anyone's.
    """
    attributes = trial.user_attrs
    try:
        levels, seed, config = (attributes[name] for name in ("levels", "seed", "config"))
        content = json.loads(config)
        texts = [*levels.items(), ("run", attributes["run"])]
        whole = all(isinstance(text, str) for pair in texts for text in pair)
        if not (whole and type(seed) is int and isinstance(content, dict)):
            raise ValueError("their types are others")
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"trial {trial.number} of the store has no run: levels, seed, config and run must be "
            f"those of taghead sweep ({type(error).__name__}: {one_line(error)})"
        ) from error
    return RunSpec(levels, seed, content)


def config_of(trial: Trial, known: Config | None) -> Config:
    """The config of a run: the sweep file's, where that is given.

    Raises:
        DataError: If the one in the store is not the one of the run's id.
    """
    stored, run_id = spec_of(trial), trial.user_attrs["run"]
    if stored.id != run_id:
        raise DataError(changed_message(stored, run_id, known))
    return stored.config if known is None else known


def changed_message(stored: RunSpec, run_id: str, known: Config | None) -> str:
    """The error message for a run whose config in the store is not the one of its id."""
    found = next(config_differences(stored.config, known), None) if known else None
    where = f": {found[0]} is {found[1]!r}, in the sweep file {found[2]!r}" if found else ""
    return (
        f"the config of the run {stored} ({run_id}) was changed in the store{where}; "
        f"it is not done: choose another --output or --storage"
    )


def to_chunks(name: str, value: Any) -> dict[str, str]:
    """A value that JSON can hold, compressed, as short texts under numbered names."""
    text = base64.b64encode(zlib.compress(json_bytes(value), 9)).decode()
    starts = range(0, len(text), CHUNK)
    return {f"{name}:{n}": text[start : start + CHUNK] for n, start in enumerate(starts)}


def from_chunks(name: str, attributes: Mapping[str, str]) -> Any:
    """The inverse of :func:`to_chunks`; lists stand for tuples."""
    texts = (attributes.get(f"{name}:{n}", "") for n in itertools.count())
    chunks = itertools.takewhile(bool, texts)
    return json.loads(zlib.decompress(base64.b64decode("".join(chunks))))


def json_bytes(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
