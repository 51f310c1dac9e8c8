import torch

from taghead.model.costs import latency, peak_bytes

CPU = torch.device("cpu")


def test_latency_runs_in_turn() -> None:
    order: list[str] = []
    times = latency([lambda: order.append("a"), lambda: order.append("b")], 3, CPU, warmup=1)
    assert order == ["a", "b"] * 4
    assert len(times) == 2


def test_peak_is_what_is_held_at_once() -> None:
    def function() -> None:
        for _ in range(3):  # one after the other
            torch.empty(250_000)

    assert 1_000_000 <= peak_bytes(function, CPU) < 1_100_000
