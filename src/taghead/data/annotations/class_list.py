"""Class lists: the name of every class, by its number."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from taghead.data.annotations.class_table import MAX_DIGITS, class_number, read_table
from taghead.data.annotations.clip import Clip
from taghead.data.annotations.text_files import read_json, read_lines
from taghead.errors import DataError

_FINEGYM = re.compile(
    rf"Clabel:\s*(\d{{1,{MAX_DIGITS}}});\s*set:\s*(\d+);\s*Glabel:\s*\d+;\s*(\S.*)"
)


def read_classes(path: str | Path) -> list[str]:
    """The names of a class list, in the order of their numbers.

    It is a text file with a name a line; a table of numbers and names, such as Kinetics'
    `id,name`, with or without a header; a FineGym category file, `Clabel: 0; set: 1; Glabel: 1;
    (VT) ...`; a JSON list of names, or of lists of their words, as Diving48 has it; or a JSON
    object from names to numbers, as Something-Something has it.

    FineGym gives some names to two classes of different sets: these get their set's number behind
    the name.

    Raises:
        DataError: If it cannot be read, or gives a name or a number twice, or leaves one out.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        names = _from_json(path, read_json(path))
    else:
        lines = [line.strip() for line in read_lines(path)]
        while lines and not lines[-1]:
            lines.pop()
        names = (
            _from_finegym(path, lines)
            if any(map(_FINEGYM.match, lines))
            else _from_text(path, lines)
        )
    for number, name in enumerate(names):
        if not name:
            raise DataError(f"{path}: class {number} has no name")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: two classes have the name {twice[0]!r}")
    if len(names) < 2:
        raise DataError(f"{path}: needs at least two classes (found {len(names)})")
    return names


def _from_text(path: Path, lines: Sequence[str]) -> list[str]:
    found = read_table(path, lines)
    return found if isinstance(found, list) else _in_order(path, "class number", found)


def _from_finegym(path: Path, lines: Sequence[str]) -> list[str]:
    found: dict[int, tuple[str, str]] = {}
    for number, line in enumerate(lines, start=1):
        match = _FINEGYM.match(line)
        if not match:
            raise DataError(f"{path}: line {number}: not like 'Clabel: 0; set: 1; ...' ({line!r})")
        label = int(match[1])
        if label in found:
            raise DataError(f"{path}: line {number}: Clabel {label} stands there twice")
        found[label] = match[3].strip(), match[2]
    counts = Counter(name for name, _ in found.values())
    names = {
        label: name if counts[name] == 1 else f"{name} [set {group}]"
        for label, (name, group) in found.items()
    }
    return _in_order(path, "Clabel", names)


def _from_json(path: Path, content: Any) -> list[str]:
    if isinstance(content, list):
        names = [" ".join(map(str, x)) if isinstance(x, list) else x for x in content]
        if all(isinstance(name, str) for name in names):
            return [name.strip() for name in names]
    elif isinstance(content, dict):
        counts = {name: _json_number(value) for name, value in content.items()}
        numbers = {number: name for name, number in counts.items() if number is not None}
        if len(numbers) == len(content) > 0:
            return _in_order(path, "number", numbers)
    raise DataError(
        f"{path}: must be a JSON list of names, or of lists of words, or an object from each name "
        "to a number of its own"
    )


def _json_number(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) < 10**MAX_DIGITS else None
    return class_number(value.strip()) if isinstance(value, str) else None


def _in_order(path: str | Path, what: str, names: dict[int, str]) -> list[str]:
    highest, lowest = max(names), min(names)
    missing = highest + 1 - sum(number >= 0 for number in names)
    if missing or lowest < 0:
        first = next(i for i in range(highest + 1) if i not in names) if missing else lowest
        raise DataError(
            f"{path}: {what} must count 0 to {highest} without a gap "
            f"({missing} missing, the first is {first})"
        )
    return [names[label] for label in sorted(names)]


def class_names(source: str | Path, clips: Sequence[Clip], what: str = "class number") -> list[str]:
    """The name of every class, by its number, as the training split gives them.

    Args:
        source: What lists the clips.
        clips: The clips of the training split.
        what: What `source` calls a class's number.

    Raises:
        DataError: If there is one class only, or the numbers are not 0, 1, ... without a gap.
    """
    names = {clip.label: clip.class_name for clip in clips}
    if not names:
        raise DataError(f"{source}: no clips to train on")
    if len(names) < 2:
        raise DataError(
            f"{source}: needs at least two classes (found only {clips[0].class_name!r})"
        )
    return _in_order(source, what, names)


def check_classes(source: str | Path, clips: Sequence[Clip], names: Sequence[str]) -> None:
    """Checks that a split's classes are those of training.

    Raises:
        DataError: If a class is unknown or has another number.
    """
    numbers = {name: number for number, name in enumerate(names)}
    for clip in clips:
        wanted = numbers.get(clip.class_name)
        if wanted is None:
            raise DataError(
                f"{source}: unknown class {clip.class_name!r}: training has no clip of it"
            )
        if wanted != clip.label:
            raise DataError(
                f"{source}: class {clip.class_name!r} has the number {clip.label}, "
                f"in training it has {wanted}"
            )


def class_numbers(
    source: str | Path, names: Sequence[str], classes: Sequence[str] | None
) -> dict[str, int]:
    """The number of each class name: its index in the class list, or else in alphabetical order.

    Args:
        source: What lists the names.
        names: Names of classes, in any order and number.
        classes: The class list, if there is one.

    Raises:
        DataError: If a name is not in the class list.
    """
    numbers = {name: i for i, name in enumerate(sorted(set(names)) if classes is None else classes)}
    for name in names:
        if name not in numbers:
            raise DataError(f"{source}: unknown class {name!r}: it is not among the classes")
    return numbers


def class_name_of(source: str | Path, where: str, label: int, classes: Sequence[str] | None) -> str:
    """The name of a class by its number; the number itself where there is no class list.

    Args:
        source: What lists the class, for the error.
        where: The line or entry that does, for the error.
        label: The number.
        classes: The class list, if there is one.

    Raises:
        DataError: If the class list ends before it.
    """
    if classes is None:
        return str(label)
    if not 0 <= label < len(classes):
        raise DataError(f"{source}: {where}: class {label} is not among the {len(classes)} classes")
    return classes[label]
