"""Errors of libraries that a user can mend, in the package's words."""

import pytest
import torch
from torch.multiprocessing.reductions import rebuild_storage_fd

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


class Died:
    """Shared memory of a process that is gone."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def detach(self) -> int:
        raise self.error


@pytest.mark.parametrize(
    "error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()], ids=repr
)
def test_a_reader_that_died_while_it_handed_a_batch_over_is_named(error: Exception) -> None:
    assert loader_failure(error) is None  # of anything else
    with pytest.raises(type(error)) as caught:
        rebuild_storage_fd(torch.UntypedStorage, Died(error), 8)
    found = loader_failure(caught.value)
    assert found is not None
    assert found.startswith(ENDED.format("ended unexpectedly"))


def test_other_errors_are_not_of_readers() -> None:
    assert loader_failure(RuntimeError("Caught ValueError in DataLoader worker process 0.")) is None
