import json
import logging
import os
from pathlib import Path
from typing import get_args

import pytest

from taghead.data import Clip, read_annotations
from taghead.data.annotations import formats, read_classes
from taghead.data.annotations import read as reading
from taghead.data.annotations.class_table import class_number
from taghead.data.annotations.formats.class_folders import read_folders
from taghead.data.annotations.formats.diving48 import read_diving48
from taghead.data.annotations.formats.haa500 import read_haa500
from taghead.data.annotations.formats.plain_csv import read_plain
from taghead.errors import DataError
from taghead.video import Segment


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def haa500(root: Path, *classes: str, flat: bool = False) -> Path:
    names = [f"{name}_{i:03d}.mp4" for name in classes for i in range(20)]
    return touch(root, *(name if flat else f"{name[:-8]}/{name}" for name in names))


# a clip ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "segment", [None, Segment(0.1, 2.35), Segment(3.0), Segment(4, 9, "frame")]
)
def test_clips_and_segments_as_text(segment: Segment | None) -> None:
    clip = Clip(Path("videos/a b.mp4"), 3, "jump", segment, 12)
    assert Clip.from_dict(json.loads(json.dumps(clip.to_dict()))) == clip
    assert clip.id == ("videos/a b.mp4" if segment is None else f"videos/a b.mp4 [{segment}]")


# class lists -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "blowing kisses\nbattle-rope_jumping-jack\n007\n\n", None),
        ("a.json", '["blowing kisses", "battle-rope_jumping-jack", "007"]', None),
        ("a.json", '[["Back", "15som", "05Twis", "FREE"], ["Back", "2som"]]', "Diving48"),
        ("a.json", '{"Moving [something] up": "1", "Holding [something]": "0"}', "Something"),
        ("a.csv", "id,name\n1,air drumming\n0,abseiling\n", "Kinetics"),
        ("a.csv", '0,abseiling\n1,"air drumming"\n', "Kinetics"),
        ("a.csv", "Name, ID\nabseiling, 0\nair drumming, 1\n", "Kinetics"),
        ("a.csv", "name,id,parent\nabseiling,0,sport\nair drumming,1,music\n", "Kinetics"),
        ("a.csv", "abseiling\nair drumming\n", "Kinetics"),
        ("a.tsv", "label\tname\n0\tabseiling\n1\tair drumming\n", "Kinetics"),
        ("a.txt", "id,name\n0,abseiling\n1,air drumming\n", "Kinetics"),
        ("a.txt", "0 abseiling\n1 air drumming\n", "Kinetics"),
        ("a.txt", "big, jump\nrun\n", "comma"),
    ],
)
def test_class_lists(tmp_path: Path, name: str, text: str, expected: str | None) -> None:
    names = {
        "Diving48": ["Back 15som 05Twis FREE", "Back 2som"],
        "Something": ["Holding [something]", "Moving [something] up"],
        "Kinetics": ["abseiling", "air drumming"],
        "comma": ["big, jump", "run"],
        None: ["blowing kisses", "battle-rope_jumping-jack", "007"],
    }
    assert read_classes(write(tmp_path / name, text)) == names[expected]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "jump\n\nrun\n", "class 1 has no name"),
        ("a.txt", "jump\nrun\njump\n", "two classes have the name 'jump'"),
        ("a.txt", "jump\n", r"needs at least two classes \(found 1\)"),
        ("a.txt", "name\njump\nrun\n", "line 1: 'name' is the header of a table"),
        ("a.csv", "Class\njump\nrun\n", "line 1: 'Class' is the header of a table"),
        ("a.txt", "1 jump\n2 run\n", "class number must count 0 to 2 without a gap"),
        ("a.csv", "id,name\n1,jump\n2,run\n", "class number must count 0 to 2 without a gap"),
        ("a.csv", "id,name\n0,jump\n0,run\n", "line 3: class number 0 stands there twice"),
        ("a.csv", "id,name\n0,jump\n1\n", "line 3: has 1 values, the first line 2"),
        ("a.csv", "jump,run\nfly,swim\n", "needs one column of class numbers and one of names"),
        ("a.csv", "0,1\n1,0\n", "needs one column of class numbers and one of names"),
        ("a.csv", "0,jump\n100000000,run\n", r".*\(99999999 missing, the first is 1\)"),
        ("a.json", '{"a": 0, "b": 100000000}', r".*\(99999999 missing, the first is 1\)"),
        ("a.json", '{"a": 0, "b": 1.5}', "must be a JSON list of names"),
        ("a.txt", "Clabel: 0; set: 1; Glabel: 3; (VT) a\nrun\n", "line 2: not like 'Clabel: 0;"),
        (
            "a.txt",
            "Clabel: 0; set: 1; Glabel: 3; (VT) a\n" * 2,
            "line 2: Clabel 0 stands there twice",
        ),
        (
            "a.txt",
            "Clabel: 0; set: 1; Glabel: 3; (VT) a\nClabel: 2; set: 1; Glabel: 4; (VT) b\n",
            r"Clabel must count 0 to 2 without a gap \(1 missing, the first is 1\)",
        ),
        ("a.json", '{"a": 0, "b": 0}', "must be a JSON list of names"),
        ("a.json", '{"a": 1, "b": 2}', r"number must count 0 to 2 without a gap"),
        ("a.json", "[1, 2]", "must be a JSON list of names"),
        ("a.json", "[1,\n2", "not JSON: line 2"),
    ],
)
def test_class_lists_that_are_none(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path}/{name}: {message}"):
        read_classes(write(tmp_path / name, text))


