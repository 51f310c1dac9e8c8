import copy
import importlib.util
import pickle
import time
from typing import Any

import pytest
import torch

from taghead.graph import (
    FUTURE,
    INTRA_FRAME,
    NO_EDGES,
    PAST,
    RELATIONS,
    TIME_ALIGNED,
    Grid,
    Relation,
    as_relation,
    combine,
    custom,
    future,
    motion_aligned,
    past,
    random_intra,
    random_time,
    shuffled_intra,
    shuffled_time,
    spatial_window,
    time_aligned,
)
from taghead.graph import edges as edges_module
from taghead.graph import relations as relations_module
from taghead.graph.edges import RelationKind, TimeEdges
from taghead.graph.relations import find


def test_edges_of_a_small_grid() -> None:
    # two frames of two positions: nodes 0 1 | 2 3
    grid = Grid(2, 1, 2)
    assert grid.edge_index(INTRA_FRAME).tolist() == [
        [1, 0, 3, 2],  # source
        [0, 1, 2, 3],  # target
    ]
    assert grid.edge_index(TIME_ALIGNED).tolist() == [
        [2, 3, 0, 1],
        [0, 1, 2, 3],
    ]
    edge_index, edge_type = grid.typed_edges(RELATIONS)
    assert edge_index.tolist() == [
        [1, 2, 0, 3, 0, 3, 1, 2],
        [0, 0, 1, 1, 2, 2, 3, 3],
    ]
    assert edge_type.tolist() == [0, 1, 0, 1, 1, 0, 1, 0]


def test_edges_in_time_reach_both_neighbours() -> None:
    assert Grid(3, 1, 1).edge_index(TIME_ALIGNED).tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]]


def test_positions_follow_the_order_of_nodes() -> None:
    assert Grid(2, 1, 2).positions().tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]


def test_number_of_edges_of_the_paper() -> None:
    grid = Grid(8, 7, 7)
    assert grid.edge_index(INTRA_FRAME).shape == (2, 18_816)
    assert grid.edge_index(TIME_ALIGNED).shape == (2, 686)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 2, 3), (4, 1, 1), (3, 2, 2), (2, 3, 1)])
def test_edges_are_those_of_the_definition(size: tuple[int, int, int]) -> None:
    grid = Grid(*size)
    places = [tuple(p) for p in grid.positions().tolist()]
    intra, aligned = [], []
    for j, (tj, *pj) in enumerate(places):  # target first: the order of the edges
        for i, (ti, *pi) in enumerate(places):
            if ti == tj and pi != pj:
                intra.append([i, j])
            if abs(ti - tj) == 1 and pi == pj:
                aligned.append([i, j])
    assert grid.edge_index(INTRA_FRAME).t().tolist() == intra
    assert grid.edge_index(TIME_ALIGNED).t().tolist() == aligned


def test_a_large_grid_needs_no_loop_over_nodes() -> None:
    start = time.process_time()
    edges = Grid(16, 28, 28).edge_index(INTRA_FRAME)
    assert edges.shape == (2, 16 * 784 * 783)
    assert time.process_time() - start < 10  # a loop over its 9.8 million edges takes longer


@pytest.mark.parametrize("name", ["frames", "height", "width"])
@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_sizes_must_be_positive_integers(name: str, size: object) -> None:
    sizes = {"frames": 2, "height": 2, "width": 2, name: size}
    with pytest.raises(ValueError, match=f"{name} must be a positive integer .*{size}"):
        Grid(**sizes)  # type: ignore[arg-type]


def test_a_relation_is_the_edge_type_that_pyg_writes() -> None:
    plain = ("token", "intra_frame", "token")
    assert plain == INTRA_FRAME
    assert hash(plain) == hash(INTRA_FRAME)
    assert {plain: 1}[INTRA_FRAME] == 1
    assert as_relation(plain) is INTRA_FRAME
    assert as_relation("time_aligned") is TIME_ALIGNED
    assert INTRA_FRAME.name not in TIME_ALIGNED.name
    for twin in (pickle.loads(pickle.dumps(INTRA_FRAME)), copy.deepcopy(INTRA_FRAME)):
        assert twin == INTRA_FRAME
        assert torch.equal(twin.edges(Grid(2, 2, 2)), INTRA_FRAME.edges(Grid(2, 2, 2)))


def test_relations_of_one_name_and_two_rules_differ() -> None:
    assert Relation("intra_frame", TIME_ALIGNED.edges) != INTRA_FRAME


