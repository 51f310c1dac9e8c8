"""Decoding with torchcodec, on the files of the allowlist."""

from collections.abc import Generator

import numpy as np

from taghead.errors import VideoError, first_line
from taghead.video.decode.allowlist import check_allowed, check_count, resized
from taghead.video.survey import Survey


class TorchCodecBackend:
    """Decodes with torchcodec, which looks up each frame; its times must be those of the packets.

    It does not notice damage within pictures that the decoder passes over: PyAV does.

    Args:
        survey: What is known about the file.
        threads: Decoding threads.

    Raises:
        VideoError: If it is not proved to be right on this file, or cannot be imported.
    """

    def __init__(self, survey: Survey, threads: int) -> None:
        check_allowed("torchcodec", survey)
        try:
            import torchcodec.decoders  # noqa: F401
        except (ImportError, OSError, RuntimeError) as error:
            raise VideoError(
                f"{survey.path}: torchcodec cannot be imported; it needs "
                "`pip install taghead[torchcodec]` and the shared libraries of FFmpeg 4 to 8"
            ) from error
        self.survey, self.threads = survey, threads

    def read_each(
        self, numbers: np.ndarray, height: int, width: int
    ) -> Generator[np.ndarray, None, None]:
        """Frames by rising number: see :class:`~taghead.video.decode.Backend`."""
        yield from self.read(numbers, height, width)

    def read(self, wanted: np.ndarray, height: int, width: int) -> np.ndarray:
        """Frames by number: see :class:`~taghead.video.decode.Backend`."""
        from torchcodec.decoders import VideoDecoder

        survey = self.survey
        if not len(wanted):
            return np.empty((0, height, width, 3), np.uint8)
        numbers, positions = np.unique(wanted, return_inverse=True)
        try:
            decoder = VideoDecoder(
                str(survey.path), dimension_order="NHWC", num_ffmpeg_threads=self.threads
            )
            check_count("torchcodec", survey, len(decoder))
            batch = decoder.get_frames_at(numbers.tolist())
        except (RuntimeError, ValueError, IndexError) as error:
            reason = first_line(error)
            raise VideoError(f"{survey.path}: torchcodec cannot decode it: {reason}") from error
        due = survey.timestamps[numbers] * float(survey.time_base)
        wrong = np.flatnonzero(
            np.abs(batch.pts_seconds.numpy() - due) > float(survey.time_base) / 2
        )
        if len(wrong):
            raise VideoError(
                f"{survey.path}: damaged: torchcodec gives another frame for {numbers[wrong[0]]}"
            )
        return resized(batch.data.numpy(), height, width, survey.orientation)[positions]