# plain CSV files ---------------------------------------------------------------------------------


def test_plain_names_and_times(tmp_path: Path) -> None:
    csv = write(
        tmp_path / "train.csv",
        "label, path, start_sec, end_sec\n"
        "play_ otamatone,a/b.mp4,,\n\n"
        '"big, jump",/films/c.mp4,1.5,4\n'
        "007,a/b.mp4,2,\n"
        "None,a/b.mp4,,7.25\n",
    )
    with pytest.raises(DataError, match=rf"{csv}: line 4: '/films/c.mp4' is outside the folder of"):
        read_plain(csv, "videos")
    clips = read_plain(csv, "videos", outside_root=True)
    shared = Path("videos/a/b.mp4")
    assert clips == [
        Clip(shared, 3, "play_ otamatone"),
        Clip(Path("/films/c.mp4"), 2, "big, jump", Segment(1.5, 4.0)),
        Clip(shared, 0, "007", Segment(2.0)),
        Clip(shared, 1, "None", Segment(0.0, 7.25)),
    ]


def test_plain_numbers_are_numbers(tmp_path: Path) -> None:
    csv = write(tmp_path / "train.csv", "a.mp4,10\n" + "".join(f"b.mp4,{i}\n" for i in range(10)))
    assert [clip.label for clip in read_plain(csv, "v")] == [10, *range(10)]
    names = [f"class {i}" for i in range(11)]
    assert read_plain(csv, "v", names)[0] == Clip(Path("v/a.mp4"), 10, "class 10")
    numbers = [str(10 - i) for i in range(11)]  # names that are numbers
    assert read_plain(csv, "v", numbers)[0] == Clip(Path("v/a.mp4"), 0, "10")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label,start\na.mp4,x,1\n", "column 'start' is unknown"),
        ("path,label\n", "no clips, only a header"),
        ("path,label\na.mp4,\n", "line 2: label is empty"),
        ("path,label\na.mp4,x\n,y\n", "line 3: path is empty"),
        ("a.mp4,x\n,y\n", "line 2: path is empty"),
        ("a.mp4,x,1\n", r"must have 2 or 4 columns \(got 3\)"),
        ("a.mp4,x,1,one\n", "line 1: start_sec and end_sec: could not convert.*'one'"),
        ("a.mp4,x,3,2\n", r"line 1: .*end must be greater than start = 3.0 \(got 2.0\)"),
        ("a.mp4,x,-1,2\n", r"line 1: .*start must be 0 or more \(got -1.0\)"),
        ("a.mp4,x,nan,2\n", r"line 1: .*start must be 0 or more \(got nan\)"),
        ("a.mp4,0\na.mp4,2\n", r"label must count 0 to 2 without a gap"),
        ("a.mp4,0\na.mp4,100000000\n", r"label must count .* \(99999999 missing, the first is 1\)"),
        ("video,label\na.mp4,x\n", r"line 1: looks like a header \(video,label\), not like a clip"),
        ("clip,action\na.mp4,x\n", r"line 1: looks like a header"),
        ("where,what\na,0\nb,1\n", r"line 1: looks like a header"),
        ("where,what\na.mp4,x\nb.mp4,y\n", r"line 1: looks like a header"),
        ("path,label,Label\na.mp4,x,y\n", "line 1: two columns have the same name"),
        ("a.mp4,x\n../b.mp4,y\n", r"line 2: '../b.mp4' is outside the folder of videos videos"),
        ("a.mp4,x\n/dev/zero,y\n", r"line 2: '/dev/zero' is outside the folder of videos videos"),
    ],
)
def test_plain_files_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    csv = write(tmp_path / "train.csv", text)
    with pytest.raises(DataError, match=f"^{csv}: {message}") as error:
        read_plain(csv, "videos")
    assert "\n" not in str(error.value)


