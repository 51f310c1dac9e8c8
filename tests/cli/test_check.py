"""Wrong command lines: one to three lines that lead to the mend, before torch is imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from taghead.cli import main
from taghead.cli.check import Check
from taghead.cli.table import COMMANDS, HINTS
from taghead.errors import UsageError

ROOT = Path(__file__).parents[2]
SLOW = {"torch", "lightning", "torch_geometric", "torchvision", "matplotlib", "pandas", "optuna"}
RUN = """
import json, resource, sys
from taghead.cli import main
try:
    main(sys.argv[1:])
    code = 0
except SystemExit as stop:
    code = stop.code
used = resource.getrusage(resource.RUSAGE_SELF)
modules = sorted({name.partition(".")[0] for name in sys.modules})
text = code if isinstance(code, str) else ""
print(json.dumps([1 if text else code, text, modules, used.ru_utime + used.ru_stime]))
"""
GATV2 = "--model.head.conv=torch_geometric.nn.GATv2Conv"
WRONG: list[tuple[list[str], int, str]] = [
    (["predikt"], 2, "there is no command 'predikt'; did you mean predict?"),
    (["bench", "modle"], 2, "there is no command 'bench modle'; did you mean bench model?"),
    (
        ["bench"],
        2,
        "taghead bench needs a second word\nexample: taghead bench model r2plus1d_34 "
        "--precision bf16-mixed",
    ),
    (
        ["fit", "--epochs", "5"],
        2,
        "taghead fit has no option --epochs; did you mean --trainer.max_epochs?",
    ),
    (
        ["fit", "lr=3"],
        2,
        "taghead fit takes no argument lr=3; did you mean --model.learning_rate?",
    ),
    (
        ["fit", "--config", "experiments/synthgim.yaml"],
        1,
        "experiments/synthgim.yaml: no such config; did you mean experiments/synthgym.yaml?",
    ),
    (
        ["fit", "--config", "experiments/synthgym.yaml", GATV2, "--model.head.conv.headz=4"],
        2,
        "--model.head.conv.headz: GATv2Conv has no option headz; "
        "did you mean --model.head.conv.heads?",
    ),
    (
        ["fit", "--config=experiments/synthgym.yaml", GATV2.replace("v2", "v3")],
        2,
        "--model.head.conv=torch_geometric.nn.GATv3Conv: torch_geometric.nn has no GATv3Conv; "
        "did you mean torch_geometric.nn.GATv2Conv or torch_geometric.nn.GATConv?",
    ),
    (
        ["fit", "--data=taghead.data.SynthGim"],
        2,
        "--data=taghead.data.SynthGim: taghead.data has no SynthGim; "
        "did you mean taghead.data.SynthGym?",
    ),
    (
        ["fit", "--config=experiments/synthgym.yaml", "--model.loss=crossentropy"],
        2,
        "--model.loss must be cross_entropy, logit_adjustment or balanced_softmax "
        "(got 'crossentropy'); did you mean cross_entropy?",
    ),
    (
        ["test", "--config=experiments/synthgym.yaml", "--trainer.max-epochs", "many"],
        2,
        "--trainer.max_epochs must be an integer or null (got 'many')",
    ),
    (
        ["fit", "--config=experiments/synthgym.yaml", "--ckpt_path=best"],
        1,
        "best: no such checkpoint; give the file, RUN/checkpoints/*.ckpt",
    ),
    (
        ["fit", "--data=taghead.data.VideoDataModule", "--data.root=nowhere"],
        1,
        "nowhere: no such folder of videos",
    ),
    (
        ["predict", "missing.mp4", "--model", "runs/demo/model.ckpt"],
        1,
        "missing.mp4: no such video file\nerror: runs/demo/model.ckpt: no such model; "
        "`taghead demo` and `taghead fit` write models",
    ),
    (
        ["predict"],
        2,
        "taghead predict needs VIDEOS: The video files.\n"
        "example: taghead predict clip.mp4 --model runs/demo/model.ckpt",
    ),
    (
        ["predict", "README.md"],
        2,
        "taghead predict needs --model: A training checkpoint, or a folder that "
        "`save_pretrained` wrote.\nexample: taghead predict clip.mp4 --model runs/demo/model.ckpt",
    ),
    (["predict", "--videos=a.mp4"], 2, "--videos: VIDEOS stands without a name\nexample: taghead "),
    (
        ["explain", "a.mp4", "-x"],
        2,
        "-x: options begin with two dashes; see taghead explain --help",
    ),
    (["demo", "--seed"], 2, "--seed needs a value: --seed=VALUE"),
    (["sweep", "nowhere.yaml"], 1, "nowhere.yaml: no such sweep file"),
    (["compare", "nowhere", "--num-draws=9"], 1, "nowhere: no such folder"),
    (["index", "nowhere"], 1, "nowhere: no such folder of videos"),
    (["convert", "nowhere", "out"], 1, "nowhere: no such model"),
    (["extract", "out", "--data.rot=a"], 2, "--data.rot: data has no option rot; did you mean"),
    (["generate", "clips", "--levels=1"], 2, "taghead generate has no option --levels; did you "),
    (
        ["bench", "model", "r3d_18", "--head.mod=none"],
        2,
        "--head.mod: head has no option mod; did you mean --head.mode?",
    ),
]
SHOWN = [[], ["--help"], ["--version"], *([*n.split(), "--help"] for n in COMMANDS)]
SHOWN += [["fit", "--model.head.conv.help", "torch_geometric.nn.GATv2Conv"]]


def run(args: list[str]) -> tuple[int, str, set[str], float, str]:
    """Code, error, imported modules, CPU seconds and output of a command."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *args], capture_output=True, text=True, cwd=ROOT, check=True
    )
    *printed, last = done.stdout.splitlines()
    code, told, modules, seconds = json.loads(last)
    return code, done.stderr + told, set(modules), seconds, "\n".join(printed)


