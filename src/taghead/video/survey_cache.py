"""Cache of surveys: a file is indexed once, not for each clip at each epoch.

A survey is used again in two ways: from the memory of a process, and as text that `taghead index`
stored. Both hold for one file as it was; of a changed file another one is made.
"""

import base64
import hashlib
import threading
import zlib
from collections import OrderedDict
from dataclasses import fields
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import av
import numpy as np

from taghead.files import json_text, parse_json
from taghead.video.file_stamp import stamp_of
from taghead.video.limits import Limits
from taghead.video.reader import VideoReader
from taghead.video.rgb import Orientation
from taghead.video.survey import Survey

MAX_BYTES = 64 * 2**20  # about 4 million frames
_DIGESTED = 64 * 2**10  # bytes at either end of a file
_SCALARS: dict[type | None, tuple[type, ...]] = {
    int: (int,),
    float: (float, int),
    str: (str,),
    bool: (bool,),
}
_ARRAYS = {"timestamps": np.int64, "shown": bool, "seek_points": np.int64, "decoded": np.int64}


class SurveyCache:
    """Surveys of the files that a process has opened; the least recently used one goes first.

    Args:
        max_bytes: How much memory their arrays may take together.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._surveys: OrderedDict[Path, Survey] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._surveys)

    def open(
        self,
        path: str | PathLike[str],
        stored: str = "",
        limits: Limits = Limits(),  # noqa: B008, it is frozen
    ) -> VideoReader:
        """A reader of a file, from a survey that is known if the file is still the same.

        Args:
            path: The video file.
            stored: A survey as :func:`survey_to_text` gives it; empty if there is none.
            limits: What the file may ask for.

        Raises:
            VideoError: If the file cannot be read as a video.
        """
        path = Path(path)
        with self._lock:
            known = self._surveys.pop(path, None)
            if known is not None:
                self._num_bytes -= num_bytes(known)
        if known is None and stored:
            known = survey_from_text(stored, path)
        reader = VideoReader(path, survey=known, limits=limits)
        self._add(reader.survey)
        return reader

    def _add(self, survey: Survey) -> None:
        if survey.stamp is None or num_bytes(survey) > self.max_bytes:
            return
        for array in _arrays(survey).values():
            array.flags.writeable = False  # readers share it
        with self._lock:
            replaced = self._surveys.pop(survey.path, None)  # of another thread
            self._num_bytes += num_bytes(survey) - (num_bytes(replaced) if replaced else 0)
            self._surveys[survey.path] = survey
            while self._num_bytes > self.max_bytes:
                self._num_bytes -= num_bytes(self._surveys.popitem(last=False)[1])


_CACHE = SurveyCache()


def open_cached(
    path: str | PathLike[str],
    stored: str = "",
    limits: Limits = Limits(),  # noqa: B008, it is frozen
) -> VideoReader:
    """A reader of a file, by this process's cache: see :meth:`SurveyCache.open`."""
    return _CACHE.open(path, stored, limits)


def num_bytes(survey: Survey) -> int:
    """Memory of a survey's arrays."""
    return sum(array.nbytes for array in _arrays(survey).values())


def survey_to_text(survey: Survey) -> str:
    """A survey as printable text; empty if the file has changed since, or had just been written.

    Timestamps are stored as differences, which are mostly equal: an hour takes some hundred bytes.
    """
    if survey.stamp is None or not survey.is_valid():
        return ""
    values = {
        field.name: getattr(survey, field.name)
        for field in fields(survey)
        if field.name not in {"path", "stamp", "orientation", "start_time", "time_base", *_ARRAYS}
    }
    turned = survey.orientation
    content = {
        "versions": _versions(),
        "file": [survey.stamp.size, survey.stamp.mtime_ns, _digest(survey.path)],
        "orientation": [turned.transpose, turned.flip_x, turned.flip_y],
        "start_time": survey.start_time.as_integer_ratio(),
        "time_base": survey.time_base.as_integer_ratio(),
        "arrays": {
            name: np.diff(array.astype(np.int64), axis=0, prepend=array[:1] * 0).tolist()
            for name, array in _arrays(survey).items()
        },
        "values": values,
    }
    return base64.b64encode(zlib.compress(json_text(content, survey.path).encode(), 9)).decode()


def survey_from_text(text: str, path: Path) -> Survey | None:
    """The survey that a text holds, if the file is the one that it was made of; None otherwise.

    Size, time of change, and the first and the last 64 KiB of the file must be those of before: an
    index may have been copied with the videos, so that nothing else of a file's state holds. Text
    of other versions of PyAV or FFmpeg, which may see other frames, and damaged text are passed
    over.
    """
    stamp = stamp_of(path)
    if stamp is None:
        return None
    try:
        content = parse_json(_decompressed(base64.b64decode(text, validate=True)))
        if content["versions"] != _versions() or content["file"][:2] != [*stamp[:2]]:
            return None
        if content["file"][2] != _digest(path):
            return None
        arrays: dict[str, Any] = {
            name: np.cumsum(np.array(values, np.int64), axis=0).astype(_ARRAYS[name])
            for name, values in content["arrays"].items()
        }
        arrays["seek_points"] = arrays["seek_points"].reshape(-1, 2)
        found = Survey(
            path=path,
            orientation=Orientation(*content["orientation"]),
            start_time=Fraction(*content["start_time"]),
            time_base=Fraction(*content["time_base"]),
            stamp=stamp,
            **arrays,
            **content["values"],
        )
        return found if _is_whole(found) else None
    except Exception:  # an index may be anyone's: its text may hold anything
        return None


def _decompressed(data: bytes) -> bytes:
    """The content of a stored survey; some kilobytes could be gigabytes."""
    stream = zlib.decompressobj()
    content = stream.decompress(data, MAX_BYTES)
    if not stream.eof:
        raise ValueError(f"a stored survey must end within {MAX_BYTES} bytes")
    return content


def _is_whole(survey: Survey) -> bool:
    """Whether a survey's values are of their types, and its arrays fit each other."""
    for each in fields(survey):
        types = _SCALARS.get(each.type if isinstance(each.type, type) else None, ())
        if types and type(getattr(survey, each.name)) not in types:
            return False
    turned, times = survey.orientation, survey.timestamps
    sizes = (survey.height, survey.width, survey.time_base)
    counts = (survey.stream, survey.fps, survey.num_packets, survey.container_frames)
    return (
        all(type(each) is bool for each in (turned.transpose, turned.flip_x, turned.flip_y))
        and all(size > 0 for size in sizes)
        and all(0 <= count < float("inf") for count in counts)
        and times.ndim == 1
        and times.shape == survey.shown.shape
        and bool((np.diff(times) > 0).all())
        and (bool(survey.shown.any()) or not survey.is_exact)
        and (survey.decoded is None or (survey.decoded.ndim == 1 and len(survey.decoded) > 0))
    )


def _arrays(survey: Survey) -> dict[str, np.ndarray]:
    found = {name: getattr(survey, name) for name in _ARRAYS}
    return {name: array for name, array in found.items() if array is not None}


def _digest(path: Path) -> str:
    """A digest of both ends of a file, where containers keep their index of packets."""
    with path.open("rb") as file:
        digest = hashlib.blake2b(file.read(_DIGESTED), digest_size=16)
        end = file.seek(0, 2)
        file.seek(max(0, end - _DIGESTED))
        digest.update(file.read(_DIGESTED))
    return digest.hexdigest()


def _versions() -> str:
    ffmpeg = getattr(av, "ffmpeg_version_info", "unknown")
    return f"survey 3, PyAV {av.__version__}, FFmpeg {ffmpeg}"