def test_plain_labels_that_are_no_classes(tmp_path: Path) -> None:
    csv = write(tmp_path / "train.csv", "a.mp4,0\na.mp4,2\n")
    with pytest.raises(DataError, match=r"label 2 is not among the 2 classes"):
        read_plain(csv, "v", ["x", "y"])
    csv = write(tmp_path / "train.csv", "a.mp4,x\na.mp4,z\n")
    with pytest.raises(DataError, match=r"unknown class 'z': it is not among the classes"):
        read_plain(csv, "v", ["x", "y"])


@pytest.mark.parametrize("header", ["Path,Label", "PATH,LABEL", "\ufeffpath, Label"])
def test_a_header_in_any_case_is_no_clip(tmp_path: Path, header: str) -> None:
    csv = write(tmp_path / "train.csv", f"{header}\nx.mp4,a\ny.mp4,b\n")
    for format in ("auto", "plain"):
        found = read_annotations(tmp_path, csv, format=format)
        assert found.class_names == ["a", "b"]
        assert [clip.path.name for clip in found.clips["train"]] == ["x.mp4", "y.mp4"]


def test_labels_that_may_be_names_or_numbers_are_refused(tmp_path: Path) -> None:
    csv = write(tmp_path / "val.csv", "a.mp4,2\n")
    with pytest.raises(DataError, match=r"label 2 may be the class of that number, 'run', or the"):
        read_plain(csv, "v", ["2", "jump", "run"])
    with pytest.raises(DataError, match="label 2 is a class's name, but all labels are numbers"):
        read_plain(csv, "v", ["2", "jump"])
    assert read_plain(csv, "v", ["jump", "run", "2"])[0].label == 2