@pytest.mark.parametrize(("args", "code", "text"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_command_line_is_told_before_torch_is_imported(
    args: list[str], code: int, text: str
) -> None:
    found, told, modules, seconds, printed = run(args)
    assert found == code
    assert told.startswith(f"error: {text}")
    assert len(told.splitlines()) <= 3
    assert printed == ""
    assert not modules & SLOW
    assert seconds < 1


@pytest.mark.parametrize("args", SHOWN, ids=" ".join)
def test_help_imports_nothing_that_takes_time(args: list[str]) -> None:
    code, told, modules, seconds, printed = run(args)
    assert (code, told) == (0, "")
    assert printed
    assert max(map(len, printed.splitlines())) <= 100
    assert not modules & SLOW
    assert seconds < 1


def test_the_page_of_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    page = capsys.readouterr().out
    assert all(f"  {name} " in page and command.about in page for name, command in COMMANDS.items())
    assert "examples:\n  taghead demo\n  taghead predict clip.mp4" in page


def test_help_has_each_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "-h"])
    page = capsys.readouterr().out
    for part in (
        "--trainer.max_epochs INTEGER",
        "--model.loss cross_entropy|logit_adjustment|balanced_softmax",
        "--model.head.mode union|per_relation|edge_type|none",
        "(default: per_relation)",
        "--data.preprocessing.num_frames INTEGER",
        "example: taghead fit --config experiments/synthgym.yaml",
    ):
        assert part in page
    assert "class_names" not in page  # the data give them
    assert "--model.head.in_channels" not in page  # the backbone gives it
    main(["fit", "--model.head.conv.help=torch_geometric.nn.SAGEConv"])
    assert "--model.head.conv.root_weight true|false" in capsys.readouterr().out


def checked(name: str, *args: str) -> list[str]:
    return Check(COMMANDS[name], list(args)).run()


