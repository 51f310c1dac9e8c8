"""The generated clips: what they promise about classes, leaks, framing and files."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from taghead.data.synthetic import (
    FAMILIES,
    ClipSpec,
    class_names,
    plan_clip,
    render_clip,
    write_dataset,
)
from taghead.data.synthetic.classes import JUMP_ORDERS, JUMPS, SOMERSAULTS
from taghead.data.synthetic.figure import CAPSULES, JOINTS, START_JOINTS, STOP_JOINTS
from taghead.data.synthetic.kinematics import ARM_CHANNELS, POSE_CHANNELS, draw_motion
from taghead.data.synthetic.writer import DEFAULT_SPLITS
from taghead.errors import DataError

SMALL = {"train": 6, "val": 2, "test": 3}


def files(root: Path) -> dict[str, bytes]:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def motion(seed, label, family="somersault", level=0.3):
    return draw_motion(ClipSpec(0, label, family, level), np.random.default_rng(seed))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthgym") / "here"
    write_dataset(root, splits=SMALL, family="order", seed=3, num_workers=0, progress=False)
    return root


# Classes


def test_class_names():
    names = class_names("somersault")
    assert names[:4] == [
        "forward_tuck_0_half_twists",
        "forward_tuck_1_half_twist",
        "forward_tuck_2_half_twists",
        "forward_pike_0_half_twists",
    ]
    assert len(set(names)) == 18
    assert class_names("order")[0] == "tuck_then_pike_then_twist"
    assert len(set(class_names("order"))) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"level": 1.5}, r"level must lie in 0\.\.1 \(got 1\.5\)"),
        ({"level": float("nan")}, r"level must lie in 0\.\.1 \(got nan\)"),
        ({"mirror": -0.1}, r"mirror must lie in 0\.\.1 \(got -0\.1\)"),
        ({"family": "vault"}, r"family must be one of somersault, order \(got 'vault'\)"),
        ({"label": 18}, r"label must lie in 0\.\.17 for 'somersault' \(got 18\)"),
        ({"label": 6, "family": "order"}, r"label must lie in 0\.\.5 for 'order' \(got 6\)"),
        ({"seed": -1}, r"seed must be one or more non-negative integers \(got -1\)"),
        ({"seed": ()}, r"seed must be one or more non-negative integers \(got \(\)\)"),
        ({"seed": 0.5}, r"seed must be one or more non-negative integers \(got 0\.5\)"),
    ],
)
def test_render_clip_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        render_clip(**{"seed": 0, "label": 0, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": {"train": -1}}, r"splits\['train'\] must be a non-negative integer \(got -1\)"),
        ({"splits": {}}, r"splits must name at least one split \(got \{\}\)"),
        ({"splits": {"../x": 1}}, r"splits must have names of letters, digits and _"),
        ({"family": "vault"}, r"family must be one of somersault, order \(got 'vault'\)"),
        ({"level": 2}, r"level must lie in 0\.\.1 \(got 2\)"),
        ({"seed": -1}, r"seed must be a non-negative integer \(got -1\)"),
        ({"classes": ["flip"]}, r"classes must be distinct names of 'somersault'"),
        ({"classes": []}, r"classes must be distinct names"),
        ({"num_workers": -2}, r"num_workers must be a non-negative integer \(got -2\)"),
    ],
)
def test_write_dataset_refuses_before_writing(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "new", **arguments)
    assert not (tmp_path / "new").exists()


# What a clip is


@pytest.mark.parametrize("family", FAMILIES)
def test_clip_is_fixed_by_its_arguments(family):
    clip = render_clip((5, 2), 1, family=family)
    assert clip.dtype == np.uint8
    assert clip.shape[1:] == (120, 160, 3)
    assert 44 <= len(clip) <= 56
    assert np.array_equal(clip, render_clip([5, 2], 1, family=family))
    other = render_clip((5, 3), 1, family=family)
    assert clip.shape != other.shape or not np.array_equal(clip, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_seed_gives_one_look_and_one_view_in_all_classes(family):
    first, *others = (plan_clip(ClipSpec(11, k, family)) for k in range(len(class_names(family))))
    for plan in others:
        assert plan.motion.num_frames == first.motion.num_frames
        assert np.array_equal(plan.look.paints, first.look.paints)
        assert plan.backdrop.image.tobytes() == first.backdrop.image.tobytes()
        assert plan.body == first.body
        # The framing does not depend on the class either: a straight body is not shown smaller.
        np.testing.assert_allclose(plan.camera.scale, first.camera.scale, rtol=1e-12)
        np.testing.assert_allclose(plan.camera.anchor, first.camera.anchor, rtol=1e-12)
        assert not np.allclose(plan.joints, first.joints, atol=0.05)
    assert not np.array_equal(plan_clip(ClipSpec(12, 0, family)).look.paints, first.look.paints)


def test_mirror():
    clip = render_clip(4, 7, level=0.8, mirror=0.0)
    assert np.array_equal(render_clip(4, 7, level=0.8, mirror=1.0), clip[:, :, ::-1])
    assert not np.array_equal(clip, clip[:, :, ::-1])
    mirrored = [plan_clip(ClipSpec(seed, 0, mirror=0.5)).mirrored for seed in range(60)]
    assert 15 < sum(mirrored) < 45


@pytest.mark.parametrize("label", range(18))
def test_a_somersault_turns_as_its_name_says(label):
    target, moves = SOMERSAULTS[label], motion(label, label)
    forward = 1 if target.direction == "forward" else -1
    turned = np.array([moves.somersault[0], moves.somersault[-1]])
    np.testing.assert_allclose(turned, [0, forward * 2 * np.pi], atol=1e-9)
    assert abs(moves.twist[-1]) == pytest.approx(np.pi * target.half_twists)
    middle = dict(zip(POSE_CHANNELS, moves.pose[np.argmax(moves.lift)], strict=True))
    assert (middle["hip"] > 80) == (target.shape != "straight")
    assert (middle["knee"] > 80) == (target.shape == "tuck")


def test_the_face_shows_the_way_the_gymnast_turns():
    """Forward, the face leads the turn: it moves down first; backward, up."""
    for label, target in enumerate(SOMERSAULTS):
        if target.half_twists:
            continue
        plan = plan_clip(ClipSpec(2, label, level=0.0))
        face = plan.pixels[:, JOINTS.index("face")] - plan.pixels[:, JOINTS.index("head")]
        assert face[0, 0] > 1  # faces right at first
        quarter = np.argmin(np.abs(np.abs(plan.motion.somersault) - np.pi / 2))
        assert np.sign(face[quarter, 1]) == (1 if target.direction == "forward" else -1)


def test_the_drawing_shows_where_the_joints_are():
    """The face is found by its colour where the plan says."""
    plan = plan_clip(ClipSpec(21, 6, level=0.0))
    clip = render_clip(21, 6, level=0.0)
    paint = plan.look.paints[[capsule.start for capsule in CAPSULES].index("face")]
    x, y = plan.pixels[0, JOINTS.index("face")].round().astype(int)
    assert np.abs(clip[0, y, x] - paint).max() < 60  # shaded by its depth
    assert np.abs(clip[0, 5, 5] - paint).max() > 60


# Framing


@pytest.mark.parametrize(("level", "wander_px"), [(0.0, 0.8), (0.3, 1.6), (1.0, 4.0)])
@pytest.mark.parametrize("family", FAMILIES)
def test_figure_stays_within_the_central_square(family, level, wander_px):
    centres = []
    for seed in range(40):
        label = seed % len(class_names(family))
        plan = plan_clip(ClipSpec((9, seed), label, family, level))
        for end, joints in enumerate((START_JOINTS, STOP_JOINTS)):
            radii = plan.radii[..., end]
            x, y = np.moveaxis(plan.pixels[:, joints], -1, 0)
            assert (x - radii).min() >= 20
            assert (x + radii).max() <= 140
            assert (y - radii).min() >= 0
            assert (y + radii).max() <= 120
        standing = np.ptp(plan.pixels[0, :, 1])
        assert standing > 42  # pixels: large enough to be seen
        centres.append(plan.pixels.mean(axis=(0, 1)))
    assert (np.std(centres, axis=0) > wander_px).all()  # and not always in the middle


# Leaks


def test_arms_timing_and_path_are_the_same_in_all_somersaults_of_a_seed():
    for seed in range(5):
        first, *others = (motion(seed, label, level=1.0) for label in range(18))
        for moves in others:
            assert np.array_equal(moves.pose[:, ARM_CHANNELS], first.pose[:, ARM_CHANNELS])
            for name in ("flight", "lift", "floor", "travel", "airborne", "takeoff", "touchdown"):
                assert np.array_equal(getattr(moves, name), getattr(first, name)), name


@pytest.fixture(scope="module")
def somersault_draws():
    """Statistics of clips with different seeds, as in a dataset: one row each."""
    rows = []
    for seed in range(1080):
        target, moves = SOMERSAULTS[seed % 18], motion(seed, seed % 18)
        middle = dict(zip(POSE_CHANNELS, moves.pose[np.argmax(moves.lift)], strict=True))
        rows.append(
            {
                "direction": target.direction,
                "shape": target.shape,
                "half_twists": target.half_twists,
                "travels_right": float(moves.travel[-1] > 0),
                "asymmetry": abs(middle["asymmetry"]),
                "shoulder": middle["shoulder"],
                "elbow": middle["elbow"],
                "num_frames": float(moves.num_frames),
                "takeoff": float(np.argmax(moves.airborne)) / moves.num_frames,
                "apex": float(moves.lift.max()),
            }
        )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("factor", ["direction", "shape", "half_twists"])
@pytest.mark.parametrize(
    "statistic",
    ["travels_right", "asymmetry", "shoulder", "elbow", "num_frames", "takeoff", "apex"],
)
def test_nuisances_do_not_tell_the_class(somersault_draws, statistic, factor):
    """Group means lie within 3.5 standard errors of the mean of all."""
    values = somersault_draws[statistic]
    assert values.std() > 0.01 * abs(values.mean())
    for _, group in somersault_draws.groupby(factor)[statistic]:
        error = values.std() / np.sqrt(len(group))
        assert abs(group.mean() - values.mean()) < 3.5 * error


def test_travel_agrees_with_direction_in_half_of_the_clips(somersault_draws):
    forward = somersault_draws["direction"] == "forward"
    agreement = (forward == (somersault_draws["travels_right"] > 0)).mean()
    assert abs(agreement - 0.5) < 3.5 * 0.5 / np.sqrt(len(somersault_draws))


# The family `order`


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_order_classes_are_the_same_frames_in_another_order(level):
    for seed in range(6):
        plans = [plan_clip(ClipSpec(seed, label, "order", level)) for label in range(6)]
        frames = [plan.joints.reshape(len(plan.joints), -1) for plan in plans]
        ordered = [array[np.lexsort(array.round(9).T)] for array in frames]
        for one, other in pairwise(range(6)):
            np.testing.assert_allclose(ordered[one], ordered[other], atol=1e-9)
            # So a mean of any per-frame feature agrees; here one that is not linear.
            means = [np.tanh(3 * frames[k]).mean(axis=0) for k in (one, other)]
            np.testing.assert_allclose(*means, atol=1e-9)
            assert np.abs(frames[one] - frames[other]).max() > 0.2  # metres: the sequences differ


def test_order_jumps_come_as_the_class_says():
    for label, target in enumerate(JUMP_ORDERS):
        moves = motion(label, label, "order")
        knee = moves.pose[:, POSE_CHANNELS.index("knee")] * moves.airborne
        hip = moves.pose[:, POSE_CHANNELS.index("hip")] * moves.airborne
        when = {
            "tuck": np.average(np.arange(len(knee)), weights=knee > 100),
            "pike": np.average(np.arange(len(hip)), weights=(hip > 90) & (knee < 40)),
            "twist": np.average(np.arange(len(hip)), weights=np.gradient(moves.twist) ** 2),
        }
        assert tuple(sorted(JUMPS, key=when.__getitem__)) == target.jumps


def test_order_view_does_not_tell_the_place_in_the_clip():
    """The camera's aim differs from its mean equally in all three thirds of a clip."""
    offsets = []
    for seed in range(150):
        camera = plan_clip(ClipSpec((1, seed), 0, "order", 1.0)).camera
        yaw = camera.yaw - camera.yaw.mean()
        offsets.append([np.square(part).mean() for part in np.array_split(yaw, 3)])
    spread = np.std(offsets, axis=0) / np.sqrt(len(offsets))
    mean = np.mean(offsets, axis=0)
    assert (np.abs(mean - mean.mean()) < 3.5 * spread).all()