def test_a_format_that_leaves_the_folder_of_videos_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    csv = write(
        tmp_path / "r.csv", "FileName,Class,TotalFrames,ClassEncoded\na,x,1,0\nb,../../y,1,1\n"
    )
    with pytest.raises(DataError, match=rf"^{csv}: line 3: '../../y/b' is outside the folder of"):
        read_annotations(tmp_path / "v", csv)
    assert len(read_annotations(tmp_path / "v", csv, outside_root=True).clips["train"]) == 2
    entries = [{"vid_name": "a", "label": 0}, {"vid_name": "../b", "label": 1}]
    dives = write(tmp_path / "t.json", json.dumps(entries))
    with pytest.raises(DataError, match=rf"^{dives}: entry 1: '../b.mp4' is outside the folder"):
        read_annotations(tmp_path / "v", dives)
    inside = write(tmp_path / "p.csv", f"path,label\n{tmp_path}/v/a.mp4,x\nb/../c.mp4,y\n")
    assert len(read_annotations(tmp_path / "v", inside).clips["train"]) == 2


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.csv", "path,label\na.mp4,0\nb.mp4,{}\n", "label"),
        ("a.csv", "FileName,Class,TotalFrames,ClassEncoded\na,x,1,0\nb,y,1,{}\n", "ClassEncoded"),
        ("a.json", '[{{"vid_name": "a", "label": 0}}, {{"vid_name": "b", "label": {}}}]', "label"),
    ],
)
@pytest.mark.parametrize("label", [10**8, 10**9 - 1])
def test_labels_of_millions_make_no_millions_of_classes(
    tmp_path: Path, name: str, text: str, what: str, label: int
) -> None:
    """In a table, a list of entries and a list of classes; names of them would take gigabytes."""
    train = write(tmp_path / name, text.format(label))
    missing = rf"must count 0 to {label} without a gap \({label - 1} missing, the first is 1\)"
    with pytest.raises(DataError, match=rf"^{train}: .*{missing}$") as error:
        read_annotations(tmp_path, train)
    assert what.lower() in str(error.value).lower()
    classes = write(tmp_path / "classes.txt", "jump\nrun\n")
    if "ClassEncoded" not in text:
        with pytest.raises(DataError, match=rf"(class|label) {label} is not among the 2 classes"):
            read_annotations(tmp_path, train, classes=classes)
    gym = "Clabel: {}; set: 1; Glabel: 3; (VT) a{}\n"
    lines = write(tmp_path / "gym.txt", gym.format(0, 0) + gym.format(label, 1))
    with pytest.raises(DataError, match=rf"^{lines}: Clabel {missing}$"):
        read_classes(lines)