def test_dashes_and_underscores_are_the_same() -> None:
    args = ["--data=taghead.data.SynthGym", "--model.learning-rate", "1e-3", "--ckpt-path=last"]
    assert checked("fit", *args) == [
        "--data=taghead.data.SynthGym",
        *("--model.learning_rate", "1e-3"),
        "--ckpt_path=last",
    ]
    assert checked("demo", "--num-train=9") == ["--num_train=9"]
    assert checked("generate", "my-clips", "--num-workers", "-1")[0] == "my-clips"


def test_a_flag_needs_no_value(tmp_path: Path) -> None:
    file = str(tmp_path)
    assert checked("sweep", "--dry-run", file) == ["--dry_run=true", file]
    assert checked("sweep", file, "--retry_failed", "--workers", "2") == [
        *(file, "--retry_failed=true"),
        *("--workers", "2"),
    ]
    assert checked("sweep", "--dry_run", "false", file) == ["--dry_run", "false", file]
    data = "--data=taghead.data.SynthGym"
    flags = ["--model.freeze-backbone", "--trainer.fast_dev_run"]
    assert checked("fit", data, *flags, "--print_config") == [
        data,
        "--model.freeze_backbone=true",
        "--trainer.fast_dev_run=true",
        "--print_config",
    ]


@pytest.mark.parametrize("config", sorted(ROOT.glob("experiments/*.yaml")), ids=lambda p: p.stem)
def test_no_shipped_config_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = ["--data.root=experiments"]  # a folder that is there
    monkeypatch.chdir(ROOT)
    for name in ("fit", "validate", "test"):
        assert checked(name, f"--config={config}", *root) == [f"--config={config}", *root]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("models: {}", "models: taghead fit has no option models; did you mean model?"),
        (
            "trainer: {max_epoch: 3}",
            "trainer.max_epoch: trainer has no option max_epoch; did you mean trainer.max_epochs?",
        ),
        (
            "model: {head: {class_path: taghead.TAGHead, init_args: {channelz: 3}}}",
            "model.head.init_args.channelz: TAGHead has no option channelz; "
            "did you mean model.head.channels?",
        ),
        (
            "model: {head: {class_path: taghead.TAGHaed}}",
            "model.head: taghead has no TAGHaed; did you mean taghead.TAGHead?",
        ),
        (
            "trainer: {plugins: [{class_path: taghead.TAGHead, init_args: {mod: none}}]}",
            "trainer.plugins: TAGHead has no option mod; did you mean mode?",
        ),
        ("model: {optimizer: adamm}", "model.optimizer must be adam or adamw (got 'adamm'); did "),
    ],
)
def test_a_wrong_config_is_told_with_file_and_key(
    content: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    with pytest.raises(SystemExit) as stop:
        main(["fit", f"--config={file}", "--data=taghead.data.SynthGym"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: {told}")
    assert error.count("\n") == 1


STRANGE = (
    "is not allowed: classes come from taghead, torch, torchvision, torch_geometric, lightning"
)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("model: {head: {class_path: taghead.TAGHead, init_args: {conv: mine.ops.Conv}}}", "conv"),
        ("model: {head: {init_args: {conv: {class_path: mine.ops.Conv}}}}", "conv"),
        ("model: {head: mine.ops.Conv}", "model.head"),
        ("model: {backbone: mine.ops.Conv}", "model.backbone"),
        ("data: {class_path: mine.ops.Conv}", "data"),
        ("trainer: {callbacks: [{class_path: mine.ops.Conv}]}", "trainer.callbacks"),
        ("trainer: {logger: {init_args: {x: [{y: {class_path: mine.ops.Conv}}]}}}", "x.y"),
    ],
)
def test_a_class_of_a_module_that_was_not_named(
    content: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(content)
    data = [] if content.startswith("data") else ["--data=taghead.data.SynthGym"]
    args = ["fit", f"--config={file}", *data]
    for named in ([], ["--modules=mine.opsy,other"], ["--modules", "mine.op"]):
        with pytest.raises(SystemExit) as stop:
            main([*args, *named])
        assert stop.value.code == 2
        error = capsys.readouterr().err
        told = f"{key}: mine.ops.Conv {STRANGE} and modules that you name: --modules=mine.ops runs"
        assert error.startswith(f"error: {file}: ")
        assert told in error
        assert error.count("\n") == 1
    for name in ("mine", "mine.ops", "[other, mine]"):
        check = Check(COMMANDS["fit"], [*args[1:], f"--modules={name}"])
        assert check.run() == args[1:]
        assert check.modules == name.strip("[]").split(", ")
    with pytest.raises(SystemExit):  # a module of the standard library leads to no --modules
        main(["fit", "--data=os.system"])
    assert capsys.readouterr().err.endswith("(--modules), none from Python's os\n")


def test_only_the_command_line_names_modules(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("modules: [os]")
    with pytest.raises(UsageError, match="modules: only the command line names modules"):
        Check(COMMANDS["fit"], [f"--config={file}", "--data=taghead.data.SynthGym"]).run()
    with pytest.raises(UsageError, match=r"--modules needs names: .* \(got 'a,,b'\)"):
        Check(COMMANDS["fit"], ["--modules=a,,b"])
    takes = {name for name in COMMANDS if COMMANDS[name].takes_modules}
    trained = {"fit", "validate", "test", "sweep", "extract"}
    assert takes == trained | {"predict", "explain", "convert", "bench model"}
    with pytest.raises(UsageError, match=r"mine.Net is not allowed: "):
        Check(COMMANDS["bench model"], ["r2plus1d_tiny", "mine.Net"]).run()
    with pytest.raises(UsageError, match="has no option --modules"):
        Check(COMMANDS["index"], ["videos", "--modules=a"]).run()


def test_the_help_says_what_is_code(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "--help"])
    text = capsys.readouterr().out
    assert "Give configs that you wrote, for a config is code." in text
    assert "--modules TEXT" in text


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: [")
    with pytest.raises(SystemExit, match=r"^error: .*config.yaml: not a readable config: ") as stop:
        main(["fit", f"--config={tmp_path / 'config.yaml'}"])
    assert "\n" not in str(stop.value.code)


def test_the_best_checkpoint_is_that_of_the_newest_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = Path("runs/a/version_3/checkpoints/best.ckpt")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    args = ["test", "--data=taghead.data.SynthGym", "--ckpt_path=best"]
    with pytest.raises(SystemExit, match=rf"^error: best: .*; did you mean {checkpoint}\?$"):
        main(args)


def test_one_of_several_videos_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "model.ckpt").touch()
    (tmp_path / "clip.mp4").touch()
    files = [str(tmp_path / "clip.mp4"), str(tmp_path / "none.mp4")]
    args = [*files, f"--model={tmp_path / 'model.ckpt'}"]
    assert checked("predict", *args) == args


def test_files_of_a_class_that_another_replaces(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    path = "taghead.data.VideoDataModule"
    config.write_text(f"data: {{class_path: {path}, init_args: {{root: nowhere}}}}\n")
    with pytest.raises(SystemExit, match=r"^error: nowhere: no such folder of videos$"):
        main(["fit", f"--config={config}"])
    checked("fit", f"--config={config}", "--data=taghead.data.SynthGym")  # it makes its folder


def test_examples_and_hints_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for name, command in COMMANDS.items():
        program, *args = command.example.split()
        assert program == "taghead"
        assert args[: len(name.split())] == name.split()
        check = Check(command, args[len(name.split()) :])
        monkeypatch.setattr(check, "_files", lambda: None)  # they need not be there
        if "version_0/config.yaml" not in command.example:
            check.run()
    keys = {key for name in COMMANDS for key in Check(COMMANDS[name], []).options.every_key()}
    assert {key for hints in HINTS.values() for key in hints} <= keys