# Files


@pytest.mark.parametrize("family", FAMILIES)
def test_annotations_are_balanced_and_interleaved(tmp_path, family, monkeypatch):
    monkeypatch.setattr("taghead.data.synthetic.writer.write_clip", lambda spec, path: None)
    write_dataset(tmp_path, family=family, num_workers=0, progress=False)
    names = class_names(family)
    for split, size in DEFAULT_SPLITS.items():
        header = (tmp_path / f"{split}.csv").read_text().splitlines()[0]
        assert header == "FileName,Class,TotalFrames,ClassEncoded"
        rows = pd.read_csv(tmp_path / f"{split}.csv")
        assert len(rows) == size
        assert (rows["ClassEncoded"].value_counts() == size / len(names)).all()
        assert [names[label] for label in rows["ClassEncoded"]] == list(rows["Class"])
        assert rows["FileName"].is_unique
        assert rows["ClassEncoded"].diff().ne(0).mean() > 0.8


def test_some_classes_are_numbered_as_they_are_named(tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        "taghead.data.synthetic.writer.write_clip",
        lambda spec, path: drawn.update({path.name: spec.label}),
    )
    every = class_names("somersault")
    chosen = [every[12], every[4]]
    write_dataset(tmp_path, splits={"train": 8}, classes=chosen, num_workers=0, progress=False)
    rows = pd.read_csv(tmp_path / "train.csv")
    assert [chosen[number] for number in rows["ClassEncoded"]] == list(rows["Class"])
    assert rows["ClassEncoded"].value_counts().to_dict() == {0: 4, 1: 4}
    assert [every[drawn[name]] for name in rows["FileName"]] == list(rows["Class"])