def test_pipes_and_devices_are_no_annotations(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    train = write(tmp_path / "train.csv", "path,label\na.mp4,x\nb.mp4,y\n")
    for path in (str(tmp_path / "pipe.csv"), "/dev/zero"):
        with pytest.raises(DataError, match=f"^{path}: cannot be read: it is not a regular file"):
            read_annotations(tmp_path, train, classes=path)
        with pytest.raises(DataError, match=f"^{path}: "):
            read_annotations(tmp_path, path)
        with pytest.raises(DataError, match=f"^{path}: cannot be read: it is not a regular file"):
            read_plain(path, tmp_path)


# folders -----------------------------------------------------------------------------------------


def test_folders_of_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = touch(
        tmp_path, "run/b.MP4", "run/a.webm", "blowing kisses/c.mkv", "run/notes.txt", "run/.d.mp4"
    )
    clips = read_folders(root)
    assert clips == [
        Clip(root / "blowing kisses/c.mkv", 0, "blowing kisses"),
        Clip(root / "run/a.webm", 1, "run"),
        Clip(root / "run/b.MP4", 1, "run"),
    ]
    assert f"{root}/run/notes.txt: left aside: the suffix is not that of a video" in caplog.text
    assert [clip.label for clip in read_folders(root, ["run", "blowing kisses"])] == [1, 0, 0]
    with pytest.raises(DataError, match="unknown class 'blowing kisses'"):
        read_folders(root, ["run", "jump"])


def test_folders_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_folders(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no class folders in it"):
        read_folders(touch(tmp_path / "flat", "a.mp4"))
    (tmp_path / "x" / "empty").mkdir(parents=True)
    with pytest.raises(DataError, match="x/empty: no video in this class folder, nor in another"):
        read_folders(tmp_path / "x")
    for name in ("empty/below/a.mp4", "run/below/deep/a.mp4"):
        root = touch(tmp_path / name, "run/a.mp4", name)
        with pytest.raises(DataError, match=r"/below: holds videos, but lies below a class"):
            read_folders(root)


def test_one_class_folder_without_clips_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "jump").mkdir(parents=True)
    root = touch(tmp_path, "fly/a.mp4", "run/a.mp4")
    found = [(clip.label, clip.class_name) for clip in read_folders(touch(root, "loose.mp4"))]
    assert found == [(0, "fly"), (1, "run")]
    assert f"{root}/loose.mp4: left aside: it is in no class folder" in caplog.text
    assert f"{root}/jump: no video in this class folder" in caplog.text


@pytest.mark.parametrize("val", ["Val", "VALID", "validation", "dev", "Eval"])
@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
def test_folders_of_splits_in_any_case(tmp_path: Path, train: str, val: str) -> None:
    root = touch(tmp_path, *(f"{x}/{c}/0.mp4" for x in (train, val, "Test") for c in "xy"))
    found = read_annotations(root)
    assert found.format == "folders"
    assert found.class_names == ["x", "y"]
    assert {split: len(clips) for split, clips in found.clips.items()} == {
        "train": 2,
        "val": 2,
        "test": 2,
    }
    assert found.sources["val"] == f"{root}/{val}"


def test_a_folder_beside_those_of_splits_is_refused(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/x/0.mp4", "train/y/0.mp4", "holdout/x/0.mp4", "lists/a.txt")
    with pytest.raises(DataError, match=rf"^{root}/holdout: holds videos, but is no split beside"):
        read_annotations(root)
    assert len(read_annotations(root, "train", test="holdout").clips["test"]) == 1
    vehicles = touch(tmp_path / "vehicles", "train/0.mp4", "bus/0.mp4", "Test/0.mp4")
    with pytest.raises(DataError, match=r"where all folders are classes, say train=\.$"):
        read_annotations(vehicles)
    assert read_annotations(vehicles, ".").class_names == ["Test", "bus", "train"]


@pytest.mark.parametrize("flat", [False, True])
def test_haa500(tmp_path: Path, flat: bool) -> None:
    root = haa500(tmp_path, "play_ otamatone", "battle-rope_jumping-jack", flat=flat)
    found = read_annotations(root)
    assert found.format == "haa500"
    assert found.class_names == ["battle-rope_jumping-jack", "play_ otamatone"]
    assert [len(found.clips[split]) for split in ("train", "val", "test")] == [32, 2, 6]
    names = [clip.path.name for clip in read_haa500(root, "test") if clip.label == 1]
    assert names == [f"play_ otamatone_{i:03d}.mp4" for i in (17, 18, 19)]
    assert [clip.path.stem[-3:] for clip in found.clips["val"]] == ["016"] * 2
    everything = [clip.path for clips in found.clips.values() for clip in clips]
    assert sorted(everything) == sorted(root.rglob("*.mp4"))


def test_haa500_names_its_files_after_classes(tmp_path: Path) -> None:
    spaced = touch(tmp_path / "spaced", *(f"blow kiss/Blow_kiss_{i:03d}.mp4" for i in range(20)))
    assert [clip.class_name for clip in read_haa500(spaced, "val")] == ["blow kiss"]
    for name in ("run/run_020.mp4", "run/jump_000.mp4", "run/run_00.mp4"):
        root = touch(haa500(tmp_path / name, "run"), name)
        with pytest.raises(DataError, match=rf"{root}/{name}: HAA500 has files named <class>_000"):
            read_haa500(root, "train")


def test_a_file_beside_class_folders_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = touch(haa500(tmp_path / "haa", "run", "jump"), "run_019.mp4", "jump_001.mp4")
    with pytest.raises(DataError, match=r"lie beside the class folders: say format=folders or"):
        read_annotations(root)
    told = r"jump_001.mp4: lies beside class folders such as jump \(1 of 2\): HAA500's clips lie"
    with pytest.raises(DataError, match=told):
        read_annotations(root, format="haa500")
    assert len(read_annotations(root, format="folders").clips["train"]) == 40
    assert f"{root}/jump_001.mp4: left aside: it is in no class folder (1 of 2)" in caplog.text
    other = touch(haa500(tmp_path / "other", "run", "jump"), "intro.mp4", "notes/a.txt")
    with pytest.raises(DataError, match="say format=folders or format=haa500"):
        read_annotations(other)
    splits = touch(tmp_path / "splits", "train/x/0.mp4", "train/y/0.mp4", "loose.mp4")
    assert len(read_annotations(splits).clips["train"]) == 2
    assert f"{splits}/loose.mp4: left aside: it is in no split (1 of 1)" in caplog.text
    flat = touch(haa500(tmp_path / "flat", "run", "jump", flat=True), "notes/a.txt")
    assert read_annotations(flat).format == "haa500"


# Diving48 ----------------------------------------------------------------------------------------


def test_diving48(tmp_path: Path) -> None:
    entries = [
        {"vid_name": "-mmq0PT-u8k_00155", "label": 1, "start_frame": 0, "end_frame": 48},
        {"vid_name": "x_00001", "label": 0, "start_frame": 12, "end_frame": 70},
    ]
    train = write(tmp_path / "Diving48_V2_train.json", json.dumps(entries))
    test = write(tmp_path / "Diving48_V2_test.json", json.dumps(entries[:1]))
    write(tmp_path / "Diving48_vocab.json", '[["Back", "15som"], ["Inward", "FREE"]]')
    found = read_annotations(tmp_path, train, test=test)
    assert found.format == "diving48"
    assert found.class_names == ["Back 15som", "Inward FREE"]
    whole = Clip(tmp_path / "-mmq0PT-u8k_00155.mp4", 1, "Inward FREE", listed_frames=48)
    part = Clip(tmp_path / "x_00001.mp4", 0, "Back 15som", Segment(12, 70, "frame"))
    assert found.clips == {"train": [whole, part], "test": [whole]}
    assert [clip.class_name for clip in read_diving48(train, "v")] == ["1", "0"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], r"entry 1: must be an object \(got \[\]\)"),
        ({"label": 0}, r"entry 1: vid_name must be a name \(got None\)"),
        ({"vid_name": "a", "label": "0"}, r"entry 1 \(a\): label must be a number \(got '0'\)"),
        ({"vid_name": "a"}, r"entry 1 \(a\): label must be a number"),
        ({"vid_name": "a", "label": 2}, "entry 1: class 2 is not among the 2 classes"),
        (
            {"vid_name": "a", "label": 0, "start_frame": 9, "end_frame": 9},
            r"entry 1 \(a\): start_frame and end_frame must be frames, .*\(got 9 and 9\)",
        ),
        ({"vid_name": "a", "label": 0, "start_frame": -1}, r"entry 1 \(a\): start_frame and"),
        ({"vid_name": "a", "label": 0, "start_frame": 10**400}, r"entry 1 \(a\): start_frame and"),
        ({"vid_name": "a", "label": 10**4000}, r"entry 1 \(a\): label must be a number"),
    ],
)
def test_diving48_entries_that_are_wrong(tmp_path: Path, entry: object, message: str) -> None:
    path = write(tmp_path / "a.json", json.dumps([{"vid_name": "a", "label": 0}, entry]))
    with pytest.raises(DataError, match=f"^{path}: {message}"):
        read_diving48(path, "videos", ["x", "y"])


