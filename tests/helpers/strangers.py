"""Files from strangers that name code: each is used as a user would, under an audit hook.

It runs in a process of its own, in a folder of its own, with a dataset of generated clips:
`python strangers.py DATASET`. It prints, as JSON, what happened to each variant.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
MARK = "PWNED"
CODE = f"open('{MARK}', 'w').close()"
ADDRESS = f"http://127.0.0.1:9/{MARK}"
PAYLOADS: dict[str, dict[str, Any]] = {
    "timeit.timeit": {"stmt": CODE, "number": 1},
    "torch.hub.load": {"repo_or_dir": "repo", "model": "pwn", "source": "local"},
    "os.system": {"command": f"touch {MARK}"},
    "builtins.eval": {"source": CODE},
    "subprocess.run": {"args": ["touch", MARK]},
    "stranger.Conv": {},
    "runpy.run_path": {"path_name": "stranger.py"},
    "importlib.import_module": {"name": "stranger"},
    "torch.os.system": {"command": f"touch {MARK}"},
    "torch.hub.load_state_dict_from_url": {"url": ADDRESS},
    "urllib.request.urlopen": {"url": ADDRESS},
    "webbrowser.open": {"url": ADDRESS},
    ADDRESS: {},
    f"s3://{MARK}/x": {},
}
"""Class paths with their options."""

STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "os.fork")
CONNECTS = ("socket.connect", "socket.getaddrinfo", "urllib.Request", "http.client.connect")
STRANGERS = ("stranger", "hubconf", "antigravity")
_seen: list[str] = []
_is_armed = False


def hook(event: str, args: tuple[Any, ...]) -> None:
    """Notes what only a stranger's code or address would do."""
    if not _is_armed:
        return
    is_run = event in STARTS or event in CONNECTS
    is_import = event == "import" and str(args[0]).partition(".")[0] in STRANGERS
    is_code = event in ("compile", "exec") and (
        MARK in str(args[0]) or "stranger" in str(args) or "hubconf" in str(args)
    )
    is_write = event == "open" and str(args[0]).endswith(MARK) and "w" in str(args[1])
    if is_run or is_import or is_code or is_write:
        _seen.append(f"{event} {args}"[:200])


@contextmanager
def watched() -> Iterator[list[str]]:
    """What was noted meanwhile."""
    global _is_armed
    _seen.clear()
    found: list[str] = []
    _is_armed = True
    try:
        yield found
    finally:
        _is_armed = False
        found += _seen
        if Path(MARK).exists():
            Path(MARK).unlink()
            found.append("the mark was made")


def tried(function: Callable[[], Any]) -> tuple[str, list[str]]:
    """How a call ended, and what was noted meanwhile."""
    out = StringIO()
    with watched() as seen, redirect_stderr(out), redirect_stdout(out):
        try:
            function()
            end = "done"
        except SystemExit as stop:
            end = f"exit {stop.code}"
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
    return f"{end} {out.getvalue()[-600:]}", seen


def controls() -> Iterator[tuple[str, Callable[[], Any]]]:
    """What the hook must note."""
    import timeit
    import urllib.request

    import torch

    yield "timeit.timeit", lambda: timeit.timeit(CODE, number=1)
    yield "torch.hub.load", lambda: torch.hub.load("repo", "pwn", source="local")
    yield "os.system", lambda: os.system("true")
    yield "builtins.eval", lambda: eval(CODE)
    yield "subprocess.run", lambda: subprocess.run(["true"], check=True)
    yield "stranger", lambda: __import__("stranger")
    yield "an address", lambda: urllib.request.urlopen(ADDRESS, timeout=1)


Variants = Iterator[tuple[str, Callable[[], Any]]]


