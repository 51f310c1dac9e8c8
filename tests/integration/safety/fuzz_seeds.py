"""Writes the seeds of the fuzz targets: small files of every kind. `python fuzz_seeds.py`."""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
SAMPLE = "seed-vp9.mkv"
SIZE = (32, 48)
VIDEOS = {  # container and codec, with options of the codec
    "h264.mp4": ("libx264", {"bf": "1", "g": "4"}),
    "h264.ts": ("libx264", {"bf": "0", "g": "4"}),
    "mpeg4.avi": ("mpeg4", {"bf": "1", "g": "4"}),
    "mpeg2.mpg": ("mpeg2video", {"g": "4"}),
    "vp8.webm": ("libvpx", {"g": "4"}),
    "vp9.mkv": ("libvpx-vp9", {"g": "4"}),
}
PLAYLISTS = {
    "concat": b"ffconcat version 1.0\nfile 'sample.mkv'\n",
    "hls": b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "dash": b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period>'
    b"<AdaptationSet><Representation id='a'><BaseURL>http://127.0.0.1:9/a.mp4</BaseURL>"
    b"</Representation></AdaptationSet></Period></MPD>",
    "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
}
S = b"\n====\n"
FINEGYM = {
    "v": {"E_0_9": {"timestamps": [[1, 9]], "segments": {"A_0_2": {"timestamps": [[0, 2.5]]}}}}
}
DIVING = [
    {"vid_name": "a_1", "label": 0, "start_frame": 0, "end_frame": 9},
    {"vid_name": "b_2", "label": 1, "start_frame": 3, "end_frame": 9},
]
CATEGORIES = b"Clabel: 0; set: 1; Glabel: 1; (VT) one\nClabel: 1; set: 1; Glabel: 2; (VT) two\n"
ANNOTATIONS = {
    "plain": [b"plain .csv", b"path,label,start_sec,end_sec\na.mp4,x,0,1.5\nb/c.mp4,y,,\n"],
    "plain-numbers": [b"auto .csv", b"Label,Path\n0,a.mp4\n1,b.mp4\n", b"", b"id,name\n0,x\n1,y\n"],
    "plain-outside": [b"plain .csv", b"../a.mp4,x\n/etc/passwd,y\n"],
    "reference": [b"reference .csv", b"FileName,Class,TotalFrames,ClassEncoded\na,x,9,0\nb,y,,1\n"],
    "finegym": [
        b"finegym .txt",
        b"v_E_0_9_A_0_2 0\nv_E_0_9_A_0_2 1\n",
        b"v_E_0_9_A_0_2 1\n",
        CATEGORIES,
        json.dumps(FINEGYM).encode(),
    ],
    "diving48": [b"diving48 .json", json.dumps(DIVING).encode(), b"", b'[["a", "b"], ["c"]]'],
    "folders": [b"folders", b"train/x/a.mp4\ntrain/y/b.mp4\nVal/x/c.mp4\n"],
    "haa500": [b"haa500", b"x/x_000.mp4\nx/x_016.mp4\ny/y_000.mp4\ny/y_017.mp4\n"],
    "tsv": [b"plain .tsv", b"path,label\na.mp4,1\nb.mp4,0\n", b"", b"0\tabseiling\n1\tbowling\n"],
}
RESULT = {"file": "a.mp4", "segment": "0..1 sec", "size": 9, "codec": "h264", "num_frames": 3}
SWEEP = b"""base: base.yaml
name: tiny
seeds: [0, 1]
set: {trainer.max_epochs: 2}
factors:
  head:
    a: {model.head.mode: none}
    b: {set: {model.learning_rate: 0.1}, without: [other]}
  other: {c: , 2: {data.batch_size: 4}}
"""
BASE = b"trainer: {max_epochs: 1}\nmodel: {head: {class_path: taghead.TAGHead}}\ndata: {}\n"
CONV = {"class_path": "torch_geometric.nn.GATConv", "init_args": {"heads": 2, "concat": False}}
EVIL = {"class_path": "timeit.timeit", "init_args": {"stmt": "open('PWNED', 'w')"}}
STRUCTS = {
    "journal": {
        "lines": json.dumps(RESULT).encode() + b'\n\n{"file": "b.mp4", "reason": "not read: x"}\n',
        "cut": json.dumps(RESULT).encode()[:40],
    },
    "sweep": {
        "levels": S.join([SWEEP, BASE]),
        "store": S.join([SWEEP, BASE, b'[{"config": {"model": 1}}, {"run": "x", "seed": 3}]']),
        "aliases": b"base: &a base.yaml\nname: *a\nfactors: {f: {x: &b {model.a: 1}, y: *b}}",
    },
    "model": {
        "as it is": b"{}",
        "operator": json.dumps({"head": {"conv": CONV, "mode": "union"}}).encode(),
        "code": json.dumps({"head": {"conv": EVIL}}).encode(),
        "backbone": b'{"backbone": "os.system"}',
        "weights": S.join([b"{}", b'\x10\0\0\0\0\0\0\0{"a":{"dtype":1}}']),
        "labels": b'{"class_names": ["a", "a"], "preprocessing": {"num_frames": 4, "clips": 2}}',
    },
    "class_paths": {
        "class": b"torch.nn.Linear" + S + b'{"heads": 2}',
        "function": b"torch.hub.load" + S + b'{"a": [{"class_path": 1}]}',
        "stranger": b"stranger.Conv",
        "standard": b"os.system",
        "address": b"http://127.0.0.1:9/a.b",
    },
}


