"""Errors of libraries that a user can mend, in the package's words."""

import pytest

from taghead.errors import loader_failure

ENDED = "a process that reads clips {}, as the system does when memory runs out"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Killed. ",
            ENDED.format("was ended by a signal (Killed)"),
        ),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", ENDED.format("ended unexpectedly")),
        (
            "DataLoader timed out after 20.0 seconds",
            "no batch came for 20 s (--data.timeout_sec): a process that reads clips was stopped",
        ),
    ],
)
def test_a_reader_that_died_or_stopped_is_named(text: str, told: str) -> None:
    found = loader_failure(RuntimeError(text))
    assert found is not None
    assert found.startswith(told)


def test_other_errors_are_not_of_readers() -> None:
    assert loader_failure(RuntimeError("Caught ValueError in DataLoader worker process 0.")) is None
