"""The command `taghead compare`: a report with statistics and plots from stored runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from taghead.errors import DataError, check_counts
from taghead.files import atomic_folder


def compare_runs(
    folders: list[str],
    output: str | None = None,
    control: str | None = None,
    intro: str | None = None,
    clusters: str | None = None,
    num_draws: int = 10_000,
) -> None:
    """Writes a report of stored sweeps: each configuration beside its control, and plots.

    Each folder has `runs.csv` and `predictions.parquet`, as `taghead sweep` writes them, and
    becomes a section. Its `notes.md`, if there is one, is included as it is. Beside the Markdown
    file lie `configurations.csv`, with all numbers, and `figures/`. The same tables give the same
    files.

    Args:
        folders: The sweeps' folders.
        output: The Markdown file; `RESULTS.md` in the folder when not given.
        control: Which runs are the controls, `factor=level[,factor=level]`; those that the table
            marks when not given.
        intro: A Markdown file that comes first, included as it is.
        clusters: A regular expression: clips in whose ids it finds the same text depend on each
            other, and are drawn together. Without it each clip stands for itself.
        num_draws: The number of draws of seeds and clips in the bootstrap.

    Raises:
        DataError: If a table breaks a rule.
        ValueError: If an argument does.
    """
    for library in ("adjustText", "statsmodels", "tabulate"):
        if importlib.util.find_spec(library) is None:
            raise DataError(f"taghead compare needs {library}: pip install 'taghead[sweep]'")
    import pandas as pd

    from taghead.compare.markdown import METHOD, section
    from taghead.compare.plots import draw_figures
    from taghead.compare.results import compare_configurations
    from taghead.compare.tables import cluster_pattern, read_table

    check_counts(num_draws=num_draws)
    if output is None and len(folders) != 1:
        raise ValueError(f"output must be given with several folders (got {len(folders)})")
    target = Path(output or Path(folders[0]) / "RESULTS.md")
    cluster_of = None if clusters is None else cluster_pattern(clusters)
    opening = "# Results\n" if intro is None else _text(Path(intro))
    sweeps = [
        compare_configurations(read_table(folder, control), cluster_of, num_draws)
        for folder in folders
    ]
    stems = _stems([results.table.name for results in sweeps])
    parts = [opening.rstrip("\n") + "\n"]
    with atomic_folder(target.parent / "figures") as stage:
        for results, stem in zip(sweeps, stems, strict=True):
            notes = results.table.folder / "notes.md"
            figures = draw_figures(results, stage, stem)
            parts.append(section(results, figures, _text(notes) if notes.is_file() else None))
    parts.append(METHOD.format(num_draws=f"{num_draws:,}"))
    with atomic_folder(target.parent) as stage:
        numbers = pd.concat([results.numbers for results in sweeps])
        numbers.to_csv(stage / "configurations.csv", index=False, float_format="%.10g")
        (stage / target.name).write_text("\n".join(parts), encoding="utf-8")
    count = f"{len(sweeps)} sweeps. " if len(sweeps) > 1 else ""
    print(f"{count}Written to {target}")


def _stems(names: list[str]) -> list[str]:
    """Names of sweeps as unique stems of file names."""
    stems = [re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "sweep" for name in names]
    return [
        f"{stem}-{number}" if stem in stems[:number] else stem for number, stem in enumerate(stems)
    ]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8: {error}") from error
