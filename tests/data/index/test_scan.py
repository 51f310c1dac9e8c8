import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faulty import copy_clip, crash_or_read, killed_or_read, write_clip
from numbered import write_video

from taghead.data import Clip
from taghead.data.index import scan as scanning
from taghead.data.index.excluded import excluded_table, find_missing
from taghead.data.index.journal import Journal
from taghead.data.index.scan import scan
from taghead.data.index.scan_result import ScanResult, clip_key
from taghead.video import Segment


def clip(path: Path, segment: Segment | None = None, fault: str = "") -> Clip:
    return Clip(path, 0, "x", segment, fault=fault)


def reasons(facts: list[ScanResult]) -> list[str]:
    return [one.reason for one in facts]


def test_facts(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a b" / "long.mp4" if False else tmp_path / "long.mp4", 90)
    clips = [clip(path), clip(path, Segment(0.5, 1.0)), clip(path, Segment(80, 90, "frame"))]
    whole, part, end = scan(clips, tmp_path, {}, hashed=True)
    assert whole.key == ("long.mp4", "")
    assert part.key == ("long.mp4", "0.5..1.0 sec")
    assert (whole.first_frame, whole.num_frames, whole.duration_sec) == (0, 90, 3.0)
    assert (part.first_frame, part.num_frames, part.duration_sec) == (15, 15, 0.5)
    assert (end.first_frame, end.num_frames) == (80, 10)
    assert end.duration_sec == pytest.approx(10 / 30, abs=1e-5)
    for facts in (whole, part, end):
        assert facts.usable
        assert (facts.codec, facts.fps, facts.width, facts.height) == ("h264", 30.0, 160, 120)
        assert (facts.file_frames, facts.file_sec) == (90, 3.0)
        assert facts.backend
        assert facts.backend_reason
        assert (facts.size, facts.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)
        assert facts.content_hash == whole.content_hash
        assert len(facts.content_hash) == 32


def test_equal_files_have_equal_hashes(tmp_path: Path) -> None:
    one, other = write_clip(tmp_path / "1.mp4", 1), write_clip(tmp_path / "2.mp4", 2)
    copy = copy_clip(one, tmp_path / "copies" / "c.mp4")
    a, b, c = scan([clip(one), clip(other), clip(copy)], tmp_path, {}, hashed=True)
    assert a.content_hash == c.content_hash != b.content_hash
    assert scan([clip(one)], tmp_path, {})[0].content_hash == ""


def test_segments_that_a_file_does_not_have(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=25)
    facts = scan(
        [
            clip(path, Segment(0.0, 0.5)),
            clip(path, Segment(3.0, 4.0)),
            clip(path, Segment(20, 26, "frame")),
            clip(path, fault="it lasts from 5 s to 5 s"),
        ],
        tmp_path,
        {},
    )
    assert reasons(facts) == [
        "",
        "segment 3.0..4.0 sec is past the end (it has 25 frames, 1.000 s)",
        "segment 20..26 frame is past the end (it has 25 frames, 1.000 s)",
        "it lasts from 5 s to 5 s",
    ]


def test_damage_counts_only_within_a_segment(tmp_path: Path) -> None:
    """Each segment is read on its own: one that is whole stays usable."""
    path = write_video(tmp_path / "a.mp4", 90, container_options={"movflags": "faststart"})
    data = bytearray(path.read_bytes())
    data[-len(data) // 4 : -len(data) // 4 + 3000] = bytes(3000)
    path.write_bytes(data)
    facts = scan([clip(path, Segment(0.0, 1.0)), clip(path, Segment(1.0, 3.0))], tmp_path, {})
    assert facts[0].usable
    assert facts[1].reason.startswith("damaged")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_what_is_known_is_not_read_again(
    tmp_path: Path, num_workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = [clip(write_clip(tmp_path / f"{i}.mp4", i)) for i in range(5)]
    journal = Journal(tmp_path / "new" / "journal.jsonl", tmp_path)
    first = scan(clips, tmp_path, {}, journal, num_workers=num_workers)
    assert Journal(journal.path, tmp_path).known == {facts.key: facts for facts in first}
    invented = {
        facts.key: ScanResult(*facts.key, "known to be bad", *_state(facts)) for facts in first
    }
    assert reasons(scan(clips, tmp_path, invented)) == ["known to be bad"] * 5
    write_clip(clips[2].path, 7, frames=9)  # another size
    os.utime(clips[3].path, ns=(0, 5_000_000_000))  # another time
    clips[4].path.unlink()
    again = scan(clips, tmp_path, invented, num_workers=num_workers)
    assert reasons(again) == ["known to be bad"] * 2 + ["", "", "no such video file"]
    assert again[2].num_frames == 9


def _state(facts: ScanResult) -> tuple[int, int]:
    return facts.size, facts.mtime_ns


def test_a_hash_that_is_not_known_is_computed(tmp_path: Path) -> None:
    only = clip(write_clip(tmp_path / "a.mp4"))
    (known,) = scan([only], tmp_path, {})
    (hashed,) = scan([only], tmp_path, {known.key: known}, hashed=True)
    assert hashed.content_hash
    assert scan([only], tmp_path, {hashed.key: hashed}) == [hashed]


def test_a_journal_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    one, two, three = (ScanResult(f"{i}.mp4", "", "", i, i) for i in range(1, 4))
    journal = Journal(path, tmp_path)
    journal.add([one])
    journal.add([two])
    text = path.read_text()
    path.write_text(text[:-20])
    journal = Journal(path, tmp_path)
    assert journal.known == {one.key: one}
    journal.add([three])
    assert Journal(path, tmp_path).known == {one.key: one, three.key: three}


def test_a_journal_of_something_else_is_started_anew(tmp_path: Path) -> None:
    path, facts = tmp_path / "journal.jsonl", ScanResult("1.mp4", "", "", 1, 1)
    Journal(path, tmp_path / "other").add([facts])
    journal = Journal(path, tmp_path)
    assert journal.known == {}
    journal.add([facts])
    assert len(path.read_text().splitlines()) == 2
    assert Journal(path, tmp_path / "other").known == {}
    old = json.dumps({**journal.header, "written_by": "taghead 0.0"})
    path.write_text("\n".join([old, *path.read_text().splitlines()[1:], ""]))
    assert Journal(path, tmp_path).known == {}


def test_a_cache_that_cannot_be_written_is_worth_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    only = clip(write_clip(tmp_path / "a.mp4"))
    assert scan([only], tmp_path, {}, Journal.in_user_cache(tmp_path))[0].usable
    assert "what was read is not remembered" in caplog.text


def test_crashes_and_hangs_are_the_clips_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "scan_file", crash_or_read)
    names = ["good.mp4", "crash.mp4", "hang.mp4", "other.mp4"]
    clips = [clip(write_clip(tmp_path / name, i)) for i, name in enumerate(names)]
    journal = Journal(tmp_path / "journal.jsonl", tmp_path)
    facts = scan(clips, tmp_path, {}, journal, num_workers=2, hashed=True, timeout_sec=2)
    assert reasons(facts) == [
        "",
        "reading it ended the process (SIGSEGV)",
        f"reading it took longer than {2 + clips[2].path.stat().st_size / 5e6:g} s",
        "",
    ]
    known = Journal(journal.path, tmp_path).known  # a crash is not tried again at each start
    assert reasons(scan(clips, tmp_path, known, hashed=True)) == reasons(facts)


def test_a_process_that_is_killed_is_not_the_clips_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "scan_file", killed_or_read)
    names = ["good.mp4", "kill once.mp4", "kill.mp4", "memory once.mp4", "memory.mp4"]
    clips = [clip(write_clip(tmp_path / name, i)) for i, name in enumerate(names)]
    journal = Journal(tmp_path / "journal.jsonl", tmp_path)
    facts = scan(clips, tmp_path, {}, journal, num_workers=2)
    assert [one.usable for one in facts] == [True, True, False, True, False]
    assert re.fullmatch(
        r"not read: reading it ended the process \(SIGKILL\) twice, the second time alone, with "
        r"[\d.]+ [GMT]B of memory",
        facts[2].reason,
    )
    assert facts[4].reason == "MemoryError: no memory"
    known = Journal(journal.path, tmp_path).known
    assert [clip_key(one, tmp_path) in known for one in clips] == [True, True, False, True, False]
    monkeypatch.undo()
    for before in (known, {one.key: one for one in facts}):  # as of a manifest
        assert reasons(scan(clips, tmp_path, before)) == [""] * 5


def test_a_crash_in_one_segment_spares_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "scan_file", crash_or_read)
    path = write_clip(tmp_path / "long.mp4", frames=75)
    clips = [clip(path, Segment(start / 2, start / 2 + 0.5)) for start in range(5)]
    facts = scan(clips, tmp_path, {}, num_workers=1, hashed=True)
    assert [one.usable for one in facts] == [True, True, False, True, True]
    assert facts[2].reason == "reading it ended the process (SIGSEGV)"
    assert len({one.content_hash for one in facts if one.usable}) == 1
    assert facts[0].content_hash


