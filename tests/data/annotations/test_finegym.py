import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from numbered import number_of, numbers_of, write_video

from taghead.cli import main
from taghead.data import Clip, VideoDataModule, read_annotations
from taghead.data.annotations import read_classes
from taghead.data.annotations.formats.finegym import read_finegym
from taghead.errors import DataError
from taghead.video import Preprocessing, Segment, VideoReader

VIDEO = "-Lt_S9_wROk"  # of eleven characters, some of them underscores
EVENTS: dict[str, Any] = {
    "E_000002_000009": {
        "event": 4,
        "segments": {
            "A_0000_0001": {"stages": 1, "timestamps": [[0.5, 1.1]]},
            "A_0001_0002": {"stages": 1, "timestamps": [[1.1, 2.02]]},
            "A_0003_0003": {"stages": 1, "timestamps": [[3.0, 3.3]]},
            "A_0004_0005": {"stages": 1, "timestamps": [[4.75, 5.5]]},
        },
        "timestamps": [[2.32, 9.28]],
    },
    "E_000010_000016": {
        "event": 1,
        "segments": {
            "A_0000_0005": {"stages": 3, "timestamps": [[0.04, 1.2], [1.2, 3.49], [3.49, 5.57]]},
        },
        "timestamps": [[10.88, 16.48]],
    },
    "E_000017_000018": {"event": 2, "segments": None, "timestamps": [[17.0, 18.0]]},
}
# the same name in two sets, as in Gym99 and Gym288
CATEGORIES = """\
Clabel:   0; set: 33; Glabel: 290; (BB) salto backward tucked
Clabel:   1; set: 35; Glabel: 359; (BB) salto backward tucked
Clabel:   2; set:  1; Glabel:  19; (VT) round-off, flic-flac on, stretched salto (2 turn) off
Clabel:   3; set: 21; Glabel: 104; (FX) stag jump      \n"""
FIRST, VAULT = f"{VIDEO}_E_000002_000009", f"{VIDEO}_E_000010_000016"
NAMES = [
    "(BB) salto backward tucked [set 33]",
    "(BB) salto backward tucked [set 35]",
    "(VT) round-off, flic-flac on, stretched salto (2 turn) off",
    "(FX) stag jump",
]


