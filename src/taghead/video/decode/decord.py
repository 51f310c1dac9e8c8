"""Decoding with decord2, on the files of the allowlist."""

from collections.abc import Generator

import numpy as np
from av.video.frame import VideoFrame

from taghead.errors import VideoError, first_line
from taghead.video.decode.allowlist import as_frames, batches, check_allowed, check_count
from taghead.video.survey import Survey

_NO_REPEATS = "1e-9"  # the share of frames that decord may replace by others


class DecordBackend:
    """Decodes with decord2; a file outside the allowlist is refused.

    It does not notice damage within pictures that the decoder passes over: PyAV does.

    Args:
        survey: What is known about the file.
        threads: Decoding threads.

    Raises:
        VideoError: If it is not proved to be right on this file.
    """

    def __init__(self, survey: Survey, threads: int) -> None:
        check_allowed("decord", survey)
        self.survey, self.threads = survey, threads

    def frames(self, numbers: np.ndarray) -> Generator[VideoFrame, None, None]:
        """Decoded frames by rising number: see :class:`~taghead.video.decode.Backend`."""
        import decord

        survey = self.survey
        try:
            reader = decord.VideoReader(
                f"file:{survey.path}", num_threads=self.threads, fault_tol=_NO_REPEATS
            )
            check_count("decord", survey, len(reader))  # its get_batch may hang where it differs
            for batch in batches(survey, numbers):
                # its bridge, which is global, may be set to another library's tensors
                pictures = reader.get_batch(batch)
                if hasattr(pictures, "asnumpy"):
                    pictures = pictures.asnumpy()
                yield from as_frames(np.asarray(pictures))
        except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError) as error:
            reason = first_line(error)
            raise VideoError(f"{survey.path}: decord cannot decode it: {reason}") from error