def model_files(folder: Path) -> Variants:
    """Folders of `save_pretrained` and checkpoints."""
    import torch

    from taghead import TAGHead, VideoClassifier
    from taghead.backbones import build_backbone
    from taghead.cli import main
    from taghead.model.pretrained import load_model, save_checkpoint
    from taghead.video import Preprocessing

    backbone = build_backbone("r2plus1d_tiny")
    head = TAGHead(backbone.channels, 3, (2, 4, 4), channels=8)
    model = VideoClassifier(backbone, head, preprocessing=Preprocessing(8, 36, 32))
    model.save_pretrained(folder / "shared")
    save_checkpoint(model, folder / "model.ckpt")
    whole = torch.load(folder / "model.ckpt", weights_only=True)
    for path, options in PAYLOADS.items():
        spec = {"class_path": path, "init_args": options}
        listed = {"input_args": f"x: {CALL}", "modules": [[spec, "x -> x"]]}
        for place, key, value in (
            ("operator", "head", {"conv": spec}),
            ("option", "head", {"conv": {"class_path": NN, "init_args": {"nn": spec}}}),
            ("part of a list", "head", {"conv": {"class_path": SEQUENTIAL, "init_args": listed}}),
            ("text", "head", {"conv": {"class_path": GATED, "init_args": {"act": path}}}),
            ("relation", "head", {"relations": [path]}),
            ("rule", "head", {"relations": [{"name": "own", **spec}]}),
            ("readout", "head", {"readout": spec}),
            ("norm", "head", {"graph_norm_layer": path}),
            ("head", "head", spec),
            ("backbone", "backbone", path),
        ):
            config = copy.deepcopy(model.config())
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
            if place in ("operator", "option", "backbone"):  # one reader, two files
                (folder / "shared/config.json").write_text(json.dumps(config))
                yield f"folder {place} {path}", lambda: load_model(folder / "shared")
            torch.save({**whole, "video_classifier": config}, folder / "evil.ckpt")
            yield f"checkpoint {place} {path}", lambda: load_model(folder / "evil.ckpt")
    args = ["predict", "clip.mp4", f"--model={folder / 'evil.ckpt'}"]
    (folder / "clip.mp4").touch()
    torch.save({**whole, "video_classifier": {**config, "backbone": "os.system"}}, "evil.ckpt")
    yield "predict", lambda: main(args)


NN = "torch_geometric.nn.NNConv"
GATED = "torch_geometric.nn.ResGatedGraphConv"
SEQUENTIAL = "torch_geometric.nn.Sequential"
CALL = f"open('{MARK}', 'w')"  # PyG's Sequential evaluates the types of its arguments


def training(folder: Path, cache: Path) -> Variants:
    """Checkpoints that a test and a resumed training are given; each but the last is used."""
    import torch

    from taghead import TAGHead
    from taghead.cli import main
    from taghead.data import VideoDataModule
    from taghead.training import ClassificationTask
    from taghead.video import Preprocessing

    args = [
        *("--data=taghead.features.FeatureDataModule", f"--data.root={cache}"),
        *("--data.batch_size=9", "--data.num_workers=0", "--model.backbone=r2plus1d_tiny"),
        *("--model.head.channels=8", "--trainer.accelerator=cpu", "--trainer.logger=false"),
        *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
        f"--trainer.default_root_dir={folder}",
    ]
    callback = "--trainer.callbacks=taghead.training.LastCheckpoint"
    with redirect_stdout(sys.stderr):
        main(["fit", *args, callback, "--trainer.max_epochs=1"])
    whole = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    evil = folder / "evil.ckpt"
    paths = ("timeit.timeit", "os.system", "stranger.Conv", "torch.hub.load")
    for command, path in (*(("test", path) for path in paths), ("validate", "subprocess.run")):
        conv = {"class_path": path, "init_args": PAYLOADS[path]}
        hyper = {
            "_instantiator": "lightning.pytorch.cli.instantiate_module",
            "head": {"class_path": "taghead.TAGHead", "init_args": {"conv": conv}},
            "learning_rate": 1e9,
        }
        torch.save({**whole, "hyper_parameters": hyper}, evil)
        yield f"used {command} {path}", lambda c=command: main([c, *args, f"--ckpt_path={evil}"])
        options = {"class_names": list("abcdefghijklmnopqr"), "backbone": "r2plus1d_tiny"}
        options |= {"preprocessing": Preprocessing(8, 36, 32), "head": partial(TAGHead, channels=8)}
        load = partial(ClassificationTask.load_from_checkpoint, evil, **options)
        yield f"used load_from_checkpoint {path}", load
        torch.save({**whole, "datamodule_hyper_parameters": {**hyper, "root": "x"}}, evil)
        yield f"data of {path}", lambda: VideoDataModule.load_from_checkpoint(evil)
    torch.save({**whole, "hyper_parameters": hyper}, evil)
    fit = ["fit", *args, "--trainer.max_epochs=2", f"--ckpt_path={evil}"]
    yield "used fit", lambda: main(fit)
    state = {"best_k_models": {ADDRESS: torch.tensor(0.0)}, "kth_best_model_path": ADDRESS}
    torch.save({**whole, "callbacks": {"ModelCheckpoint{}": state}}, folder / "state.ckpt")
    fit[-1] = f"--ckpt_path={folder / 'state.ckpt'}"
    yield "resumed with an address", lambda: main(fit)
    for address in (ADDRESS, f"s3://{MARK}/x", f"hf://{MARK}/x", "file:///evil.ckpt", "registry:x"):
        yield f"--ckpt_path {address}", lambda a=address: main(["test", *args, f"--ckpt_path={a}"])


