"""Decoding with decord2, on the files of the allowlist."""

from collections.abc import Generator

import numpy as np

from taghead.errors import VideoError, first_line
from taghead.video.decode.allowlist import check_allowed, check_count, resized
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

    def read_each(
        self, numbers: np.ndarray, height: int, width: int
    ) -> Generator[np.ndarray, None, None]:
        """Frames by rising number: see :class:`~taghead.video.decode.Backend`."""
        yield from self.read(numbers, height, width)

    def read(self, wanted: np.ndarray, height: int, width: int) -> np.ndarray:
        """Frames by number: see :class:`~taghead.video.decode.Backend`."""
        import decord

        survey = self.survey
        if not len(wanted):
            return np.empty((0, height, width, 3), np.uint8)
        try:
            reader = decord.VideoReader(
                f"file:{survey.path}", num_threads=self.threads, fault_tol=_NO_REPEATS
            )
            check_count("decord", survey, len(reader))  # its get_batch may hang where it differs
            numbers, positions = np.unique(wanted, return_inverse=True)
            batch = reader.get_batch(numbers.tolist())
        except (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError) as error:
            reason = first_line(error)
            raise VideoError(f"{survey.path}: decord cannot decode it: {reason}") from error
        # decord's bridge, which is global, may be set to another library's tensors
        pictures = np.asarray(batch.asnumpy() if hasattr(batch, "asnumpy") else batch)
        return resized(pictures, height, width, survey.orientation)[positions]
