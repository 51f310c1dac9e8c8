from pathlib import Path

import pytest

from taghead.data.annotations.class_list import check_classes, class_names
from taghead.data.annotations.formats.reference_csv import read_reference
from taghead.errors import DataError

HEADER = "FileName,Class,TotalFrames,ClassEncoded\n"


def write(path: Path, *lines: str, header: str = HEADER) -> Path:
    path.write_text(header + "".join(f"{line}\n" for line in lines))
    return path


def test_names_survive_as_they_are(tmp_path: Path) -> None:
    csv = write(
        tmp_path / "train.csv",
        "a.mp4,blowing kisses,9,0",
        "b.mp4,play_ otamatone,40,1",
        '"c, d.mp4",battle-rope_jumping-jack,40,2',
        "e.mp4,007,40,3",
        "f.mp4,None,40,4",
        "a.mp4,nan,1e9,5",
    )
    clips = read_reference(csv, "videos")
    assert class_names(csv, clips) == [
        "blowing kisses",
        "play_ otamatone",
        "battle-rope_jumping-jack",
        "007",
        "None",
        "nan",
    ]
    assert clips[2].path == Path("videos/battle-rope_jumping-jack/c, d.mp4")
    assert [clip.label for clip in clips] == [0, 1, 2, 3, 4, 5]
    assert [clip.listed_frames for clip in clips] == [9, 40, 40, 40, 40, 10**9]
    assert clips[0].id == "videos/blowing kisses/a.mp4"


@pytest.mark.parametrize(
    ("frames", "expected"),
    [("12.0", 12), ("12.5", None), ("", None), ("many", None), ("inf", None)],
)
def test_counts_of_frames(tmp_path: Path, frames: str, expected: int | None) -> None:
    csv = write(tmp_path / "train.csv", f"a.mp4,x,{frames},0")
    assert read_reference(csv, "videos")[0].listed_frames == expected


def test_numbered_classes_need_not_be_sorted(tmp_path: Path) -> None:
    csv = write(tmp_path / "train.csv", "a.mp4,1,9,1", "b.mp4,0,9,0", "c.mp4,1,9,1")
    clips = read_reference(csv, "videos")
    assert class_names(csv, clips) == ["0", "1"]
    assert [clip.label for clip in clips] == [1, 0, 1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.mp4,x,9,zero"], "line 2: ClassEncoded must be a number .*'zero'"),
        (["a.mp4,x,9,0", "b.mp4,y,9,-1"], "line 3: ClassEncoded must be a number .*'-1'"),
        (["a.mp4,x,9,0", "b.mp4,x,9,1"], "Class x stands with two of ClassEncoded: 0 and 1"),
        (["a.mp4,x,9,0", "b.mp4,y,9,0"], "ClassEncoded 0 stands with two of Class: x and y"),
        (["a.mp4,x,9,0", ",x,9,0"], "line 3: FileName is empty"),
        (["a.mp4,,9,0"], "line 2: Class is empty"),
        (["a.mp4,x,9,0", "", "b.mp4,x,9,?"], "line 4: ClassEncoded must be a number"),
        ([], "no clips, only a header"),
        (["a.mp4,x,9,0,1"], "its lines have more values than its header has columns"),
        (["a.mp4,x,9,0", "b.mp4,y,9,1,1"], "not a readable CSV file: .*line 3"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    csv = write(tmp_path / "train.csv", *lines)
    with pytest.raises(DataError, match=f"^{csv}: {message}") as error:
        read_reference(csv, "videos")
    assert "\n" not in str(error.value)


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing.csv: no such annotation file"):
        read_reference(tmp_path / "missing.csv", "videos")
    csv = write(tmp_path / "train.csv", "a.mp4,x", header="FileName,Class\n")
    with pytest.raises(
        DataError, match=r"column TotalFrames is missing \(found 'FileName', 'Class'\)"
    ):
        read_reference(csv, "videos")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match=r"empty.csv: not a readable CSV file"):
        read_reference(tmp_path / "empty.csv", "videos")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(DataError, match=r"binary.csv: "):
        read_reference(tmp_path / "binary.csv", "videos")
    with pytest.raises(DataError, match="not a readable CSV file"):
        read_reference(tmp_path, "videos")


def test_classes_of_a_split_are_those_of_training(tmp_path: Path) -> None:
    train = read_reference(write(tmp_path / "train.csv", "a.mp4,x,9,0", "b.mp4,y,9,1"), "v")
    names = class_names("train.csv", train)
    unknown = read_reference(write(tmp_path / "test.csv", "a.mp4,z,9,0"), "v")
    with pytest.raises(DataError, match=r"test.csv: unknown class 'z'"):
        check_classes("test.csv", unknown, names)
    swapped = read_reference(write(tmp_path / "test.csv", "a.mp4,x,9,1"), "v")
    with pytest.raises(DataError, match="class 'x' has the number 1, in training it has 0"):
        check_classes("test.csv", swapped, names)


def test_numbers_have_no_gap(tmp_path: Path) -> None:
    csv = write(tmp_path / "train.csv", "a.mp4,x,9,0", "b.mp4,x,9,0")
    with pytest.raises(DataError, match=r"needs at least two classes \(found only 'x'\)"):
        class_names(csv, read_reference(csv, "v"))
    csv = write(tmp_path / "train.csv", "a.mp4,x,9,0", "b.mp4,y,9,3")
    with pytest.raises(
        DataError, match=r"count 0 to 3 without a gap \(2 missing, the first is 1\)"
    ):
        class_names(csv, read_reference(csv, "v"))
