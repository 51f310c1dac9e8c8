"""Sweep files: a base config, factors with levels, and the runs of all their combinations."""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from taghead.errors import DataError, one_line
from taghead.files import MAX_TEXT_BYTES, check_regular, json_text

Config = dict[str, Any]

MEASUREMENTS = (
    *("top1", "mca", "val_top1", "num_train", "num_test"),
    *("parameters", "head_parameters", "head_gflop", "head_latency_ms", "train_sec", "epochs"),
)
"""Columns of measurements in the table of runs."""

ORIGIN = ("data", "commit", "torch", "pyg", "started")
"""Columns of what measurements depend on beside the config: data, code and libraries."""

QUIET_RUN: Config = {
    "trainer.logger": False,
    "trainer.callbacks": [],
    "trainer.enable_checkpointing": False,
    "trainer.enable_progress_bar": False,
    "trainer.enable_model_summary": False,
    "trainer.num_sanity_val_steps": 0,
    "trainer.deterministic": True,
    "trainer.devices": 1,
}
"""Overrides of the base config in every run; the sweep file's own come after them."""

FILE_KEYS = ("base", "factors", "name", "seeds", "set")
DOTTED_KEY = re.compile(r"(trainer|model|data)(\.[A-Za-z_]\w*)+")
NAME = re.compile(r"\w[\w .+=,-]*")  # of a folder: no separator, not `..`
CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")


@dataclass(frozen=True)
class Level:
    """One choice of a factor.

    Args:
        overrides: Values by dotted key.
        without: Factors that do not apply beside it and are left out.
    """

    overrides: Mapping[str, Any]
    without: Sequence[str] = ()


@dataclass(frozen=True)
class RunSpec:
    """The specification of one run of a sweep: a training, and a test of its last weights.

    Args:
        levels: The label of its level, for each factor that applies.
        seed: Its seed.
        config: Its whole config, which `taghead fit --config` takes.
    """

    levels: dict[str, str]
    seed: int
    config: Config = field(hash=False)

    @property
    def id(self) -> str:
        """The first 12 hexadecimal digits of the config's SHA-256."""
        text = json_text(self.config, f"the run {self.levels}", sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def is_control(self) -> bool:
        """Whether it is without a graph, or one of its levels is named `none`."""
        head = (self.config.get("model") or {}).get("head")
        mode = (head.get("init_args") or {}).get("mode") if isinstance(head, dict) else None
        return "none" in (mode, *self.levels.values())

    def __str__(self) -> str:
        levels = [f"{factor}={label}" for factor, label in self.levels.items()]
        return " ".join([*levels, f"seed={self.seed}"])


class RunResult(NamedTuple):
    """The result of one run.

    Args:
        values: Measurements and their origin by column, as JSON can hold them.
        clips: Id, below the folder that all clips share, and label of each test clip.
        predicted: The predicted class of each test clip.
    """

    values: dict[str, Any]
    clips: Sequence[tuple[str, int]]
    predicted: Sequence[int]


@dataclass(frozen=True)
class SweepSpec:
    """The content of a sweep file.

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

    def combinations(self) -> Iterator[dict[str, str]]:
        """The combinations of levels, each once, without the factors that a level leaves out."""
        seen = []
        for labels in itertools.product(*self.factors.values()):
            levels = dict(zip(self.factors, labels, strict=True))
            without = [o for f, label in levels.items() for o in self.factors[f][label].without]
            levels = {f: label for f, label in levels.items() if f not in without}
            if levels not in seen:
                seen.append(levels)
                yield levels

    def overrides(self, levels: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The overrides of a combination in their order, each with its path in the file."""
        for key, value in self.set.items():
            yield f"set.{key}", {key: value}
        for factor, label in levels.items():
            for key, value in self.factors[factor][label].overrides.items():
                yield f"factors.{factor}.{label}.{key}", {key: value}

    def base_config(self, seed: int) -> Config:
        """The base with the overrides of every run, before those of the file."""
        return {**with_overrides(self.base, QUIET_RUN), "seed_everything": seed}

    def config(self, levels: Mapping[str, str], seed: int) -> Config:
        """A run's config.

        Raises:
            DataError: If an override leads nowhere; the message names its path in the file.
        """
        config = self.base_config(seed)
        for path, override in self.overrides(levels):
            try:
                config = with_overrides(config, override)
            except ValueError as error:
                raise DataError(f"{self.path}: {path}: {error}") from error
        trainer = config["trainer"]
        epochs = trainer.get("max_epochs")
        if isinstance(epochs, int) and epochs > 0 and trainer.get("max_steps") in (None, -1):
            trainer.setdefault("check_val_every_n_epoch", epochs)  # validate after the last one
        return config

    def runs(self) -> list[RunSpec]:
        """All runs, seed by seed, so that a sweep that is cut short has all combinations.

        Raises:
            DataError: If an override leads nowhere, or two runs are the same.
        """
        runs: dict[str, RunSpec] = {}
        for seed, levels in itertools.product(self.seeds, list(self.combinations())):
            run = RunSpec(levels, seed, self.config(levels, seed))
            same = runs.setdefault(run.id, run)
            if same is not run:
                raise DataError(f"{self.path}: factors: two runs are the same: {same} and {run}")
        return list(runs.values())


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """A copy of a config in which values are replaced.

    A class stands in a config as `class_path` and `init_args`; a key leaves `init_args` out, as on
    the command line: `model.head.mode`.

    Args:
        config: The config.
        overrides: Values by dotted key.

    Raises:
        ValueError: If a key leads into a value that has no arguments.
    """
    config = copy.deepcopy(config)
    for key, value in overrides.items():
        group = config
        *parents, last = key.split(".")
        for depth, name in enumerate(parents, start=1):
            group = _arguments(group, name)
            inner = group.setdefault(name, {})
            if isinstance(inner, str) and "." in inner:  # a class without arguments
                inner = group[name] = {"class_path": inner}
            if not isinstance(inner, dict):
                parent = ".".join(parents[:depth])
                raise ValueError(f"{key}: {parent} has no arguments (got {inner!r})")
            group = inner
        _arguments(group, last)[last] = copy.deepcopy(value)
    return config


def _arguments(group: Config, name: str) -> Config:
    """The mapping that holds an argument: a class's own, or its `init_args`."""
    if "class_path" in group and name not in CLASS_KEYS:
        return group.setdefault("init_args", {})
    return group


def run_columns(factors: Sequence[str] = ()) -> list[str]:
    """The columns of the table of runs in their order, one for each factor among them."""
    before = ["run", "sweep", *factors, "seed", "control", "status", "error"]
    return [*before, *MEASUREMENTS, *ORIGIN, "config"]


def read_sweep(path: str | Path) -> SweepSpec:
    """Reads a sweep file and the base config that it names.

    Raises:
        DataError: If it cannot be read, or something in it breaks a rule; the message names the
            file and the key.
    """
    path = Path(path)
    content = _read_yaml(path)
    try:
        for key in content:
            if key not in FILE_KEYS:
                raise ValueError(f"{key}: no such key; a sweep has {', '.join(FILE_KEYS)}")
        for key in ("base", "factors"):
            if key not in content:
                raise ValueError(f"{key} is missing")
        name, base = content.get("name", path.stem), content["base"]
        if not isinstance(base, str):
            raise ValueError(f"base must be a config's file (got {base!r})")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"name must be letters, digits, spaces and any of . _ + = , -, and begin with a "
                f"letter or digit: it is a folder's name (got {name!r})"
            )
        seeds = content.get("seeds", [0])
        whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
        if not whole or not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds must be a list of different numbers from 0 (got {seeds!r})")
        overrides = _overrides("set", content.get("set") or {})
        factors = _factors(content["factors"])
        config = _read_yaml(path.parent / base)
        _check_json("base", config)
        _check_json("set", overrides)
        for factor, levels in factors.items():
            for label, level in levels.items():
                _check_json(f"factors.{factor}.{label}", level.overrides)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return SweepSpec(path, name, config, overrides, seeds, factors)