def seeds(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    """Target, name and content of each seed; `folder` is for files on the way."""
    from numbered import packets_of, write_video

    for name, (codec, options) in VIDEOS.items():
        path = write_video(folder / name, 8, codec, size=SIZE, options=options)
        data = path.read_bytes()
        yield "video", f"seed-{name}", data
        if not name.endswith((".ts", ".mpg")):
            yield "containers", f"seed-{name}", data
        if name.endswith(".ts"):
            for number, pid in enumerate((b"\0\0", b"\0\1")):
                yield "transport_stream", f"seed-{number}", pid + data[: 188 * 8]
        for number, packet in enumerate(packets_of(path)[:2]):
            head = bytes([list(CODEC_OF).index(name), 0]) if name in CODEC_OF else b"\5\0"
            yield "bitstreams", f"seed-{name}-{number}", head + bytes(packet)[:300]
    for name, text in PLAYLISTS.items():
        yield "video", f"seed-{name}", text
    for name, files in ANNOTATIONS.items():
        yield "annotations", f"seed-{name}", S.join(files)
    for target, several in STRUCTS.items():
        for name, content in several.items():
            yield target, f"seed-{name.replace(' ', '-')}", content
    yield from _tables()
    yield from _pickles(folder)


CODEC_OF = ("h264.mp4", "hevc", "vp8.webm", "vp9.mkv")  # in the order of the target's codecs


def _tables() -> Iterator[tuple[str, str, bytes]]:
    about = {"schema_version": 1, "written_by": "x", "root": "/videos"}
    columns = {name: [value] for name, value in RESULT.items()}
    columns |= {"split": ["train"], "label": [0], "class_name": ["x"]}
    text = json.dumps(about).encode() + S
    yield "manifest", "seed-row", text + json.dumps(columns).encode()
    yield "manifest", "seed-no-rows", text + b'{"split": [], "file": []}'
    over = {"dtype": "bfloat16", "shards": {"train": [{"file": "../a"}]}}
    yield "features", "seed-as-it-is", b"{}"
    yield "features", "seed-other", json.dumps(over).encode()
    yield "features", "seed-backbone", b'{"backbone": "timeit.timeit", "feature_shape": [1, 2]}'
    header = {
        "feature_maps": {"dtype": "F16", "shape": [3, 1, 2, 1, 1, 1], "data_offsets": [0, 12]}
    }
    shard = json.dumps(header).encode()
    shard = len(shard).to_bytes(8, "little") + shard + bytes(12)
    yield "features", "seed-shard", S.join([b"{}", shard])
    over = {"fps": 30.0, "time_base": [1, 1000], "orientation": [True, False, False]}
    yield "stored_survey", "seed-values", json.dumps(over).encode()
    arrays = {"timestamps": [0, 40, 40], "shown": [1, 0, 0], "seek_points": [[0, 0]]}
    yield "stored_survey", "seed-arrays", json.dumps({"arrays": arrays}).encode()
    yield "stored_survey", "seed-as-it-is", b"{}"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("open('PWNED', 'w')",)


def _pickles(folder: Path) -> Iterator[tuple[str, str, bytes]]:
    content = {"state_dict": {}, "global_step": 3, "callbacks": {"a": "http://127.0.0.1:9/"}}
    for name, value in (("plain", content), ("code", _Evil()), ("list", [1, "a", None])):
        yield "checkpoint", f"seed-{name}", pickle.dumps(value, protocol=2)


def main() -> None:
    sys.path.append(str(Path(__file__).parents[2] / "helpers"))
    with tempfile.TemporaryDirectory() as folder:
        for target, name, content in seeds(Path(folder)):
            (CORPUS / target).mkdir(parents=True, exist_ok=True)
            (CORPUS / target / name).write_bytes(content)
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files):,} bytes in {CORPUS}")


if __name__ == "__main__":
    main()