def test_an_error_that_nobody_expects_is_the_clips_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise MemoryError("cannot allocate\n4 TB")

    monkeypatch.setattr(scanning, "VideoReader", fail)
    facts = scan([clip(write_clip(tmp_path / "a.mp4"))], tmp_path, {})
    assert reasons(facts) == ["MemoryError: cannot allocate 4 TB"]


def test_keys_do_not_depend_on_where_the_folder_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert clip_key(clip(Path("v/x/a.mp4")), "v") == ("x/a.mp4", "")
    assert clip_key(clip(tmp_path / "v/x/a.mp4", Segment(1.5)), "v") == ("x/a.mp4", "1.5.. sec")
    assert clip_key(clip(tmp_path / "a.mp4"), "v") == (f"{tmp_path}/a.mp4", "")


def test_missing_files_say_what_is_missing(tmp_path: Path) -> None:
    here = write_clip(tmp_path / "x" / "a.mp4")
    (tmp_path / "x" / "b.mp4").touch()
    clips = [
        clip(here),
        clip(tmp_path / "x" / "b.mp4"),
        clip(tmp_path / "x" / "c.mp4"),
        clip(tmp_path / "y" / "z" / "d.mp4", Segment(1.0)),
        clip(tmp_path / "x"),
        clip(here, fault="it has no length"),
    ]
    missing = find_missing(clips)
    assert [bad.clip for bad in missing] == clips[1:]
    assert [bad.reason.removeprefix(f"{bad.clip.path}: ") for bad in missing] == [
        "the file is empty",
        "no such video file",
        f"no such video file (there is no folder {tmp_path}/y)",
        "is a directory",
        "it has no length",
    ]
    table = excluded_table({"val": missing[2:3]})
    assert table.to_dict("records") == [
        {
            "split": "val",
            "path": f"{tmp_path}/y/z/d.mp4",
            "segment": "1.0.. sec",
            "reason": f"no such video file (there is no folder {tmp_path}/y)",
        }
    ]


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("taghead.data.annotations", "torch pandas numpy av"),
        ("taghead.data.index.scan", "torch pandas lightning"),
        ("taghead.video.survey_cache", "torch pandas"),
    ],
)
def test_processes_that_read_files_start_without_torch(module: str, heavy: str) -> None:
    code = f"import sys, {module}; print([m for m in {heavy.split()} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_lines_of_a_journal_that_hold_no_results_are_passed_over(tmp_path: Path) -> None:
    path, one = tmp_path / "journal.jsonl", ScanResult("1.mp4", "", "", 1, 1)
    Journal(path, tmp_path).add([one])
    strange = ["[" * 5000, '{"file": ["a"]}', '{"file": "a", "more": 1}', '{"size": 1}', "3"]
    strange += ['{"file": "a", "size": true}', '{"file": "a", "reason": null}', "{}", "9" * 5000]
    with path.open("a") as file:
        file.write("\n".join([*strange, '{"file": "2.mp4", "fps": 25}', ""]))
    assert Journal(path, tmp_path).known == {
        one.key: one,
        ("2.mp4", ""): ScanResult("2.mp4", fps=25),
    }
