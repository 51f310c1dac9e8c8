import operator
import os
import re
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from taghead.data import workers
from taghead.data.workers import Failure, run_isolated, run_surely


def minute(job: object) -> float:
    return 60.0


def test_every_job_is_done_once() -> None:
    results = dict(run_isolated(operator.neg, list(range(40)), 3, minute))
    assert results == {number: -number for number in range(40)}
    assert list(run_isolated(operator.neg, [], 3, minute)) == []


def test_a_process_that_dies_costs_its_job_only() -> None:
    jobs = [0, int(signal.SIGSEGV), 0, int(signal.SIGKILL), 0, 0]
    results = list(run_isolated(signal.raise_signal, jobs, 2, minute))
    assert sorted((job, result) for job, result in results if job) == [
        (signal.SIGKILL, Failure("ended the process (SIGKILL)")),
        (signal.SIGSEGV, Failure("ended the process (SIGSEGV)")),
    ]
    assert [result for job, result in results if not job] == [None] * 4


def test_a_process_that_leaves_says_with_which_code() -> None:
    assert list(run_isolated(os._exit, [3], 1, minute)) == [
        (3, Failure("ended the process (exit code 3)"))
    ]


def test_a_job_that_does_not_end_is_ended() -> None:
    start = time.monotonic()
    results = dict(run_isolated(time.sleep, [0, 60, 0.1], 2, lambda job: 0.5 if job == 60 else 60))
    assert results == {0: None, 0.1: None, 60: Failure("took longer than 0.5 s")}
    assert time.monotonic() - start < 30


def test_processes_end_when_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    results = run_isolated(time.sleep, [0, 60, 60], 2, minute)
    assert next(results) == (0, None)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 30


def test_a_process_that_dies_between_jobs_costs_none() -> None:
    results = run_isolated(eval, ["__import__('os').getpid()", "1 + 1", "2 + 2"], 1, minute)
    _, pid = next(results)
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    assert [result for _, result in results] == [2, 4]


def test_processes_that_die_at_their_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "start_worker", partial(os._exit, 1))
    with pytest.raises(RuntimeError, match=r"died at its start.*`if __name__ == \"__main__\":`"):
        list(run_isolated(operator.neg, [1, 2], 2, minute))


def test_an_error_of_the_function_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_isolated(eval, ["1 + 1", "1 / 0"], 1, minute))


DIES_ONCE = """(
    __import__('os').path.exists({0!r})
    or (open({0!r}, 'w').close(), __import__('os').kill(__import__('os').getpid(), 9))
)"""


def test_a_job_whose_process_was_killed_is_done_again(tmp_path: Path) -> None:
    jobs = ["1 + 1", DIES_ONCE.format(str(tmp_path / "died")), "2 + 2"]
    results = dict(run_surely(eval, jobs, 1, minute))
    assert [results[job] for job in jobs] == [2, True, 4]


def test_a_job_that_ends_its_process_twice_says_so() -> None:
    ((_, crashed),) = run_surely(signal.raise_signal, [signal.SIGSEGV], 1, minute)
    assert crashed == Failure("ended the process (SIGSEGV) twice")
    ((_, killed),) = run_surely(signal.raise_signal, [signal.SIGKILL], 1, minute)
    assert isinstance(killed, Failure)
    assert re.fullmatch(
        r"ended the process \(SIGKILL\) twice \(with [\d.]+ .B of memory\)", killed.reason
    )


@pytest.mark.parametrize("method", [None, "spawn"])
def test_jobs_under_way_are_finished_where_that_is_asked_for(
    tmp_path: Path, method: str | None
) -> None:
    """The one whose result is taken, and the next, which has begun meanwhile."""
    write = "open({!r}, 'w').close()"
    files = [str(tmp_path / name) for name in "abcd"]
    jobs = [write.format(file) for file in files]
    results = run_isolated(eval, jobs, 1, minute, method, is_finished=True)
    next(results)
    results.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