def test_an_unknown_relation_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"intra_frame, time_aligned.*\(got 'diagonal'\)"):
        Grid(2, 2, 2).edge_index("diagonal")


def test_no_relations_no_edges() -> None:
    edge_index, edge_type = Grid(2, 2, 2).typed_edges([])
    assert edge_index.shape == (2, 0)
    assert edge_type.shape == (0,)


def test_edges_of_the_other_relations_on_small_grids() -> None:
    line = Grid(4, 1, 1)
    assert line.edge_index(time_aligned(reach=2)).tolist() == [
        [1, 2, 0, 2, 3, 0, 1, 3, 1, 2],
        [0, 0, 1, 1, 1, 2, 2, 2, 3, 3],
    ]
    assert line.edge_index(PAST).tolist() == [[0, 1, 2], [1, 2, 3]]
    assert line.edge_index(FUTURE).tolist() == [[1, 2, 3], [0, 1, 2]]
    assert line.edge_index(past(reach=2)).tolist() == [[0, 0, 1, 1, 2], [1, 2, 2, 3, 3]]
    # two frames of 2 x 3: nodes 0 1 2 / 3 4 5 | 6 7 8 / 9 10 11
    edges = Grid(2, 2, 3).edge_index(spatial_window(1))
    of_first_frame = [
        [1, 3, 4, 0, 2, 3, 4, 5, 1, 4, 5, 0, 1, 4, 0, 1, 2, 3, 5, 1, 2, 4],
        [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4, 5, 5, 5],
    ]
    assert edges[:, :22].tolist() == of_first_frame
    assert (edges[:, 22:] - 6).tolist() == of_first_frame


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 2, 3), (4, 1, 1), (5, 2, 2), (2, 4, 3)])
@pytest.mark.parametrize("number", [1, 2, 9])
def test_other_edges_are_those_of_the_definition(size: tuple[int, int, int], number: int) -> None:
    grid = Grid(*size)
    places = [tuple(p) for p in grid.positions().tolist()]
    found: dict[Relation, list] = {
        time_aligned(number): [],
        past(number): [],
        future(number): [],
        spatial_window(number): [],
    }
    both, before, after, window = found.values()
    for j, (tj, yj, xj) in enumerate(places):
        for i, (ti, yi, xi) in enumerate(places):
            if (yi, xi) == (yj, xj) and 0 < abs(ti - tj) <= number:
                both.append([i, j])
                (before if ti < tj else after).append([i, j])
            if ti == tj and i != j and max(abs(yi - yj), abs(xi - xj)) <= number:
                window.append([i, j])
    for relation, edges in found.items():
        assert grid.edge_index(relation).t().tolist() == edges
    t, p, r = grid.frames, grid.num_positions, min(number, grid.frames - 1)
    assert len(before) == len(after) == p * r * (2 * t - r - 1) // 2

    def pairs(n: int) -> int:
        r = min(number, n - 1)
        return n * (2 * r + 1) - r * (r + 1)

    assert len(window) == t * (pairs(grid.height) * pairs(grid.width) - p)


def test_reach_1_is_the_plain_relation_and_windows_grow_to_frames() -> None:
    assert time_aligned(reach=1) == TIME_ALIGNED
    assert as_relation("time_1f") == TIME_ALIGNED
    assert (past(), future()) == (PAST, FUTURE)
    grid = Grid(2, 2, 3)
    assert torch.equal(grid.edge_index(spatial_window(2)), grid.edge_index(INTRA_FRAME))


def test_a_large_window_needs_no_loop_over_nodes() -> None:
    start = time.process_time()
    assert Grid(16, 28, 28).edge_index(spatial_window(2)).shape == (2, 274_752)
    assert time.process_time() - start < 2


BASELINES = (shuffled_intra, shuffled_time, random_intra, random_time)


def every_relation() -> list[Relation]:
    reaches = [make(n) for make in (time_aligned, past, future) for n in (1, 2, 3, 12, 21)]
    baselines = [make(n) for make in BASELINES for n in (0, 1, 2, 10, 12)]
    windows = [make(n) for make in (spatial_window, motion_aligned) for n in (1, 2, 11, 12)]
    return [INTRA_FRAME, NO_EDGES, *reaches, *windows, *baselines]