@pytest.fixture(scope="module")
def gym(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FineGym in little: one video of 18 s with numbered frames, times, splits and names."""
    root = tmp_path_factory.mktemp("gym")
    (root / "videos").mkdir()
    write_video(root / "videos" / f"{VIDEO}.mkv", 540, size=(48, 48))
    (root / "finegym_annotation_info_v1.1.json").write_text(json.dumps({VIDEO: EVENTS}))
    (root / "gym99_train_element_v1.1.txt").write_text(
        f"{FIRST}_A_0000_0001 0\n{FIRST}_A_0001_0002 1\n{VAULT}_A_0000_0005 2\n"
    )
    (root / "gym99_val_element.txt").write_text(f"{FIRST}_A_0004_0005 1\n{FIRST}_A_0003_0003 0\n")
    (root / "gym99_categories.txt").write_text(CATEGORIES)
    return root


def splits(gym: Path) -> dict[str, str]:
    val = str(gym / "gym99_val_element.txt")
    return {"train": str(gym / "gym99_train_element_v1.1.txt"), "val": val, "test": val}


def test_segments_are_event_plus_element(gym: Path) -> None:
    found = read_annotations(gym / "videos", **splits(gym))
    assert found.format == "finegym"
    assert found.class_names == NAMES
    path = gym / "videos" / f"{VIDEO}.mkv"
    assert found.clips["train"] == [
        Clip(path, 0, NAMES[0], Segment(2.82, 3.42)),
        Clip(path, 1, NAMES[1], Segment(3.42, 4.34)),
        Clip(path, 2, NAMES[2], Segment(10.92, 16.45)),  # from the first stage to the last
    ]
    assert found.clips["val"][0].id == f"{path} [7.07..7.82 sec]"


def test_frames_of_a_segment_are_those_of_its_time(gym: Path) -> None:
    """At 30 frames per second frame n begins at n / 30."""
    found = read_annotations(gym / "videos", **splits(gym))
    reader = VideoReader(gym / "videos" / f"{VIDEO}.mkv")
    for clip in [*found.clips["train"], *found.clips["val"]]:
        assert clip.segment is not None
        start, end = clip.segment.start, clip.segment.end
        wanted = [n for n in range(540) if start <= round(n / 30, 3) < end]
        assert numbers_of(reader.read(clip.segment.frames(reader))) == wanted
        assert len(wanted) > 8


def test_a_data_module_reads_segments(gym: Path) -> None:
    preprocessing = Preprocessing(
        num_frames=8, resize=48, crop=48, flip=0.0, random_crop=False, mean=(0,) * 3, std=(1,) * 3
    )
    data = VideoDataModule(
        str(gym / "videos"), **splits(gym), preprocessing=preprocessing, num_workers=0
    )
    data.setup("fit")
    assert data.class_names == NAMES
    (clips, labels, _), *_ = data.val_dataloader()
    shown = [
        [number_of(frame) for frame in clip.permute(1, 2, 3, 0).numpy() * 255] for clip in clips
    ]
    assert shown == [
        [213, 216, 219, 222, 225, 228, 231, 234],
        [160, 161, 162, 163, 164, 165, 166, 168],
    ]
    assert labels.tolist() == [1, 0]


def test_training_and_testing_need_no_cut_files(
    gym: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = Path(__file__).parents[3] / "experiments" / "synthgym.yaml"
    common = [
        f"--config={config}",
        "--data=taghead.data.VideoDataModule",
        f"--data.root={gym}/videos",
        *(f"--data.{split}={path}" for split, path in splits(gym).items()),
        "--data.batch_size=2",
        "--data.num_workers=0",
        "--data.preprocessing={num_frames: 8, resize: 48, crop: 48}",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.accelerator=cpu",
    ]
    main(["fit", *common, "--trainer.max_epochs=1"])
    checkpoint = "runs/synthgym/version_0/checkpoints/last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["video_classifier"]["class_names"] == NAMES
    main(["test", *common, f"--ckpt_path={checkpoint}"])
    table = pd.read_csv("runs/synthgym/version_1/test/predictions.csv")
    assert table["class"].tolist() == [NAMES[1], NAMES[0]]
    assert table["clip"].str.endswith(("[7.07..7.82 sec]", "[5.32..5.62 sec]")).all()
    assert set(table["predicted"]) <= set(NAMES)
    assert [path.name for path in (gym / "videos").iterdir()] == [f"{VIDEO}.mkv"]


def test_missing_videos_and_elements_without_length_are_clips(gym: Path, tmp_path: Path) -> None:
    """Both can be left out, but not silently."""
    events = {"E_000000_000009": {"timestamps": [[1.0, 9.0]], "segments": {}}}
    events["E_000000_000009"]["segments"] = {"A_0002_0002": {"timestamps": [[2.5, 2.5]]}}
    times = tmp_path / "times.json"
    times.write_text(json.dumps({"gone": EVENTS, VIDEO: events}))
    split = tmp_path / "split.txt"
    split.write_text(
        "gone_E_000002_000009_A_0000_0001 7\n\n" + f"{VIDEO}_E_000000_000009_A_0002_0002 0\n"
    )
    gone, flat = read_finegym(split, gym / "videos", times)
    assert gone == Clip(gym / "videos" / "gone.mp4", 7, "7", Segment(2.82, 3.42))
    assert flat.fault == "E_000000_000009 A_0002_0002 lasts from 3.5 s to 3.5 s"
    assert flat.id.endswith(f"{VIDEO}.mkv [{flat.fault}]")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{FIRST}_A_0000_0001", r"split.txt: line 2: not like <video>_E_0_9_A_0_9 <class>"),
        (f"{FIRST}_A_0000_0001 x", "line 2: not like"),
        (f"../{FIRST}_A_0000_0001 0", "line 2: not like"),  # a video has a bare name
        (f"/etc/{FIRST}_A_0000_0001 0", "line 2: not like"),
        (f"{FIRST}_A_0009_0009 0", r"times.json: .*E_000002_000009: segments: has no A_0009_0009"),
        ("xyz_E_000002_000009_A_0000_0001 0", r"times.json: has no xyz"),
        (f"{VIDEO}_E_000017_000018_A_0000_0001 0", "segments: has no A_0000_0001"),
        (f"{VIDEO}_E_000099_000199_A_0000_0001 0", rf"times.json: {VIDEO}: has no E_000099_000199"),
        (f"{FIRST}_A_0000_0001 4", r"split.txt: line 2: class 4 is not among the 4 classes"),
        (
            f"{VIDEO}_E_000020_000021_A_0000_0001 0",
            r"timestamps must be pairs of seconds \(got 7\)",
        ),
    ],
)
def test_a_wrong_line_is_named(gym: Path, tmp_path: Path, line: str, message: str) -> None:
    odd = {"timestamps": 7, "segments": {"A_0000_0001": {"timestamps": [[0, 1]]}}}
    times, split = tmp_path / "times.json", tmp_path / "split.txt"
    times.write_text(json.dumps({VIDEO: {**EVENTS, "E_000020_000021": odd}}))
    split.write_text(f"{FIRST}_A_0000_0001 0\n{line}\n")
    names = read_classes(gym / "gym99_categories.txt")
    with pytest.raises(DataError, match=message) as error:
        read_finegym(split, gym / "videos", times, names)
    assert "\n" not in str(error.value)


def test_files_that_are_not_there(gym: Path, tmp_path: Path) -> None:
    split = tmp_path / "split.txt"
    split.write_text(f"{FIRST}_A_0000_0001 0\n")
    with pytest.raises(DataError, match=r"v1.1.json: no such file: FineGym's JSON file of times"):
        read_finegym(split, gym / "videos")
    (tmp_path / "finegym_annotation_info_v1.1.json").write_text("{")
    with pytest.raises(DataError, match=r"v1.1.json: not JSON: line 1"):
        read_finegym(split, gym / "videos")
    videos = tmp_path / "videos"
    videos.mkdir()
    for suffix in ("mp4", "webm", "info.json", "mp4.part"):
        (videos / f"{VIDEO}.{suffix}").touch()
    with pytest.raises(DataError, match=rf"{VIDEO}.webm: there is also {VIDEO}.mp4: keep one"):
        read_finegym(split, videos, gym / "finegym_annotation_info_v1.1.json")


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("Infinity", "Infinity is no finite number"),
        ("NaN", "NaN is no finite number"),
        ("1" + "0" * 400, "timestamps must be pairs of seconds"),
    ],
)
def test_times_that_are_no_seconds_are_refused(
    gym: Path, tmp_path: Path, end: str, reason: str
) -> None:
    split, times = tmp_path / "split.txt", tmp_path / "times.json"
    split.write_text(f"{FIRST}_A_0000_0001 0\n")
    event = {"timestamps": [[1, 9]], "segments": {"A_0000_0001": {"timestamps": [[0, "END"]]}}}
    text = json.dumps({VIDEO: {FIRST.removeprefix(f"{VIDEO}_"): event}})
    times.write_text(text.replace('"END"', end))
    with pytest.raises(DataError, match=rf"^{times}: .*{reason}"):
        read_finegym(split, gym / "videos", times)