def test_clips_open_with_the_frames_that_the_annotations_say(dataset):
    found = set()
    for split, size in SMALL.items():
        rows = pd.read_csv(dataset / f"{split}.csv")
        assert len(rows) == size
        for row in rows.itertuples():
            path = dataset / "videos" / row.Class / row.FileName
            found.add(path)
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                assert stream.codec_context.name == "h264"
                assert (stream.width, stream.height) == (160, 120)
                assert stream.average_rate == 25
                assert sum(1 for _ in container.decode(stream)) == row.TotalFrames
    assert found == set(dataset.rglob("*.mp4"))
    assert not list(dataset.rglob(".unfinished-*"))


def test_a_file_shows_the_clip_of_its_seed(dataset):
    row = next(pd.read_csv(dataset / "train.csv").itertuples())
    with av.open(str(dataset / "videos" / row.Class / row.FileName)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    decoded = np.stack(frames).astype(float)
    drawn = render_clip((3, zlib.crc32(b"train"), 0), row.ClassEncoded, family="order")
    assert np.abs(decoded - drawn).mean() < 6


def test_files_do_not_depend_on_the_number_of_workers(dataset, tmp_path):
    write_dataset(tmp_path, splits=SMALL, family="order", seed=3, num_workers=2, progress=False)
    assert files(tmp_path) == files(dataset)


def test_few_clips_start_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr("taghead.data.synthetic.writer.run_surely", None)
    write_dataset(tmp_path, splits={"train": 2}, progress=False)
    assert len(list(tmp_path.rglob("*.mp4"))) == 2


def test_a_larger_split_starts_with_the_clips_of_a_smaller_one(dataset, tmp_path):
    write_dataset(
        tmp_path, splits={"val": 4}, family="order", seed=3, num_workers=0, progress=False
    )
    small, large = files(dataset), files(tmp_path)
    kept = {name: data for name, data in small.items() if "/val_" in name}
    assert len(kept) == 2
    assert kept.items() <= large.items()
    assert sum(name.endswith(".mp4") for name in large) == 4


def test_no_clip_is_in_two_splits_or_seeds(dataset, tmp_path):
    write_dataset(
        tmp_path, splits={"train": 6}, family="order", seed=4, num_workers=0, progress=False
    )
    clips = [
        data
        for root in (dataset, tmp_path)
        for name, data in files(root).items()
        if name.endswith(".mp4")
    ]
    assert len(clips) == sum(SMALL.values()) + 6
    assert len(set(clips)) == len(clips)


def test_a_stopped_run_continues(dataset, tmp_path):
    write = {"splits": SMALL, "family": "order", "seed": 3, "num_workers": 0, "progress": False}
    write_dataset(tmp_path, **write)
    whole = files(tmp_path)
    clips = sorted(tmp_path.rglob("*.mp4"))
    for clip in clips:
        os.utime(clip, (1, 1))
    lost = [clips[0], clips[4]]
    for clip in lost:
        clip.unlink()
    abandoned = lost[0].with_name(f".unfinished-123-{lost[0].name}")
    abandoned.write_bytes(b"half a clip")
    os.utime(abandoned, (1, 1))
    (tmp_path / "test.csv").unlink()
    write_dataset(tmp_path, **write)
    assert files(tmp_path) == whole
    assert [clip for clip in clips if clip.stat().st_mtime != 1] == lost


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"level": 0.5}, "level=0.3, asked for level=0.5"),
        ({"seed": 8}, "seed=3, asked for seed=8"),
        ({"family": "somersault"}, "family='order', asked for family='somersault'"),
        ({"splits": {"train": 7}}, "asked for splits={'train': 7}"),
        ({"classes": class_names("order")[:2]}, "classes=None, asked for classes="),
    ],
)
def test_other_parameters_are_an_error_and_change_nothing(dataset, changed, message):
    before = files(dataset)
    arguments = {"splits": SMALL, "family": "order", "seed": 3, "num_workers": 0, **changed}
    with pytest.raises(DataError) as caught:
        write_dataset(dataset, progress=False, **arguments)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(dataset / "dataset.json"))
    assert files(dataset) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match=r"is not empty and holds no dataset\.json"):
        write_dataset(tmp_path, splits=SMALL, num_workers=0, progress=False)
    assert list(files(tmp_path)) == ["thesis.txt"]
    with pytest.raises(DataError, match=r"thesis\.txt: "):
        write_dataset(tmp_path / "thesis.txt", splits=SMALL, num_workers=0, progress=False)


