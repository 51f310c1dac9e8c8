"""The cache of edge lists and dense constants: bounded by bytes, and of no effect on results."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch_geometric.nn import GATv2Conv, GCNConv

from taghead.graph import RELATIONS, Grid
from taghead.graph.cache import BYTES_PER_ENTRY, CACHE, SizedCache, limit_from_environment
from taghead.graph.edge_index import batched_edges
from taghead.nn.head import TAGHead
from taghead.operators import propagate

CPU = torch.device("cpu")


def zeros(count: int) -> torch.Tensor:
    return torch.zeros(count, dtype=torch.uint8)


@pytest.fixture
def _fresh():
    CACHE.clear()
    before = CACHE.max_bytes
    yield
    CACHE.max_bytes = before


def held() -> list:
    return [value for value, _ in CACHE._entries.values()]


def tensors_in(value) -> list[torch.Tensor]:
    if isinstance(value, tuple):
        return [tensor for one in value for tensor in tensors_in(one)]
    return [value] if isinstance(value, torch.Tensor) else []


@pytest.mark.usefixtures("_fresh")
def test_two_hundred_grids_stay_within_the_limit():
    CACHE.max_bytes = 2**20
    convs = GCNConv(4, 4), GATv2Conv(4, 4)
    most = 0
    for i in range(200):
        grid = Grid(1 + i % 3, 1 + i % 5, 1 + i % 7)
        x = torch.randn(1 + i % 4, grid.num_nodes, 4)
        with torch.no_grad():
            dense, listed = (
                propagate(convs[i % 2], x, grid, RELATIONS, engine=e) for e in ("dense", "pyg")
            )
        torch.testing.assert_close(dense, listed, rtol=1e-4, atol=1e-5)
        size = sum(t.nbytes for value in held() for t in tensors_in(value))
        assert size <= CACHE.num_bytes <= CACHE.max_bytes
        most = max(most, size)
    assert most > 2**18  # the limit is what bounds it
    assert not any(t.requires_grad for value in held() for t in tensors_in(value))


def test_the_least_recently_used_entry_leaves_first():
    cache = SizedCache(3 * (BYTES_PER_ENTRY + 100))
    first, second, third = (cache.get(zeros, n) for n in (98, 99, 100))
    assert cache.get(zeros, 98) is first
    cache.get(zeros, 97)
    assert cache.get(zeros, 98) is first
    assert cache.get(zeros, 100) is third
    assert cache.get(zeros, 99) is not second
    assert cache.num_bytes <= cache.max_bytes
    assert len(cache) == 3


def test_a_result_larger_than_the_limit_is_not_kept():
    cache = SizedCache(2**14)
    small = cache.get(zeros, 10)
    with pytest.warns(
        UserWarning, match="zeros: 24096 bytes are more than the cache's limit of 16384"
    ):
        large = cache.get(zeros, 20_000)
    assert large.shape == (20_000,)
    assert len(cache) == 1
    assert cache.get(zeros, 10) is small


def test_threads_share_a_cache():
    cache = SizedCache(40 * BYTES_PER_ENTRY)

    def use(seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for n in torch.randint(64, (300,), generator=generator).tolist():
            assert cache.get(zeros, n).numel() == n

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert 0 < cache.num_bytes <= cache.max_bytes
    assert cache.num_bytes == sum(size for _, size in cache._entries.values())
    assert len(cache._order) == len(cache)


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("engine", ["dense", "pyg"])
def test_copies_and_pickles_of_a_head_hold_no_cached_tensor(engine):
    head = TAGHead(8, 3, (3, 2, 2), encoder_heads=2, encoder_channels=8, engine=engine).eval()
    before = len(pickle.dumps(head))
    x = torch.randn(2, 8, 3, 2, 2)
    expected = head(x)
    assert len(CACHE) > 0
    assert len(pickle.dumps(head)) == before
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        torch.testing.assert_close(other(x), expected)


@pytest.mark.usefixtures("_fresh")
def test_entries_are_found_again():
    grid = Grid(2, 2, 2)
    assert batched_edges(grid, RELATIONS, 2, CPU) is batched_edges(Grid(2, 2, 2), RELATIONS, 2, CPU)
    assert batched_edges(grid, RELATIONS, 3, CPU).batch[-1] == 2


def test_the_limit_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("TAGHEAD_CACHE_BYTES", "1000")
    assert limit_from_environment() == 1000
    monkeypatch.setenv("TAGHEAD_CACHE_BYTES", "1GB")
    with pytest.raises(ValueError, match=r"TAGHEAD_CACHE_BYTES must be an integer.*'1GB'"):
        limit_from_environment()