def caches(folder: Path, cache: Path) -> Variants:
    """Manifests of feature caches, and annotations."""
    from taghead.cli import main
    from taghead.data import VideoDataModule
    from taghead.features import FeatureCache

    manifest = json.loads((cache / "manifest.json").read_text())
    for file in cache.iterdir():
        if file.name != "manifest.json":
            (folder / file.name).symlink_to(file)
    for path in PAYLOADS:
        text = json.dumps({**manifest, "backbone": path})
        (folder / "manifest.json").write_text(text)
        yield f"cache {path}", lambda: FeatureCache(folder).backbone()
    args = ["--data=taghead.features.FeatureDataModule", f"--data.root={folder}"]
    yield "fit on a cache", lambda: main(["fit", *args, "--model.backbone=r2plus1d_tiny"])
    (folder / "train.csv").write_text(f"{ADDRESS}.mp4 0\n{ADDRESS}2.mp4 1\n")

    def first_clip() -> None:
        data = VideoDataModule(str(folder), str(folder / "train.csv"), num_workers=0)
        data.setup("fit")
        data.dataset("train")[0]

    yield "an annotation with addresses", first_clip


def configs(folder: Path) -> Variants:
    """Configs and command lines, by the early check and by the parser that runs them."""
    from taghead.cli import main
    from taghead.sweep.run import RunCLI

    data = {"class_path": "taghead.data.SynthGym", "init_args": {"root": str(folder)}}
    for path, options in PAYLOADS.items():
        spec = {"class_path": path, "init_args": options}
        for place, content in (
            ("operator", {"model": {"head": {"init_args": {"conv": spec}}}, "data": data}),
            ("data", {"data": spec}),
            ("callback", {"trainer": {"callbacks": [spec]}, "data": data}),
            ("backbone", {"model": {"backbone": path}, "data": data}),
        ):
            file = folder / "config.yaml"
            file.write_text(json.dumps(content))
            if not path.startswith("torch."):  # a config is code, and torch's may be named
                yield f"config {place} {path}", lambda f=file: main(["fit", f"--config={f}"])
                yield f"parser {place} {path}", lambda c=content: RunCLI(copy.deepcopy(c))
    for address in (ADDRESS, f"s3://{MARK}/x.yaml", f"memory://{MARK}.yaml"):
        yield f"--config {address}", lambda a=address: main(["fit", f"--config={a}"])
        head = [f"--model.head={address}", "--data=taghead.data.SynthGym", "--data.root=x"]
        yield f"--model.head {address}", lambda h=head: main(["fit", *h])
    yield (
        "--modules os",
        lambda: main(["fit", "--modules=os", f"--config={folder / 'config.yaml'}"]),
    )


