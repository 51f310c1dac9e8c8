import numpy as np
import pytest

from taghead.video.frame_times import NO_TIMESTAMP, presentation_times

X = NO_TIMESTAMP
SECOND = 25  # ticks


def found(
    container: str,
    pts: list[int],
    output_dts: list[int] = [],  # noqa: B006 - it is only read
    packet_dts: list[int] = [],  # noqa: B006
    stated_end: int = 0,
) -> list[int]:
    output_dts = output_dts or [X] * len(pts)
    arrays = (np.array(one, np.int64) for one in (pts, output_dts, packet_dts))
    return presentation_times(container, *arrays, stated_end, SECOND).tolist()


def test_presentation_times_are_taken_as_they_are() -> None:
    assert found("flv", [7, 8, 12, 12, 30]) == [7, 8, 12, 12, 30]
    assert found("matroska,webm", [0, 0, 0]) == [0, 0, 0]


def test_avi_has_the_decode_times_of_packets_on_which_frames_come_out() -> None:
    # a decoder's delay of 2; libavformat guesses the wrong presentation times
    wrong = [2, 8, 6, 10, 4]
    assert found("avi", wrong, [4, 6, 8, X, X], [0, 2, 4, 6, 8], 10) == [0, 2, 4, 6, 8]
    # frames 2 to 4 lie 3 ticks apart, and of the last two it is not known
    assert found("avi", wrong, [2, 3, 6, X, X], [0, 1, 2, 3, 6], 7) == [0, 1, 4, 5, 6]
    # rising ones are not right for that
    assert found("avi", [2, 4, 6, 9, 10], [4, 6, 8, X, X], [0, 2, 4, 6, 8], 10) == [0, 2, 4, 6, 8]
    assert found("avi", [X, X], [X, X], [0, 5], 6) == [0, 5]  # both come out at the end
    assert found("avi", [X, X], [X, X], [0, 2, 4], 6) == [0, 3]


@pytest.mark.parametrize(
    ("stated_end", "last"),
    [(0, 8), (5, 8), (10, 8), (9, 8), (400, 8)],  # 10 ends at 10, whatever is stated
)
def test_an_end_that_cannot_be_is_not_taken(stated_end: int, last: int) -> None:
    assert found("avi", [X] * 5, [2, 4, 6, 8, X], [0, 2, 4, 6, 8], stated_end)[-1] == last


def test_a_clock_that_begins_anew_goes_on() -> None:
    assert found("mpegts", [5, 6, 7, 8, 5, 6, 7]) == [5, 6, 7, 8, 9, 10, 11]
    assert found("mpegts", [5, 6, 7, 8, 5000, 5001]) == [5, 6, 7, 8, 9, 10]
    assert found("mpegts", [5, 6, 7, 200, 201]) == [5, 6, 7, 200, 201]  # a pause of 8 s
    assert found("mpegts", [3]) == [3]


def test_times_that_are_missing_lie_evenly_between_those_known() -> None:
    assert found("matroska,webm", [X, X, 0, 2, X, 6, X]) == [-4, -2, 0, 2, 4, 6, 8]
    assert found("matroska,webm", [X, 5, X]) == [5, 5, 5]
    assert found("flv", [4, 1, 9, 6]) == [1, 4, 6, 9]


def test_without_any_times_there_are_none() -> None:
    assert found("h264", [X, X, X]) == [X, X, X]
    assert found("h264", []) == []
