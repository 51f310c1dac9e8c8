"""Sweep files: a base config, factors with levels, and the runs that they cross to."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from taghead.errors import DataError, one_line
from taghead.sweep.columns import columns
from taghead.sweep.overrides import KEY, Config, overridden

KEYS = {"name", "base", "set", "seeds", "factors"}
QUIET: dict[str, Any] = {
    "trainer.logger": False,
    "trainer.callbacks": [],
    "trainer.enable_checkpointing": False,
    "trainer.enable_progress_bar": False,
    "trainer.enable_model_summary": False,
    "trainer.num_sanity_val_steps": 0,
    "trainer.deterministic": True,
    "trainer.devices": 1,
}
"""What a run has of its own in place of the base's, unless the sweep file sets it."""


@dataclass(frozen=True)
class Level:
    """One choice of a factor.

    Args:
        overrides: Values by dotted key.
        without: Factors that make no sense beside it and are left out.
    """

    overrides: Mapping[str, Any]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One training, and the test of its last weights.

    Args:
        levels: The level's label of each factor that it has.
        seed: Its seed.
        config: Its whole config, which `taghead fit --config` takes.
    """

    levels: dict[str, str]
    seed: int
    config: Config = field(hash=False)

    @property
    def id(self) -> str:
        """12 hexadecimal digits of the config's SHA-256."""
        text = json.dumps(self.config, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def is_control(self) -> bool:
        """Whether it is without a graph, or one of its levels is named `none`."""
        head = (self.config.get("model") or {}).get("head")
        mode = (head.get("init_args") or {}).get("mode") if isinstance(head, dict) else None
        return "none" in (mode, *self.levels.values())

    def __str__(self) -> str:
        named = [f"{factor}={label}" for factor, label in self.levels.items()]
        return " ".join([*named, f"seed={self.seed}"])


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Args:
        path: The file.
        name: The sweep's name.
        base: The config that all runs start from.
        set: Overrides for all runs.
        seeds: The seeds that each combination is run with.
        factors: The levels of each factor, by label.
    """

    path: Path
    name: str
    base: Config
    set: Mapping[str, Any]
    seeds: list[int]
    factors: dict[str, dict[str, Level]]

    def assignments(self) -> Iterator[dict[str, str]]:
        """The combinations of levels, each once, without the factors that a level leaves out."""
        seen = set()
        for labels in itertools.product(*self.factors.values()):
            levels = dict(zip(self.factors, labels, strict=True))
            left_out = {
                name for f, label in levels.items() for name in self.factors[f][label].without
            }
            chosen = {f: label for f, label in levels.items() if f not in left_out}
            if (key := tuple(chosen.items())) not in seen:
                seen.add(key)
                yield chosen

    def steps(self, levels: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The overrides of a combination in their order, each with its place in the file."""
        for key, value in self.set.items():
            yield f"set.{key}", {key: value}
        for factor, label in levels.items():
            for key, value in self.factors[factor][label].overrides.items():
                yield f"factors.{factor}.{label}.{key}", {key: value}

    def config(self, levels: Mapping[str, str], seed: int) -> Config:
        """A run's config.

        Raises:
            DataError: If an override leads nowhere; the message names its place.
        """
        config = self.start(seed)
        for place, override in self.steps(levels):
            try:
                config = overridden(config, override)
            except ValueError as error:
                raise DataError(f"{self.path}: {place}: {error}") from error
        return _validated_last(config)

    def start(self, seed: int) -> Config:
        """The base's config, with what every run has."""
        return {**overridden(self.base, QUIET), "seed_everything": seed}

    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that a sweep that is cut short has all combinations.

        Raises:
            DataError: If an override leads nowhere, or two runs are the same.
        """
        runs: dict[str, Run] = {}
        for seed in self.seeds:
            for levels in self.assignments():
                run = Run(levels, seed, self.config(levels, seed))
                if run.id in runs:
                    raise DataError(
                        f"{self.path}: factors: two runs are the same: {runs[run.id]} and {run}"
                    )
                runs[run.id] = run
        return list(runs.values())


def _validated_last(config: Config) -> Config:
    """Without a rule of its own, a training measures validation accuracy after its last epoch."""
    trainer = config["trainer"]
    epochs = trainer.get("max_epochs")
    if isinstance(epochs, int) and epochs > 0 and trainer.get("max_steps") in (None, -1):
        trainer.setdefault("check_val_every_n_epoch", epochs)
    return config


def read_sweep(path: str | Path) -> Sweep:
    """Reads a sweep file and the base that it names.

    Raises:
        DataError: If it cannot be read, or something in it breaks a rule; the message names the
            file and the key.
    """
    path = Path(path)
    content = _read(path)
    for key in content:
        if key not in KEYS:
            known = ", ".join(sorted(KEYS))
            raise DataError(f"{path}: {key}: no such key; a sweep has {known}")
    for key in ("base", "factors"):
        if key not in content:
            raise DataError(f"{path}: {key} is missing")
    if not isinstance(content["base"], str):
        raise DataError(f"{path}: base must be a config's file (got {content['base']!r})")
    base = _read(path.parent / content["base"])
    factors = _mapping(path, "factors", content["factors"])
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not name:
        raise DataError(f"{path}: name must be text (got {name!r})")
    return Sweep(
        path,
        name,
        base,
        _overrides(path, "set", content.get("set") or {}),
        _seeds(path, content.get("seeds", [0])),
        {factor: _levels(path, factors, factor) for factor in factors},
    )


def _seeds(path: Path, seeds: Any) -> list[int]:
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds):
        raise DataError(f"{path}: seeds must be a list of different numbers from 0 (got {seeds!r})")
    return seeds


def _levels(path: Path, factors: Mapping[str, Any], factor: str) -> dict[str, Level]:
    if not isinstance(factor, str) or not factor.isidentifier() or factor in columns():
        raise DataError(
            f"{path}: factors.{factor}: a factor's name must be one of letters, digits and "
            f"underscores, and no column of the table"
        )
    levels: dict[str, Level] = {}
    for label, content in _mapping(path, f"factors.{factor}", factors[factor]).items():
        place = f"factors.{factor}.{label}"
        if isinstance(label, bool) or not isinstance(label, str | int | float):
            raise DataError(f"{path}: {place}: a label must be text or a number (got {label!r})")
        if str(label) in levels:
            raise DataError(f"{path}: {place}: there are two levels of this label")
        levels[str(label)] = _level(path, place, {} if content is None else content, factors)
    if any(level.without for level in levels.values()):
        _check_dropped_once(path, factors, factor)
    return levels


def _level(path: Path, place: str, content: Any, factors: Mapping[str, Any]) -> Level:
    """A level, short (overrides alone) or with the keys `set` and `without`."""
    if not isinstance(content, dict):
        raise DataError(f"{path}: {place} must be overrides by dotted key (got {content!r})")
    if not content.keys() & {"set", "without"}:
        return Level(_overrides(path, place, content))
    for key in content.keys() - {"set", "without"}:
        raise DataError(f"{path}: {place}.{key}: stands beside set or without; put it into set")
    without = content.get("without") or []
    own = place.split(".")[1]
    if not isinstance(without, list) or not all(name in factors for name in without):
        raise DataError(
            f"{path}: {place}.without must be a list of factors, of "
            f"{', '.join(map(str, factors))} (got {without!r})"
        )
    if own in without:
        raise DataError(f"{path}: {place}.without must not be its own factor (got {own!r})")
    return Level(_overrides(path, f"{place}.set", content.get("set") or {}), tuple(without))


def _check_dropped_once(path: Path, factors: Mapping[str, Any], factor: str) -> None:
    """A factor that leaves others out must not be left out itself: which came first?"""
    for other, levels in factors.items():
        for label, content in (levels if isinstance(levels, dict) else {}).items():
            if isinstance(content, dict) and factor in (content.get("without") or ()):
                raise DataError(
                    f"{path}: factors.{other}.{label}.without must not have a factor that leaves "
                    f"out others itself (got {factor!r})"
                )


def _overrides(path: Path, place: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise DataError(f"{path}: {place} must be overrides by dotted key (got {content!r})")
    for key in content:
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise DataError(
                f"{path}: {place}.{key}: must be a dotted key that begins with trainer., model. or "
                f"data."
            )
    return content


def _mapping(path: Path, place: str, content: Any) -> dict[Any, Any]:
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: {place} must have at least one entry (got {content!r})")
    return content


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key {key!r} stands twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def _read(path: Path) -> Config:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: not a readable YAML file: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold keys and values (got {type(content).__name__})")
    return content