def _factors(content: Any) -> dict[str, dict[str, Level]]:
    factors: dict[str, dict[str, Level]] = {}
    for factor, choices in _mapping("factors", content).items():
        if not isinstance(factor, str) or not factor.isidentifier() or factor in run_columns():
            raise ValueError(
                f"factors.{factor}: a factor's name must be one of letters, digits and "
                "underscores, and no column of the table"
            )
        levels = factors[factor] = {}
        for label, level in _mapping(f"factors.{factor}", choices).items():
            path = f"factors.{factor}.{label}"
            if isinstance(label, bool) or not isinstance(label, str | int | float):
                raise ValueError(f"{path}: a label must be text or a number (got {label!r})")
            if str(label) in levels:
                raise ValueError(f"{path}: there are two levels of this label")
            levels[str(label)] = _level(
                path, {} if level is None else level, factor, list(map(str, content))
            )
    leaving = [f for f, levels in factors.items() if any(one.without for one in levels.values())]
    for left_out, (factor, levels) in itertools.product(leaving, factors.items()):
        for label, level in levels.items():
            if left_out in level.without:  # which came first?
                raise ValueError(
                    f"factors.{factor}.{label}.without must not have a factor that leaves out "
                    f"others itself (got {left_out!r})"
                )
    return factors


def _level(path: str, content: Any, factor: str, known: Sequence[str]) -> Level:
    """A level, short (overrides alone) or with the keys `set` and `without`."""
    if not isinstance(content, dict) or not content.keys() & {"set", "without"}:
        return Level(_overrides(path, content))
    for key in content.keys() - {"set", "without"}:
        raise ValueError(f"{path}.{key}: stands beside set or without; put it into set")
    without = content.get("without") or []
    if not isinstance(without, list) or not all(name in known for name in without):
        names = ", ".join(known)
        raise ValueError(f"{path}.without must be a list of factors, of {names} (got {without!r})")
    if factor in without:
        raise ValueError(f"{path}.without must not be its own factor (got {factor!r})")
    return Level(_overrides(f"{path}.set", content.get("set") or {}), without)


def _overrides(path: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{path} must be overrides by dotted key (got {content!r})")
    for key in content:
        if not isinstance(key, str) or not DOTTED_KEY.fullmatch(key):
            raise ValueError(
                f"{path}.{key}: must be a dotted key that begins with trainer., model. or data."
            )
    return content


def _check_json(path: str, content: Any) -> None:
    """Checks that JSON can hold what a run's config gets; YAML has bytes, and can hold itself."""
    try:
        json_text(content, path, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} must hold text, numbers, lists and mappings ({error})") from error


def _mapping(path: str, content: Any) -> dict[Any, Any]:
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} must have at least one entry (got {content!r})")
    return content


class _Loader(yaml.SafeLoader):
    """YAML that JSON can hold: a key stands once in a mapping, and numbers are finite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key {key!r} stands twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        number = super().construct_yaml_float(node)
        if not math.isfinite(number):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"a number must be finite (got {node.value}), line {line}")
        return number


_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)


def _read_yaml(path: Path) -> Config:
    if path.exists():
        check_regular(path, MAX_TEXT_BYTES)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path}: not a readable YAML file: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: must hold keys and values (got {type(content).__name__})")
    return content
