"""`taghead extract`, and what the other commands make of a cache."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from taghead import TAGHead, VideoClassifier
from taghead.backbones import Backbone
from taghead.cli import main
from taghead.data import SynthGym

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
DataOf = Callable[..., SynthGym]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["taghead"])
    return tmp_path


@pytest.fixture
def model(backbone: Backbone, data_of: DataOf, folder: Path) -> str:
    """A model with the backbone, as `save_pretrained` writes it."""
    data = data_of()
    grid = backbone.grid(data.preprocessing.num_frames, data.preprocessing.crop)
    head = TAGHead(backbone.channels, len(data.class_names), grid, encoder_layers=0)
    VideoClassifier(backbone, head, data.class_names, data.preprocessing).save_pretrained("model")
    return "model"


@pytest.fixture
def extract(dataset: Path, model: str) -> Callable[..., None]:
    options = ["num_train=36", "num_val=18", "num_test=18", "num_workers=0"]
    options += [f"preprocessing.{o}" for o in ("num_frames=8", "resize=36", "crop=32", "flip=0.5")]
    options += ["preprocessing.random_crop=true"]
    config = [f"--config={EXPERIMENTS}/synthgym.yaml", f"--data.root={dataset}"]
    return lambda *args: main(
        ["extract", "features", *config, *(f"--data.{option}" for option in options), *args]
    )


def test_extract_fit_test_predict(
    extract: Callable[..., None], folder: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(f"--model={model}", "--num_views=2")
    told = capsys.readouterr().out
    # (36 x 2 + 18 + 18) maps of 128 x 2 x 4 x 4 numbers of 2 bytes
    assert "108 feature maps of 128x2x4x4 in float16 take 884.7 kB (884736 bytes)" in told
    assert "train: 36 of 36 clips" in told

    small = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false"]
    config = f"--config={EXPERIMENTS}/features.yaml"
    main(["fit", config, "--data.root=features", "--trainer.accelerator=cpu", *small])
    run = folder / "runs/features/version_0"
    checkpoint = run / "checkpoints/best.ckpt"
    main(["test", f"--config={run}/config.yaml", f"--ckpt_path={checkpoint}"])
    assert "18 of 18 test clips: Top-1 " in capsys.readouterr().out
    report = folder / "runs/features/version_1/test"
    table = pd.read_csv(report / "predictions.csv")
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics["num_clips"] == metrics["num_listed"] == len(table) == 18
    with Image.open(report / "contact_sheet.png") as picture:
        assert min(picture.size) > 200

    clips = table["path"].tolist()[:3]
    main(["predict", *clips, f"--model={checkpoint}", "--top=18", "--format=jsonl"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, row in zip(lines, table.itertuples(), strict=False):
        found = {one["class"]: one["probability"] for one in line["classes"]}
        assert found[row.predicted] == pytest.approx(row.probability, abs=1e-3)


def test_extract_again_has_nothing_to_do(
    extract: Callable[..., None], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    extract(f"--model={model}")
    extract(f"--model={model}")
    assert "3 of 3 files are there and whole; 0 bytes are missing" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"^error: features: .* num_views = 1, asked for 2; "):
        extract(f"--model={model}", "--num_views=2")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], r"backbone and backbone_weights, or model, must be given: .*\(got backbone 'r2plus1d"),
        (["--model=nowhere"], "nowhere: no such model"),
        (["--model=model", "--backbone=r3d_18"], r"backbone must be that of model, r2plus1d_tiny"),
        (
            ["--model=model", "--backbone_weights=a"],
            "backbone_weights must not be given with model",
        ),
        (["--model=model", "--num_views=0"], r"num_views must be a positive integer \(got 0\)"),
        (["--model=model", "--device=tpu9"], r"device must be one of this machine"),
        (["--model=model", "--config=nowhere.yaml"], "nowhere.yaml: no such config"),
        (["--model=model", "--config=text.yaml"], "text.yaml: not a config of fit: it must hold"),
        (["--model=model", "--config=odd.yaml"], "odd.yaml: not a readable config: "),
        (["--model=model", "--data.batch_size=0"], "batch_size must be at least 1"),
    ],
)
def test_mistakes_are_told_in_a_line(
    extract: Callable[..., None], folder: Path, args: list[str], message: str
) -> None:
    (folder / "text.yaml").write_text("hello")
    (folder / "odd.yaml").write_text("data: [")
    with pytest.raises(SystemExit, match=f"^error: {message}") as stop:
        extract(*args)
    assert "\n" not in str(stop.value.code)
    assert not (folder / "features").exists()


def test_a_cache_that_does_not_fit_is_told_in_a_line(
    extract: Callable[..., None], folder: Path, model: str
) -> None:
    fit = ["fit", f"--config={EXPERIMENTS}/features.yaml", "--trainer.fast_dev_run=1"]
    with pytest.raises(SystemExit, match=r"^error: nowhere: no such feature cache"):
        main([*fit, "--data.root=nowhere"])
    extract(f"--model={model}")
    with pytest.raises(SystemExit, match=r"^error: backbone must be r2plus1d_tiny, .*got 'mc3_18'"):
        main([*fit, "--data.root=features", "--model.backbone=mc3_18"])
    with pytest.raises(SystemExit, match=r"^error: data must give videos \(got the feature cache"):
        main(["extract", "more", f"--config={EXPERIMENTS}/features.yaml", "--data.root=features"])
    manifest = json.loads((folder / "features/manifest.json").read_text())
    (folder / "features/manifest.json").write_text(json.dumps({**manifest, "shards": None}))
    with pytest.raises(
        SystemExit, match=r"^error: features: not finished: the same `taghead extract`"
    ):
        main([*fit, "--data.root=features"])