# which format ------------------------------------------------------------------------------------


def test_formats_that_are_certain(tmp_path: Path) -> None:
    reference = write(
        tmp_path / "r.csv", "FileName,Class,TotalFrames,ClassEncoded\na,x,1,0\nb,y,1,1\n"
    )
    plain = write(tmp_path / "p.csv", "\ufeffpath,label\na.mp4,x\nb.mp4,y\n")
    assert read_annotations(tmp_path, reference).format == "reference"
    assert read_annotations(tmp_path, plain, val=plain).format == "plain"
    root = touch(tmp_path / "k", "train/x/a.mp4", "train/y/b.mp4", "validation/x/c.mp4")
    found = read_annotations(root)
    assert (found.format, list(found.clips)) == ("folders", ["train", "val"])
    assert found.sources == {"train": f"{root}/train", "val": f"{root}/validation"}
    assert found.clips["val"] == [Clip(root / "validation/x/c.mp4", 0, "x")]
    assert read_annotations(root, "train", test="validation").clips["test"] == found.clips["val"]
    bare = touch(tmp_path / "bare", "x/a.mp4", "y/b.mp4")
    assert list(read_annotations(bare).clips) == ["train"]


def test_formats_that_are_not_certain(tmp_path: Path) -> None:
    nameless = write(tmp_path / "n.csv", "a.mp4,x\nb.mp4,y\n")
    with pytest.raises(DataError, match="without names of columns, say format=plain"):
        read_annotations(tmp_path, nameless)
    assert len(read_annotations(tmp_path, nameless, format="plain").clips["train"]) == 2
    few = touch(haa500(tmp_path / "few", "run", "jump"), "run/run_000.mp4")
    (few / "run/run_019.mp4").unlink()
    with pytest.raises(DataError, match="say format=folders or format=haa500"):
        read_annotations(few)
    assert len(read_annotations(few, format="haa500").clips["test"]) == 5
    assert len(read_annotations(few, format="folders").clips["train"]) == 39
    with pytest.raises(DataError, match=r"t.txt: in none of the formats .*plain, reference$"):
        read_annotations(tmp_path, write(tmp_path / "t.txt", "a.mp4 3\n"))
    with pytest.raises(DataError, match="not a list of clips with vid_name and label"):
        read_annotations(tmp_path, write(tmp_path / "t.json", "{}"))
    plain = write(tmp_path / "p.csv", "path,label\na.mp4,x\nb.mp4,y\n")
    txt = write(tmp_path / "s.txt", "v_E_0_9_A_0_1 0\n")
    with pytest.raises(DataError, match=r"s.txt: has the format finegym, but .*p.csv has plain"):
        read_annotations(tmp_path, plain, val=txt)


