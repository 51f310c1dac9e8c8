"""Is anything lost, done twice, or answered with a wrong exit code when commands are disturbed?

Runs each command once undisturbed, then many times with a disturbance at a random moment, runs the
same command again, and compares what it made: `make trials`, or
`PYTHONPATH=benchmarks python -m trials --trials=60 --pairs=10 --seed=0`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from trials.launch import Server
from trials.pairs import needed, pairs_of
from trials.trial import Outcome, Runner, plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60, help="number of disturbed commands")
    parser.add_argument("--pairs", type=int, default=10, help="pairs of fit and of last, each")
    parser.add_argument("--seed", type=int, default=0, help="of commands and moments")
    parser.add_argument("--jobs", type=int, default=1, help="trials at a time")
    parser.add_argument("--commands", nargs="*", help="only these commands")
    parser.add_argument("--disturbances", nargs="*", help="only these disturbances")
    parser.add_argument("--keep", help="a folder for the inputs and what faults leave")
    parser.add_argument("--output", help="a file for the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Server() as server:
        runner = Runner(Path(options.keep or folder).absolute(), server)
        planned = plan(options.trials, options.seed, options.commands, options.disturbances)
        pairs = pairs_of(options.pairs, options.commands)
        outcomes: list[Outcome] = []
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("references", total=len(planned) + len(pairs))
            runner.make_references([*(trial.command for trial in planned), *needed(pairs)])
            if pairs:
                runner.make_half_trained()
            bar.update(task, description="trials")
            jobs = [partial(runner.run, trial) for trial in planned]
            jobs += [partial(runner.run_pair, pair, number) for number, pair in enumerate(pairs)]
            with ThreadPoolExecutor(options.jobs) as pool:
                for done in as_completed([pool.submit(job) for job in jobs]):
                    outcomes.append(done.result())
                    print(outcomes[-1], flush=True)
                    bar.advance(task)
    text = table(outcomes)
    print(text)
    if options.output:
        Path(options.output).write_text(text, encoding="utf-8")
    raise SystemExit(any(outcome.faults for outcome in outcomes))


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes in Markdown: a row for each command and disturbance."""
    rows: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        rows.setdefault((outcome.command, outcome.disturbance), []).append(outcome)
    lines = ["| command | disturbance | trials | exit codes | right | faults |"]
    lines.append("|---|---|---|---|---|---|")
    for (command, disturbance), several in sorted(rows.items()):
        codes = ", ".join(sorted({each.codes for each in several}))
        right = sum(not each.faults for each in several)
        faults = "; ".join(dict.fromkeys(fault for each in several for fault in each.faults))
        count = len(several)
        lines.append(f"| {command} | {disturbance} | {count} | {codes} | {right} | {faults} |")
    right = sum(not outcome.faults for outcome in outcomes)
    lines.append(f"\n{right} of {len(outcomes)} right.\n")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