@pytest.mark.parametrize(
    ("text", "message"), [("", "is not JSON"), ("{", "is not JSON"), ("[]", "must hold a JSON obj")]
)
def test_a_broken_record_is_an_error_and_tells_how_to_go_on(tmp_path, text, message):
    arguments = {"splits": {"train": 1}, "num_workers": 0, "progress": False}
    write_dataset(tmp_path / "made", **arguments)
    whole = files(tmp_path / "made")
    (tmp_path / "made/dataset.json").write_text(text)
    told = rf"dataset\.json: {message}.*; delete the whole folder {tmp_path / 'made'}, and"
    with pytest.raises(DataError, match=told):
        write_dataset(tmp_path / "made", **arguments)
    (tmp_path / "made/dataset.json").unlink()
    with pytest.raises(DataError, match=r"made: is not empty .*, or delete it if it is a gen"):
        write_dataset(tmp_path / "made", **arguments)
    shutil.rmtree(tmp_path / "made")
    write_dataset(tmp_path / "made", **arguments)
    assert files(tmp_path / "made") == whole


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_clip_without_room_is_an_error_and_the_next_run_goes_on(tmp_path, num_workers):
    resource = pytest.importorskip("resource", reason="the system limits no files")
    arguments = {"splits": {"train": 4}, "num_workers": num_workers, "progress": False}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # more than the record has
    try:
        with pytest.raises(DataError, match=rf"^{tmp_path}.*File too large$"):
            write_dataset(tmp_path / "made", **arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [path for path in (tmp_path / "made").rglob("*.mp4")]
    assert not list((tmp_path / "made").rglob(".unfinished-*"))
    write_dataset(tmp_path / "made", **arguments)
    write_dataset(tmp_path / "whole", **arguments)
    assert files(tmp_path / "made") == files(tmp_path / "whole")


def test_a_failing_clip_leaves_no_half_written_file(tmp_path, monkeypatch):
    def interrupted(frames, path):
        path.write_bytes(b"half a clip")
        raise KeyboardInterrupt

    monkeypatch.setattr("taghead.data.synthetic.writer.encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path, splits={"train": 2}, num_workers=0, progress=False)
    assert list(files(tmp_path)) == ["dataset.json"]
    assert json.loads((tmp_path / "dataset.json").read_text())["splits"] == {"train": 2}


def is_gone(group: int, timeout_sec: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_sec
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs POSIX process groups")
def test_an_interrupt_leaves_whole_clips_and_no_process(tmp_path):
    script = tmp_path / "write.py"
    root = tmp_path / "data"
    script.write_text(
        "from taghead.data.synthetic import write_dataset\n"
        "if __name__ == '__main__':\n"
        f"    write_dataset({str(root)!r}, splits={{'train': 5000}}, num_workers=1)\n"
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # "&" ignores it
    )
    deadline = time.monotonic() + 60
    while not list(root.rglob("*.mp4")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as the terminal does
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    clips = list(root.rglob("*.mp4"))
    assert 0 < len(clips) < 5000
    assert not list(root.rglob(".unfinished-*"))
    for clip in clips[:5]:
        with av.open(str(clip)) as container:
            assert sum(1 for _ in container.decode(video=0)) >= 44
    assert is_gone(process.pid)  # the whole group: workers and all


def test_two_runs_at_once_write_the_same_dataset(tmp_path):
    splits = {"train": 12, "test": 6}
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        runs = [
            pool.submit(write_dataset, tmp_path / "shared", splits=splits, progress=False)
            for _ in range(2)
        ]
        for run in runs:
            run.result(timeout=60)
    write_dataset(tmp_path / "alone", splits=splits, progress=False)
    assert files(tmp_path / "shared") == files(tmp_path / "alone")