def test_no_name_of_the_package_contains_another() -> None:
    relations = every_relation()
    assert combine(relations) == tuple(relations)
    names = [relation.name for relation in relations]
    assert not [(a, b) for a in names for b in names if a != b and a in b]


def test_relations_are_written_and_read() -> None:
    for relation in every_relation():
        for form in (relation.to_config(), tuple(relation), relation.name, relation):
            again = as_relation(form)
            assert again == relation
            assert again.to_config() == relation.name
        for twin in (pickle.loads(pickle.dumps(relation)), copy.deepcopy(relation)):
            assert (twin, twin.to_config()) == (relation, relation.name)


NAMES = {
    "time_2f": time_aligned(2),
    "past_1f": PAST,
    "past_12f": past(12),
    "future_3f": future(3),
    "window_1p": spatial_window(1),
    "motion_1p": motion_aligned(),
    "shuffled_0_intra": shuffled_intra(),
    "shuffled_10_time": shuffled_time(10),
    "random_0_intra": random_intra(0),
    "random_1_time": random_time(1),
}


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    assert NAMES[name].name == name
    assert as_relation(name) == NAMES[name]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("past", "past_1f"),
        (" past( reach = 2 ) ", "past_2f"),
        ("past(reach=1)", "past_1f"),
        ("future", "future_1f"),
        ("time_aligned(reach=1)", "time_aligned"),
        ("time_aligned(reach=2)", "time_2f"),
        ("spatial_window(radius=1)", "window_1p"),
        ("motion_aligned", "motion_1p"),
        ("motion_aligned(radius=2)", "motion_2p"),
        ("shuffled_intra", "shuffled_0_intra"),
        ("shuffled_time(seed=7)", "shuffled_7_time"),
        ("random_intra(seed=1)", "random_1_intra"),
        ("random_time", "random_0_time"),
    ],
)
def test_the_notation_of_the_constructors_is_read_as_the_name(text: str, name: str) -> None:
    assert as_relation(text).name == name
    assert as_relation(text) == as_relation(name)
    assert find([INTRA_FRAME, as_relation(name)], text).name == name


def test_one_of_some_relations_is_found() -> None:
    own, relations = custom("ring", ring), (INTRA_FRAME, past(3), custom("ring", ring))
    for wanted in (own, "ring", ("token", "ring", "token")):
        assert find(relations, wanted) == own
    for wanted in (past(2), "past_2f", "past(reach=2)", "past", ("token", "past_2f", "token"), 3):
        with pytest.raises(ValueError, match=r"must be one of intra_frame, past_3f, ring \(got "):
            find(relations, wanted)
    with pytest.raises(ValueError, match=r"must be one of ring \(got .*ring"):
        find([own], custom("ring", lambda grid: ring(grid)))


def test_a_rule_of_ones_own_cannot_be_written() -> None:
    message = "relations: '.*' has a rule of its own, which cannot be written to a file"
    for relation in (custom("ring", ring), Relation("past_1f", ring), Relation("past", PAST.edges)):
        with pytest.raises(ValueError, match=message):
            relation.to_config()
    assert Relation("past_1f", PAST.edges).to_config() == "past_1f"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pst_3f", "past_3f"),
        ("past_3", "past_3f"),
        ("past(2)", "past_2f"),
        ("past_03f", "past_3f"),
        ("timealigned", "time_aligned"),
        ("window", "window_1p"),
        ("windows(radius=4)", "window_4p"),
        ("random_2_tme", "random_2_time"),
        (("token", "past", "token"), "past_1f"),
    ],
)
def test_an_unknown_relation_leads_to_the_one_that_was_meant(text: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"did you mean {name}\\? ") as caught:
        as_relation(text)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(f"(got {text!r})")