NEW_FORMAT = '''
from pathlib import Path

from taghead.data.annotations import AnnotationFormat, Clip
from taghead.data.annotations.annotation_format import detected


class NameList(AnnotationFormat):
    """A text file of names: the class stands before the first underscore."""

    name = "name_list"

    def detect(self, root, source):
        return detected(source is not None and source.endswith(".names"))

    def read_split(self, split, source, arguments, classes):
        names = Path(source).read_text().split()
        numbers = {name: i for i, name in enumerate(classes or ["jump", "run"])}
        return [
            Clip(arguments.root / f"{name}.mp4", numbers[name.split("_")[0]], name.split("_")[0])
            for name in names
        ]


FORMAT = NameList()
'''


def test_a_format_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "modules" / "name_list.py", NEW_FORMAT)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "modules")])
    for name, found in formats.find_formats().items():
        monkeypatch.setitem(formats.FORMATS, name, found)
    root = touch(tmp_path / "videos", "run_1.mp4")
    train = write(tmp_path / "train.names", "run_1\njump_1\nrun_2\n")
    found = read_annotations(root, train)
    assert (found.format, found.class_names) == ("name_list", ["jump", "run"])
    assert [clip.label for clip in found.clips["train"]] == [1, 0, 1]
    with pytest.raises(ValueError, match=r"times is not for format name_list \(only for finegym\)"):
        read_annotations(root, train, times="x")


def test_the_command_line_lists_the_formats() -> None:
    assert get_args(vars(reading)["Format"]) == ("auto", *formats.FORMATS)
    assert set(formats.FORMATS) == {
        "diving48",
        "finegym",
        "folders",
        "haa500",
        "plain",
        "reference",
    }


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"train": "no.csv"}, DataError, "^no.csv: no such annotation file"),
        ({"format": "kinetics"}, ValueError, r"format must be one of auto, .*\(got 'kinetics'\)"),
        ({"format": "finegym"}, ValueError, "train must be given for format finegym"),
        ({"format": "haa500", "val": "x"}, ValueError, "val is not for format haa500"),
        ({"format": "folders", "val": "x"}, ValueError, "train must be given with val or test"),
        ({"times": "x"}, ValueError, r"times is not for format folders \(only for finegym\)"),
        (
            {"format": "reference", "train": "x", "classes": "y"},
            ValueError,
            r"classes is not for format reference \(only for .*plain\)",
        ),
        ({"classes": "no.txt"}, DataError, "^no.txt: no such file"),
        ({"root": "nowhere"}, DataError, "^nowhere: no such folder of videos"),
    ],
)
def test_arguments_that_do_not_fit(
    tmp_path: Path, arguments: dict, error: type[Exception], message: str
) -> None:
    root = touch(tmp_path, "x/a.mp4", "y/b.mp4")
    with pytest.raises(error, match=message):
        read_annotations(**{"root": root, **arguments})


