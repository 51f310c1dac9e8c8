"""Decoding backends behind one interface: PyAV, decord2 and torchcodec.

It imports `taghead.video.survey` and what lies below it; a backend's library is imported when it is
used.
"""

from collections.abc import Generator
from typing import Literal, Protocol, get_args

import numpy as np
from av.video.frame import VideoFrame

from taghead.video.limits import Limits
from taghead.video.survey import Survey

BackendName = Literal["auto", "pyav", "decord", "torchcodec"]
BACKENDS = get_args(BackendName)


class Backend(Protocol):
    """Decodes a file with a survey, or refuses it with a `VideoError`."""

    def frames(self, numbers: np.ndarray) -> Generator[VideoFrame, None, None]:
        """Decoded frames by rising number, one by one; none but the last given is kept.

        Args:
            numbers: Frame numbers, as the survey counts, each one greater than the one before.

        Raises:
            VideoError: If a frame that is needed cannot be decoded.
        """
        ...


def choose_backend(
    name: BackendName, survey: Survey, threads: int, limits: Limits
) -> tuple[str, str, Backend]:
    """The backend of a name: the name of the one taken, why it is taken, and the backend.

    `auto` is `pyav` on every file: it was measured to be as fast as the others on those that they
    read right (`benchmarks/decode.py`), and it alone notices that a decoder passes over damage.

    Raises:
        VideoError: If it is not proved to be right on this file, or is not installed.
    """
    from taghead.video.decode.pyav import PyAVBackend

    if name == "decord":
        from taghead.video.decode.decord import DecordBackend

        return name, "it was asked for", DecordBackend(survey, threads)
    if name == "torchcodec":
        from taghead.video.decode.torchcodec import TorchCodecBackend

        return name, "it was asked for", TorchCodecBackend(survey, threads)
    reason = "it was asked for" if name == "pyav" else "it is right on every file, and as fast"
    return "pyav", reason, PyAVBackend(survey, threads, limits)
