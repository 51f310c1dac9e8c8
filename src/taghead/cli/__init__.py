"""The command `taghead`."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from taghead import __version__

USAGE = """usage: taghead COMMAND ...

Train and use graph heads on 3D video backbones.

  fit        train a model                  taghead fit --config experiments/synthgym.yaml
  validate   evaluate on the validation split
  test       evaluate on the test split     taghead test --config CONFIG --ckpt_path CHECKPOINT
  predict    classes of video files         taghead predict CLIP.mp4 --model CHECKPOINT
  explain    what a model attended to: pictures, numbers, a video and an interactive page
  index      check a dataset: every clip read once, a manifest that training reads, a report
  extract    write a frozen backbone's features, on which heads train in minutes
  sweep      train many variants, in parallel and resumably, into one table of runs
  convert    a checkpoint, or one that the paper's authors released, to a folder to share
  bench      what a model costs             taghead bench model r2plus1d_34
  compare    report stored sweeps: differences with intervals, plots
  generate   write a dataset of generated clips
  demo       generate clips, train, test and predict, all in a few minutes

`taghead COMMAND --help` tells a command's options.
"""


# what PyG does at import, how Lightning is called, two loggers that share a folder, a backbone that
# is frozen, a test of averaged weights, which a checkpoint holds, a run that goes on in its
# folder, or another that tests it, and clips that fill up a batch, which count once: none of it
# concerns a user
HARMLESS = (
    r".*torch\.jit\.script.*",
    r"LightningCLI's args parameter.*",
    r"Experiment logs directory .* exists and is not empty.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r"You're using the WeightAveraging callback, but loading a checkpoint.*",
    r"Checkpoint directory .* exists and is not empty",
    r"The dirpath has changed from .* therefore `best_model_score`.*",
    r"Using `DistributedSampler` with the dataloaders.*",
    r"Found \d+ module\(s\) in eval mode at the start of training.*",
)


def main(args: Sequence[str] | None = None) -> None:
    """Runs one command; an error that the user can mend is told in a line, with exit code 1."""
    args = list(sys.argv[1:] if args is None else args)
    if not args or args[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    if args[0] == "--version":
        print(__version__)
        return
    for message in HARMLESS:
        warnings.filterwarnings("ignore", message=message)
    from taghead.errors import DataError, one_line

    try:
        _run(args)
    except (DataError, OSError) as error:
        raise SystemExit(f"error: {one_line(error)}") from None


def _run(args: list[str]) -> None:
    command = args[0]
    if command in ("fit", "validate", "test"):
        _lightning(args)
    elif command == "predict":
        from taghead.inference.predictor import predict

        _function(predict, args, many="videos")
    elif command == "explain":
        from taghead.explain.command import explain

        _function(explain, args, many="videos")
    elif command == "index":
        from taghead.data.index.command import index

        _function(index, args, positional=("root",))
    elif command == "extract":
        _extract(args)
    elif command == "sweep":
        from taghead.sweep import sweep

        _function(sweep, _with_flags(args, "dry_run", "retry_failed"), positional=("file",))
    elif command == "convert":
        from taghead.inference.convert_checkpoint import convert

        _function(convert, args, positional=("source", "output"))
    elif command == "bench":
        _bench(args)
    elif command == "compare":
        from taghead.compare.command import compare_runs

        _function(compare_runs, args, many="folders")
    elif command == "generate":
        from taghead.data.synthetic import write_dataset

        _function(write_dataset, args, positional=("root",))
    elif command == "demo":
        from taghead.demo import demo

        _function(demo, args)
    else:
        print(USAGE, end="", file=sys.stderr)
        raise SystemExit(f"error: there is no command {command!r}")


def _function(
    function: Callable[..., Any],
    args: list[str],
    many: str | None = None,
    positional: Sequence[str] = (),
) -> None:
    """Runs a function whose arguments are the command's options.

    `many` (one value or more) and `positional` arguments come without their names.
    """
    from jsonargparse import ArgumentParser

    from taghead.errors import DataError

    parser = ArgumentParser(prog=f"taghead {args[0]}", description=_first_line(function))
    if many:
        parser.add_argument(many, nargs="+")
    for name in positional:
        parser.add_argument(name)
    skip: set[str | int] = {many or "", *positional}
    parser.add_function_arguments(function, skip=skip, as_group=False)
    options = parser.parse_args(args[1:])
    try:
        function(**parser.instantiate(options).as_dict())
    except ValueError as error:
        raise DataError(str(error)) from error


def _with_flags(args: list[str], *flags: str) -> list[str]:
    """Arguments in which a flag that stands without a value, or with a dash, is set to true."""
    bare = {
        f"--{name}": f"--{flag}=true" for flag in flags for name in (flag, flag.replace("_", "-"))
    }
    return [bare.get(arg, arg) for arg in args]


def _bench(args: list[str]) -> None:
    """`bench model`; its name stands before its options."""
    if args[1:2] != ["model"]:
        raise SystemExit("usage: taghead bench model BACKBONE... [options]; see --help behind it")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler tells when it starts
    from taghead.model.costs.command import bench_model

    _function(bench_model, ["bench model", *args[2:]], many="backbones")


def _extract(args: list[str]) -> None:
    """`extract`, which takes data and backbone from a config of `fit` too."""
    from argparse import ArgumentParser as PlainParser

    from jsonargparse import ArgumentParser

    from taghead.errors import DataError, one_line
    from taghead.features.extract import experiment, extract

    about = "a config of `fit`, of which the data and the backbone are taken"
    parser = ArgumentParser(prog="taghead extract", description=_first_line(extract))
    parser.add_argument("output", help="the cache's folder")
    parser.add_argument("--config", metavar="FILE", help=about)
    parser.add_function_arguments(extract, skip={"output"}, as_group=False)
    first = PlainParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config")
    config = first.parse_known_args(args[1:])[0].config
    if config is not None:
        parser.set_defaults(experiment(config))
    options = parser.parse_args(args[1:])
    try:
        arguments = parser.instantiate(options).as_dict()
        del arguments["config"]
        extract(**arguments)
    except ValueError as error:
        raise DataError(one_line(error)) from error


def _lightning(args: list[str]) -> None:
    from taghead.data import VideoDataModule
    from taghead.training.lightning_cli import TagheadCLI
    from taghead.training.task import ClassificationTask

    TagheadCLI(
        ClassificationTask,
        VideoDataModule,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        args=args,
    )


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").splitlines()[0]