def stores(folder: Path) -> Variants:
    """Stores of sweeps: a config that was changed, and a run that was added."""
    import sqlite3

    import yaml

    from taghead.sweep import RunSpec, read_sweep
    from taghead.sweep.run import RunCLI
    from taghead.sweep.store import Store

    base = {"data": {"class_path": "taghead.data.SynthGym", "init_args": {"root": str(folder)}}}
    (folder / "base.yaml").write_text(yaml.safe_dump(base))
    factors = {"f": {"a": {"model.learning_rate": 0.1}, "b": {"model.learning_rate": 0.2}}}
    sweep = {"name": "tiny", "base": "base.yaml", "factors": factors}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    spec = read_sweep(folder / "sweep.yaml")
    known = {run.id: run.config for run in spec.runs()}

    def run(store: Store, runs: Any) -> None:
        assert store.run_next("a", lambda config: RunCLI(config) and None, {}, runs)  # type: ignore[arg-type,func-returns-value]
        errors = [trial.user_attrs.get("error") for trial in store.trials()]
        raise RuntimeError(str([error for error in errors if error]))

    for number, (path, options) in enumerate(PAYLOADS.items()):
        evil = {**base, "model": {"head": {"conv": {"class_path": path, "init_args": options}}}}
        url = f"sqlite:///{folder}/{number}.db"
        store = Store(url, "tiny")
        store.enqueue(["f"], spec.runs()[:1])
        with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
            text = json.dumps(json.dumps(evil))
            query = "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'config'"
            assert database.execute(query, (text,)).rowcount == 1
        yield f"changed {path}", lambda s=store: run(s, known)
        yield f"changed, checked {path}", lambda s=store: s.check(spec, spec.runs())
        added = Store(f"sqlite:///{folder}/added-{number}.db", "tiny")
        added.enqueue(["f"], [RunSpec({"f": "a"}, 0, evil)])
        yield f"added {path}", lambda s=added: run(s, known)
        yield f"added, checked {path}", lambda s=added: s.check(spec, spec.runs())


def feature_cache(dataset: str, root: Path) -> Path:
    """A small feature cache of generated clips."""
    from taghead.backbones import build_backbone
    from taghead.data import SynthGym
    from taghead.features.extract import write_features
    from taghead.video import Preprocessing

    sizes = {"num_train": 36, "num_val": 18, "num_test": 18}
    data = SynthGym(dataset, preprocessing=Preprocessing(8, 36, 32), num_workers=0, **sizes)
    with redirect_stdout(sys.stderr):
        write_features(root, build_backbone("r2plus1d_tiny").eval(), data)
    return root


def run_all(dataset: str) -> dict[str, Any]:
    """What happened to all variants, and to the controls."""
    import torch

    torch.set_num_threads(1)
    here = Path.cwd()
    (here / "repo").mkdir()
    (here / "repo/hubconf.py").write_text(f"{CODE}\ndef pwn(): pass\n")
    (here / "stranger.py").write_text(f"{CODE}\n")
    sys.path.insert(0, str(here))  # as `python -c` has it
    sys.argv = ["taghead"]
    cache = feature_cache(dataset, here / "cache")
    sys.addaudithook(hook)
    found: dict[str, Any] = {}
    for kind in (model_files, training, caches, configs, stores):
        folder = here / kind.__name__
        folder.mkdir()
        variants = kind(folder, cache) if kind in (training, caches) else kind(folder)  # type: ignore[operator]
        found[kind.__name__] = {name: tried(call) for name, call in variants}
    found["controls"] = {name: tried(call) for name, call in controls()}
    return found


if __name__ == "__main__":
    print(json.dumps(run_all(sys.argv[1])))