def test_classes_of_other_splits_are_those_of_training(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/x/a.mp4", "train/y/b.mp4", "test/z/c.mp4")
    with pytest.raises(DataError, match=f"^{root}/test: unknown class 'z'"):
        read_annotations(root)
    both = touch(tmp_path / "both", "train/x/a.mp4", "val/x/a.mp4", "valid/x/a.mp4")
    with pytest.raises(DataError, match="both val and valid are there: say which"):
        read_annotations(both)
    late = touch(tmp_path / "late", "test/x/a.mp4")
    with pytest.raises(DataError, match="has no folder train, which names the classes"):
        read_annotations(late)


def test_a_class_list_orders_the_classes(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "train/x/a.mp4", "train/y/b.mp4", "val/y/c.mp4")
    classes = write(tmp_path / "classes.txt", "y\nunseen\nx\n")
    found = read_annotations(root, classes=classes)
    assert found.class_names == ["y", "unseen", "x"]
    assert [clip.label for clip in found.clips["train"]] == [2, 0]
    assert [clip.label for clip in found.clips["val"]] == [0]


def test_nothing_is_logged_about_a_clean_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    read_annotations(haa500(tmp_path, "a", "b"))
    assert caplog.text == ""


def test_a_format_of_ones_own_stays_in_the_folder_of_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It need not know of the rule."""
    write(tmp_path / "modules" / "name_list.py", NEW_FORMAT)
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(tmp_path / "modules")])
    monkeypatch.setitem(formats.FORMATS, "name_list", formats.find_formats()["name_list"])
    root = touch(tmp_path / "videos", "run_1.mp4")
    sources = {"train": "run_1\njump_1\n", "val": "run_/../../../etc/a\n"}
    train, val = (write(tmp_path / f"{k}.names", text) for k, text in sources.items())
    with pytest.raises(DataError, match=rf"^{val}: .*etc/a.mp4' is outside the folder of videos"):
        read_annotations(root, train, val)
    assert read_annotations(root, train, val, outside_root=True).clips["val"]


def test_a_device_is_no_class_list() -> None:
    with pytest.raises(DataError, match=r"^/dev/null: cannot be read: it is not a regular file"):
        read_classes("/dev/null")


def test_json_that_is_nested_deeply_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", "[" * 100_000)
    with pytest.raises(DataError, match=rf"^{path}: not JSON that can be read: it is nested too"):
        read_classes(path)


def test_a_class_number_of_many_digits_is_none(tmp_path: Path) -> None:
    assert class_number("9" * 9) == 999_999_999
    assert class_number("9" * 10) is None
    path = write(tmp_path / "a.csv", f"0,jump\n{'9' * 10},run\n")
    with pytest.raises(DataError, match="needs one column of class numbers and one of names"):
        read_classes(path)


def test_numbers_of_thousands_of_digits_are_refused(tmp_path: Path) -> None:
    """Python reads no longer ones from text, and compares none of them with a float."""
    digits = "9" * 5000
    for text in (f'{{"a": 0, "b": {digits}}}', f'{{"a": 0, "b": {digits[:4000]}}}'):
        path = write(tmp_path / "a.json", text)
        with pytest.raises(DataError, match=rf"^{path}: (not JSON that can|must be a JSON list)"):
            read_classes(path)
    for number in (10**400, float("inf")):
        with pytest.raises(ValueError, match="start"):
            Segment(number)


def test_a_value_that_csv_cannot_hold_is_refused(tmp_path: Path) -> None:
    long = '"' + "x" * 200_000 + '"'
    path = write(tmp_path / "a.csv", f"{long},0\nrun,1\n")
    for read in (read_classes, lambda path: read_annotations(tmp_path, str(path))):
        with pytest.raises(DataError, match=rf"^{path}: not a readable CSV file: field larger"):
            read(path)
