"""Counts the operators, options and relations compared with PyG, and says so at the end."""

from __future__ import annotations

import pytest
import torch

COMPARED: set[tuple[str, str, str]] = set()


@pytest.fixture
def compared() -> set[tuple[str, str, str]]:
    """The cases found equal: operator, options, relation."""
    return COMPARED


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors are fastest on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COMPARED:
        operators = len({operator for operator, _, _ in COMPARED})
        terminalreporter.write_line(
            f"compared with PyG: {len(COMPARED)} cases of operator x options x relation, "
            f"{operators} operators"
        )
