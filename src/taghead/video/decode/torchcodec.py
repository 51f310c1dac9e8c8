"""Decoding with torchcodec, on the files of the allowlist."""

from collections.abc import Generator

import numpy as np
from av.video.frame import VideoFrame

from taghead.errors import VideoError, first_line
from taghead.video.decode.allowlist import as_frames, batches, check_allowed, check_count
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

    def frames(self, numbers: np.ndarray) -> Generator[VideoFrame, None, None]:
        """Decoded frames by rising number: see :class:`~taghead.video.decode.Backend`."""
        from torchcodec.decoders import VideoDecoder

        survey = self.survey
        tick = float(survey.time_base)
        try:
            decoder = VideoDecoder(
                str(survey.path), dimension_order="NHWC", num_ffmpeg_threads=self.threads
            )
            check_count("torchcodec", survey, len(decoder))
            for batch in batches(survey, numbers):
                found = decoder.get_frames_at(batch)
                due = survey.timestamps[batch] * tick
                wrong = np.flatnonzero(np.abs(found.pts_seconds.numpy() - due) > tick / 2)
                if len(wrong):
                    raise VideoError(
                        f"{survey.path}: damaged: torchcodec gives another frame for "
                        f"{batch[wrong[0]]}"
                    )
                yield from as_frames(found.data.numpy())
        except VideoError:
            raise
        except (RuntimeError, ValueError, IndexError) as error:
            reason = first_line(error)
            raise VideoError(f"{survey.path}: torchcodec cannot decode it: {reason}") from error