def test_a_relation_is_its_rule_and_a_row_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """One row gives a kind its names, its notation and its errors."""

    def diagonal(radius: int) -> Any:
        return TimeEdges(radius, 0)

    row = RelationKind("diagonal", "diagonal_{}p", diagonal, "radius", 1)
    monkeypatch.setattr(edges_module, "KINDS", (*edges_module.KINDS, row))
    spec = importlib.util.spec_from_file_location("with_one_more", relations_module.__file__)
    with_one_more = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(with_one_more)
    as_relation = with_one_more.as_relation
    assert as_relation("diagonal_2p").edges == TimeEdges(2, 0)
    assert as_relation("diagonal(radius=3)").to_config() == "diagonal_3p"
    with pytest.raises(ValueError, match=r"diagonal_Np, motion_Np, .*did you mean diagonal_2p\?"):
        as_relation("diagnal_2p")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "windows(radius=1)",
            r"must be one of intra_frame, .*window_Np, .*\(got 'w",
        ),
        ("past(radius=2)", r"past has no argument 'radius'; write past_2f or past\(reach=2\)"),
        ("spatial_window", r"needs its radius: window_1p or spatial_window\(radius=1\)"),
        ("past(reach=0)", r"past: reach must be a positive integer \(got 0\)"),
        ("past(reach=-1)", r"reach must be a positive integer \(got -1\)"),
        ("past_0f", r"past: reach must be a positive integer \(got 0\)"),
        ("past(2)", r"must be one of .*got 'past\(2\)'"),
        ("past(reach=1.5)", "must be one of"),
        ("past(reach=1, reach=2)", "must be one of"),
        ("intra_frame(reach=1)", "must be one of"),
        ("earlier_within_1_frames", "must be one of"),
        ("", "must be one of"),
        ("__import__('os')", "must be one of"),
        (("token", "past"), "must be one of"),
        (("clip", "past_1f", "clip"), "must be one of"),
        (3, "must be one of"),
    ],
)
def test_what_is_no_relation_is_named(text: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_relation(text)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_reach_and_radius_are_positive_integers(number: Any) -> None:
    with pytest.raises(ValueError, match="reach must be a positive integer"):
        past(number)
    with pytest.raises(ValueError, match="radius must be a positive integer"):
        spatial_window(number)


def ring(grid: Grid) -> torch.Tensor:
    nodes = torch.arange(grid.num_nodes).flip(0)
    return torch.stack([nodes, (nodes + 1) % grid.num_nodes])


def test_custom_edges_are_sorted() -> None:
    relation = custom("ring", ring)
    assert Grid(1, 1, 4).edge_index(relation).tolist() == [[3, 0, 1, 2], [0, 1, 2, 3]]
    assert custom("ring", ring) == relation
    assert custom("ring", lambda grid: ring(grid)) != relation
    assert pickle.loads(pickle.dumps(relation)) == relation


def test_edges_of_several_relations_come_by_type() -> None:
    edge_index, edge_type = Grid(2, 1, 2).typed_edges([TIME_ALIGNED, INTRA_FRAME, PAST])
    assert edge_index.tolist() == [[1, 2, 0, 3, 0, 0, 3, 1, 1, 2], [0, 0, 1, 1, 2, 2, 2, 3, 3, 3]]
    assert edge_type.tolist() == [1, 0, 1, 0, 0, 2, 1, 0, 2, 1]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"'odd': the function must give an int64 tensor \[2, E\] \(got NoneType\)"),
        (torch.zeros(2, 3), r"got torch.float32 of the shape \[2, 3\]"),
        (torch.zeros(3, 2, dtype=torch.long), r"got the shape \[3, 2\]"),
        (torch.zeros(4, dtype=torch.long), "an int64 tensor"),
        (torch.tensor([[0], [4]]), r"nodes must be from 0 to 3 on Grid.*\(got 0 to 4\)"),
        (torch.tensor([[-1], [0]]), r"\(got -1 to 0\)"),
    ],
)
def test_custom_edges_are_checked(found: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(1, 2, 2).edge_index(custom("odd", lambda grid: found))


def test_no_custom_edges_are_fine() -> None:
    none = custom("nothing", lambda grid: torch.empty(2, 0, dtype=torch.long))
    assert Grid(1, 2, 2).edge_index(none).shape == (2, 0)


@pytest.mark.parametrize("name", ["", "2d", "a b", "a.b", "a__b", "_a", "a_", "ok", "token"])
def test_names_serve_as_edge_types(name: str) -> None:
    with pytest.raises(ValueError, match=r"relation's name must be of letters.*\(got "):
        custom(name, ring)


def test_names_of_the_package_are_taken() -> None:
    for name in ("past", "past_3f", "time_1f", "spatial_window", "window_3p", "random_0_time"):
        with pytest.raises(ValueError, match=f"one of the package's own .*{name}"):
            custom(name, ring)


@pytest.mark.parametrize("names", [("flow", "flow_back"), ("flow_back", "flow"), ("ring", "ring")])
def test_names_must_not_contain_one_another(names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=f"got '{names[0]}' and '{names[1]}'"):
        combine([INTRA_FRAME, *(custom(name, ring) for name in names)])
